package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"restante/auth"
	"restante/storage"
)

func (a *app) mailboxCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mailbox",
		Short: "Look at what the mailboxes hold, and put mail into them",
		RunE:  group,
	}
	cmd.AddCommand(a.mailboxList(), a.mailboxShow(), a.mailboxVerify(), a.mailboxDeliver())
	return cmd
}

// mailboxRow is one mailbox in the JSON of "mailbox list" and "mailbox show".
type mailboxRow struct {
	Address  string     `json:"address"`
	Messages int        `json:"messages"`
	New      int        `json:"new"`
	Octets   int64      `json:"octets"`
	Quota    int64      `json:"quota"` // octets, 0: no limit
	Oldest   *time.Time `json:"oldest"`
	Newest   *time.Time `json:"newest"`
	Path     string     `json:"path"`
	User     bool       `json:"user"`
}

func mailboxInfo(ctx context.Context, i *installation, address string) (mailboxRow, error) {
	row := mailboxRow{Address: address}
	info, err := i.mail.Stat(ctx, address)
	if err != nil {
		return row, err
	}
	row.Messages, row.New, row.Octets, row.Path = info.Messages, info.Unseen, info.Octets, info.Path
	row.Oldest, row.Newest = moment(info.Oldest), moment(info.Newest)
	switch u, err := i.users.User(ctx, address); {
	case err == nil:
		row.User, row.Quota = true, u.Quota
	case !errors.Is(err, auth.ErrNotFound):
		return row, err
	}
	return row, nil
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *app) mailboxList() *cobra.Command {
	return domainListCommand(a, "List the mailboxes with their messages and size", "no mailboxes yet", "ADDRESS | MESSAGES | NEW | SIZE | FULL | NEWEST",
		mailboxRows,
		func(r mailboxRow) []string {
			address := r.Address
			if !r.User {
				address += " (no such user)"
			}
			return []string{address, strconv.Itoa(r.Messages), strconv.Itoa(r.New), octets(r.Octets), fullness(r.Octets, r.Quota), dayOf(r.Newest)}
		})
}

// mailboxRows are the mailboxes on disk, those without a user among them: their
// mail takes room and nobody can fetch it. Those that cannot be read make the
// error, beside the others.
func mailboxRows(ctx context.Context, i *installation, domain string) ([]mailboxRow, error) {
	names, err := i.mail.List(ctx)
	errs := []error{err}
	var rows []mailboxRow
	for _, name := range names {
		if domain != "" && domainOf(name) != domain {
			continue
		}
		row, err := mailboxInfo(ctx, i, name)
		if errors.Is(err, storage.ErrNoMailbox) {
			continue // removed since it was listed
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the mailbox of %s cannot be read: %w", name, err))
			continue
		}
		rows = append(rows, row)
	}
	return rows, errors.Join(errs...)
}

func dayOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return day(*t)
}

func (a *app) mailboxShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show ADDRESS",
		Short:             "Show one mailbox",
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				return a.showMailbox(cmd.Context(), i, args[0], asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) showMailbox(ctx context.Context, i *installation, address string, asJSON bool) error {
	addr, err := auth.ParseAddress(address)
	if err != nil {
		return err
	}
	row, err := mailboxInfo(ctx, i, addr.String())
	if errors.Is(err, storage.ErrNoMailbox) {
		return fmt.Errorf("there is no mailbox %s; \"restante mailbox list\" shows those that are", addr)
	}
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, row)
	}
	user := "yes"
	if !row.User {
		user = "no: nobody can fetch this mail"
	}
	return table(a.stdout, "address | "+row.Address, [][]string{
		{"user", user},
		{"messages", fmt.Sprintf("%d (%d new)", row.Messages, row.New)},
		{"size", fmt.Sprintf("%s (%d octets)", octets(row.Octets), row.Octets)},
		{"full", fullness(row.Octets, row.Quota)},
		{"oldest", dayOf(row.Oldest)},
		{"newest", dayOf(row.Newest)},
		{"maildir", row.Path},
	})
}
