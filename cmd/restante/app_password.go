package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"restante/auth"
)

func (a *app) userAppPassword() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app-password",
		Short: "Give each device of a user a password of its own",
		Long: `Give each device or program of a user a password of its own. When one is lost, its
password is removed and the others go on. The log says which one was used.

"restante user set ADDRESS --app-only on" has the user log in with them only.`,
		RunE: group,
	}
	cmd.AddCommand(a.appPasswordAdd(), a.appPasswordList(), a.appPasswordRemove())
	return cmd
}

func (a *app) appPasswordAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add ADDRESS NAME",
		Short: "Make a password for a device, and print it once",
		Long: `Make a password for a device or program of a user, and print it, once. The hyphens
in it are for reading: it may be typed with them or without.`,
		Example:           `  restante user app-password add alice@example.org "Alice's phone"`,
		Args:              arguments(2, 2),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				u, err := i.users.User(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				password, err := i.users.AddAppPassword(cmd.Context(), u.Address, args[1])
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(a.stdout, "added app password %q of %s\npassword: %s\n", args[1], u.Address, password); err != nil {
					return fmt.Errorf("the app password was made, but could not be printed: %w; remove it and make another", err)
				}
				return nil
			})
		},
	}
}

// appPasswordRow is one app password in JSON.
type appPasswordRow struct {
	Name    string    `json:"name"`
	Created string    `json:"created"`
	LastUse *visitRow `json:"last_use"`
}

func newVisitRow(u *auth.Use) *visitRow {
	if u == nil {
		return nil
	}
	return &visitRow{u.Time, u.Protocol, u.Address}
}

func (a *app) appPasswordList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list ADDRESS",
		Short:             "List the app passwords of a user, and when each was used last",
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				apps, err := i.users.AppPasswords(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					rows := []appPasswordRow{}
					for _, p := range apps {
						rows = append(rows, appPasswordRow{p.Name, p.Created.Format("2006-01-02T15:04:05Z07:00"), newVisitRow(p.LastUse)})
					}
					return writeJSON(a.stdout, rows)
				}
				none := fmt.Sprintf("no app passwords; make one with \"restante user app-password add %s NAME\"", args[0])
				return list(a, false, apps, none, "NAME | CREATED | LAST USED", func(p auth.AppPassword) []string {
					return []string{p.Name, day(p.Created), newVisitRow(p.LastUse).String()}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) appPasswordRemove() *cobra.Command {
	return &cobra.Command{
		Use:        "remove ADDRESS NAME",
		Short:      "Remove an app password; sessions that run with it end",
		SuggestFor: []string{"delete", "rm"},
		Args:       arguments(2, 2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeUsers(cmd, args, toComplete)
			}
			return a.complete(cmd, args, 2, func(ctx context.Context, i *installation) (names []string, err error) {
				apps, err := i.users.AppPasswords(ctx, args[0])
				for _, p := range apps {
					names = append(names, p.Name)
				}
				return names, err
			})
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				if err := i.users.RemoveAppPassword(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(a.stdout, "removed app password %q of %s\n", args[1], args[0])
				return err
			})
		},
	}
}
