package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"restante/auth"
	"restante/storage"
)

// removalWait is how long a removal waits for a POP3 session that still has the
// mailbox open; sessions of a removed user end at their next command.
const removalWait = 5 * time.Second

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add, show, disable and remove users, change passwords",
		RunE:  group,
	}
	cmd.AddCommand(a.userAdd(), a.userList(), a.userShow(), a.userPasswd(), a.userSet(), a.userEnable(), a.userDisable(), a.userRemove(), a.userImport(), a.userAppPassword())
	return cmd
}

func (a *app) userAdd() *cobra.Command {
	var flags passwordFlags
	var adopt bool
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Add a user with a mailbox",
		Long: `Add a user with a mailbox. The address is also the name to log in with. The
password is asked for on the terminal, unless a flag says where it comes from.

Mail that an earlier user of that address has left, or that another program has
put there, is given to nobody unless --adopt-mail says so.`,
		Example: `  restante user add alice@example.org
  restante user add alice@example.org --generate`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(i *installation) error {
				return a.addUser(cmd.Context(), i, args[0], flags, adopt)
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&adopt, "adopt-mail", false, "give the user the mail that is in the mailbox already")
	return cmd
}

// addUser asks for a password only when the user can be added.
func (a *app) addUser(ctx context.Context, i *installation, address string, flags passwordFlags, adopt bool) error {
	addr, err := auth.ParseUser(address)
	if err != nil {
		return err
	}
	if _, err := i.users.User(ctx, addr.String()); err == nil {
		return fmt.Errorf("user %s exists already; change the password with \"restante user passwd %s\"", addr, addr)
	}
	if _, err := i.users.Users(ctx, addr.Domain); err != nil {
		return err
	}
	if !adopt {
		if err := refuseOldMail(ctx, i, addr.String()); err != nil {
			return err
		}
	}
	secret, generated, err := a.password(ctx, flags, addr.String())
	if err != nil {
		return err
	}
	u, err := i.users.AddUser(ctx, addr.String(), secret)
	if err != nil {
		return err
	}
	if err := i.mail.CreateMailbox(ctx, u.Address); err != nil {
		return err
	}
	return a.tellUser("added user", u.Address, generated)
}

// tellUser says what was done, and the generated password if there is one. It
// fails when the password did not get out: it is shown only once.
func (a *app) tellUser(done, address, generated string) error {
	text := fmt.Sprintf("%s %s\n", done, address)
	if generated != "" {
		text += fmt.Sprintf("password: %s\n", generated)
	}
	if _, err := io.WriteString(a.stdout, text); err != nil && generated != "" {
		return fmt.Errorf("%s %s, but the password could not be printed: %w; make another with \"restante user passwd %s --generate\"", done, address, err, address)
	}
	return nil
}

// refuseOldMail refuses an address whose mailbox still holds somebody's mail: it
// would be handed to the new user.
func refuseOldMail(ctx context.Context, i *installation, address string) error {
	if strings.Contains(address, "/") {
		return nil // never a mailbox, and the directory says why
	}
	if _, err := i.users.User(ctx, address); err == nil || !errors.Is(err, auth.ErrNotFound) {
		return err // the directory says it better that a user exists
	}
	if _, hasMail, err := i.mail.MailboxExists(address); err != nil || !hasMail {
		return err
	}
	return fmt.Errorf("there is still mail of an earlier user %s; remove it with \"restante user remove %s\" before you add the user anew, or give it to the new user with --adopt-mail", address, address)
}

// userRow is one user in "user list --json".
type userRow struct {
	Address string    `json:"address"`
	Enabled bool      `json:"enabled"`
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
	Quota   int64     `json:"quota"` // octets, 0: no limit

	Messages  int       `json:"messages"` // that wait in the mailbox
	Octets    int64     `json:"octets"`
	LastLogin *visitRow `json:"last_login"`
}

// visitRow is a login in JSON.
type visitRow struct {
	Time     time.Time `json:"time"`
	Protocol string    `json:"protocol"`
	Address  string    `json:"address"`
}

