package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"restante/storage"
)

// userDetails is one user in "user show --json".
type userDetails struct {
	userRow
	OwnQuota bool       `json:"own_quota"` // it is not that of the domain
	Aliases  []string   `json:"aliases"`
	Mailbox  mailboxRow `json:"mailbox"`

	AppPasswords int       `json:"app_passwords"`     // how many
	AppOnly      bool      `json:"app_only"`          // only they are taken
	Stale        *visitRow `json:"old_password_seen"` // a device that has the password before the last change
}

func (a *app) userShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show ADDRESS",
		Short:             "Show one user, the aliases and the mailbox",
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				return a.showUser(cmd.Context(), i, args[0], asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) showUser(ctx context.Context, i *installation, address string, asJSON bool) error {
	u, err := i.users.User(ctx, address)
	if err != nil {
		return err
	}
	d := userDetails{userRow: newUserRow(u), OwnQuota: u.OwnQuota, AppOnly: u.AppOnly, Stale: newVisitRow(u.Stale)}
	apps, err := i.users.AppPasswords(ctx, u.Address)
	if err != nil {
		return err
	}
	d.AppPasswords = len(apps)
	if d.Aliases, err = aliasesOf(ctx, i, u.Address); err != nil {
		return err
	}
	if err := d.look(ctx, i); err != nil {
		return err
	}
	d.Mailbox, err = mailboxInfo(ctx, i, u.Address)
	if err != nil && !errors.Is(err, storage.ErrNoMailbox) { // it is made with the first message or login
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, d)
	}
	return table(a.stdout, "address | "+d.Address, [][]string{
		{"state", enabled(d.Enabled)},
		{"since", day(d.Created)},
		{"changed", day(d.Changed)},
		{"last login", d.LastLogin.String()},
		{"app passwords", strconv.Itoa(d.AppPasswords) + map[bool]string{true: ", and no other"}[d.AppOnly]},
		{"old password seen", d.Stale.String()},
		{"aliases", orDash(strings.Join(d.Aliases, ", "))},
		{"messages", fmt.Sprintf("%d (%d new)", d.Mailbox.Messages, d.Mailbox.New)},
		{"size", fmt.Sprintf("%s (%d octets)", octets(d.Mailbox.Octets), d.Mailbox.Octets)},
		{"quota", quotaFrom(d.Quota, d.OwnQuota)},
		{"full", fullness(d.Mailbox.Octets, d.Quota)},
		{"newest", dayOf(d.Mailbox.Newest)},
		{"maildir", orDash(d.Mailbox.Path)},
	})
}

// aliasesOf are the aliases that name an address as their target.
func aliasesOf(ctx context.Context, i *installation, address string) ([]string, error) {
	all, err := i.users.Aliases(ctx, "")
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, alias := range all {
		if slices.Contains(alias.Targets, address) {
			names = append(names, alias.Address)
		}
	}
	return names, nil
}

func (a *app) userEnable() *cobra.Command {
	return a.userSwitch(true, &cobra.Command{
		Use:   "enable ADDRESS",
		Short: "Let a user log in and receive mail again",
	})
}

func (a *app) userDisable() *cobra.Command {
	return a.userSwitch(false, &cobra.Command{
		Use:   "disable ADDRESS",
		Short: "Keep a user from logging in and receiving mail",
		Long: `Keep a user from logging in and receiving mail, and keep the mail that is there.
Sessions end at their next command. Senders are told that the mailbox is disabled.
"restante user enable" undoes it.`,
	})
}

func (a *app) userSwitch(on bool, cmd *cobra.Command) *cobra.Command {
	cmd.Args = arguments(1, 1)
	cmd.ValidArgsFunction = a.completeUsers
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), func(i *installation) error {
			u, err := i.users.User(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if u.Enabled == on {
				fmt.Fprintf(a.stdout, "user %s is %s already\n", u.Address, enabled(on))
				return nil
			}
			if err := i.users.SetEnabled(cmd.Context(), u.Address, on); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s user %s\n", enabled(on), u.Address)
			return nil
		})
	}
	return cmd
}