func (v *visitRow) String() string {
	if v == nil {
		return "-"
	}
	return day(v.Time) + " " + v.Protocol + " " + v.Address
}

func newUserRow(u auth.User) userRow {
	return userRow{Address: u.Address, Enabled: u.Enabled, Created: u.Created, Changed: u.Changed, Quota: u.Quota}
}

func (a *app) userList() *cobra.Command {
	return domainListCommand(a, "List the users", `no users yet; add one with "restante user add ADDRESS"`, "ADDRESS | STATE | MESSAGES | SIZE | LAST LOGIN",
		func(ctx context.Context, i *installation, domain string) (rows []userRow, err error) {
			users, err := i.users.Users(ctx, domain)
			for _, u := range users {
				row := newUserRow(u)
				err = errors.Join(err, row.look(ctx, i))
				rows = append(rows, row)
			}
			return rows, err
		},
		func(u userRow) []string {
			return []string{u.Address, enabled(u.Enabled), strconv.Itoa(u.Messages), octets(u.Octets), u.LastLogin.String()}
		})
}

// look adds what is on disk about a user.
func (r *userRow) look(ctx context.Context, i *installation) error {
	info, err := i.mail.Stat(ctx, r.Address)
	if err != nil && !errors.Is(err, storage.ErrNoMailbox) { // it is made with the first message or login
		return fmt.Errorf("the mailbox of %s cannot be read: %w", r.Address, err)
	}
	r.Messages, r.Octets = info.Messages, info.Octets
	v, err := i.mail.LastVisit(r.Address)
	if v.At.Unix() >= r.Created.Unix() { // else it was an earlier user of that address
		r.LastLogin = &visitRow{v.At, v.Protocol, v.Address}
	}
	return err
}

func enabled(on bool) string {
	if on {
		return "enabled"
	}
	return "disabled"
}

func (a *app) userPasswd() *cobra.Command {
	var flags passwordFlags
	cmd := &cobra.Command{
		Use:   "passwd ADDRESS",
		Short: "Change a user's password",
		Long: `Change a user's password. The new one is asked for on the terminal, unless a flag
says where it comes from. Sessions that run with the old one end.`,
		SuggestFor:        []string{"password"},
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(i *installation) error {
				u, err := i.users.User(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				secret, generated, err := a.password(cmd.Context(), flags, u.Address)
				if err != nil {
					return err
				}
				if err := i.users.SetPassword(cmd.Context(), u.Address, secret); err != nil {
					return err
				}
				return a.tellUser("changed the password of", u.Address, generated)
			})
		},
	}
	flags.register(cmd)
	return cmd
}

func (a *app) userRemove() *cobra.Command {
	var yes, keep bool
	cmd := &cobra.Command{
		Use:   "remove ADDRESS",
		Short: "Remove a user and the mail in the mailbox",
		Long: `Remove a user and the mail in the mailbox for good. With mail in it, the address
has to be typed again, or --yes given. The user's sessions end, and aliases no
longer lead to the address.

With --keep-mail the mail stays on the disk. It is for whoever is added under the
address with "restante user add --adopt-mail".`,
		SuggestFor:        []string{"delete", "rm"},
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				addr, err := auth.ParseAddress(args[0])
				if err != nil {
					return err
				}
				if keep {
					return a.removeAccount(cmd.Context(), i, addr.String())
				}
				return a.removeUser(cmd.Context(), i, addr.String(), yes)
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&keep, "keep-mail", false, "leave the mail on the disk")
	return cmd
}

// removeAccount removes a user and leaves the mail.
func (a *app) removeAccount(ctx context.Context, i *installation, address string) error {
	info, err := i.mail.Stat(ctx, address)
	if err != nil && !errors.Is(err, storage.ErrNoMailbox) {
		return err
	}
	removed, err := i.users.RemoveUser(ctx, address)
	if err != nil {
		return err
	}
	a.tellRemovedAliases(removed)
	fmt.Fprintf(a.stdout, "removed user %s", address)
	if info.Path != "" {
		fmt.Fprintf(a.stdout, "; the mailbox with %s stays in %s", plural(info.Messages, "message"), info.Path)
	}
	fmt.Fprintln(a.stdout)
	return nil
}

func (a *app) removeUser(ctx context.Context, i *installation, address string, yes bool) error {
	_, unknown := i.users.User(ctx, address)
	if unknown != nil && !errors.Is(unknown, auth.ErrNotFound) {
		return unknown
	}
	info, err := i.mail.Stat(ctx, address)
	noMailbox := errors.Is(err, storage.ErrNoMailbox)
	if err != nil && !noMailbox {
		return err
	}
	if unknown != nil && noMailbox {
		return unknown
	}
	if info.Messages > 0 {
		warning := fmt.Sprintf("the mailbox of %s holds %s (%s), which will be removed for good", address, plural(info.Messages, "message"), octets(info.Octets))
		if err := a.confirm(ctx, yes, warning, address); err != nil {
			return err
		}
	}
	if unknown == nil {
		removed, err := i.users.RemoveUser(ctx, address)
		if err != nil {
			return err
		}
		a.tellRemovedAliases(removed)
	}
	ctx, cancel := context.WithTimeout(ctx, removalWait)
	defer cancel()
	if err := removeMail(ctx, i, address); err != nil {
		return err
	}
	what := "user"
	if unknown != nil {
		what = "the mail of"
	}
	fmt.Fprintf(a.stdout, "removed %s %s with %s\n", what, address, plural(info.Messages, "message"))
	return nil
}

// removeMail deletes a mailbox. A POP3 session that holds it is waited for until
// ctx ends, as it ends at its next command.
func removeMail(ctx context.Context, i *installation, mailbox string) error {
	for {
		err := i.mail.RemoveMailbox(ctx, mailbox)
		if !errors.Is(err, storage.ErrInUse) {
			if errors.Is(err, storage.ErrNoMailbox) {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s can no longer log in, but a POP3 session still has the mailbox open, so its mail is kept; give the same command again in some minutes to remove it", mailbox)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (a *app) userImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Add many users from a file, all or none",
		Long: `Add many users from a file, or from standard input when FILE is "-". A line is

  address:secret

where the secret is {PLAIN}password, an argon2id hash ($argon2id$...), or a hash of
another system: $1$, $5$, $6$, $2y$ and $y$ of /etc/shadow, and those of Dovecot
that begin with the name of a scheme, such as {SSHA512}. A hash of another system is
replaced at the first login. Empty lines and lines that begin with # are skipped.
When one line is wrong nothing is added, and every wrong line is named.`,
		Args: arguments(1, 1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault // the names of files
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			entries, err := a.readImport(ctx, args[0])
			if err == nil {
				err = a.with(ctx, func(i *installation) error { return a.importUsers(ctx, i, entries) })
			}
			// An address that is refused is in the file, not in the command line.
			if bad := (*auth.ImportError)(nil); errors.As(err, &bad) {
				return fmt.Errorf("nothing was imported:\n%v", err)
			}
			return err
		},
	}
}

// readImport is done first, with the rights of whoever gives the command: the
// owner of the data directory may not be able to read the file.
func (a *app) readImport(ctx context.Context, file string) ([]auth.ImportEntry, error) {
	if file == "-" {
		return interruptible(ctx, func() ([]auth.ImportEntry, error) { return auth.ParseImport(a.stdin) })
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the users cannot be read: %w", err)
	}
	defer f.Close()
	return auth.ParseImport(f)
}

func (a *app) importUsers(ctx context.Context, i *installation, entries []auth.ImportEntry) error {
	var held []error
	for _, e := range entries {
		if err := refuseOldMail(ctx, i, e.Address); err != nil {
			held = append(held, &auth.ImportError{Line: e.Line, Err: err})
		}
	}
	if err := errors.Join(held...); err != nil {
		return err
	}
	if err := i.users.ImportUsers(ctx, entries); err != nil {
		return err
	}
	var making errgroup.Group
	making.SetLimit(deliverers)
	for _, e := range entries {
		making.Go(func() error { return i.mail.CreateMailbox(ctx, e.Address) })
	}
	if err := making.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "imported %s\n", plural(len(entries), "user"))
	return nil
}
