package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) userSet() *cobra.Command {
	var quota, appOnly string
	cmd := &cobra.Command{
		Use:   "set ADDRESS [--quota SIZE] [--app-only on|off]",
		Short: "Set how much mail a user may have, and how to log in",
		Long: `Set the quota of a user: how much mail the mailbox may hold. SIZE is a number with
KB, MB or GB (1000) or KiB, MiB or GiB (1024); "none" for no limit, "default" for
that of the domain.

While a mailbox is full, mail to it is refused for the time being, so senders try
again. At 80% and at 95% a message in the mailbox warns its user.

With --app-only on, the user logs in with app passwords only, see "restante user
app-password". Sessions that run end.`,
		Example: `  restante user set alice@example.org --quota 2GB
  restante user set alice@example.org --app-only on
  restante user set alice@example.org --quota default`,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := userChanges(cmd, quota, appOnly)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(i *installation) error {
				for _, change := range changes {
					told, err := change(cmd.Context(), i, args[0])
					if err != nil {
						return err
					}
					fmt.Fprintln(a.stdout, told)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&quota, "quota", "", "how much mail (a `SIZE` such as 2GB)")
	cmd.Flags().StringVar(&appOnly, "app-only", "", "take app passwords only: `on` or off")
	return cmd
}

// userChange sets something of a user, and says what it is now.
type userChange func(ctx context.Context, i *installation, address string) (told string, err error)

// userChanges are those that the flags ask for.
func userChanges(cmd *cobra.Command, quota, appOnly string) (changes []userChange, err error) {
	if cmd.Flags().Changed("quota") {
		own := new(int64)
		if strings.EqualFold(quota, "default") {
			own = nil
		} else if *own, err = parseQuota(quota); err != nil {
			return nil, err
		}
		changes = append(changes, func(ctx context.Context, i *installation, address string) (string, error) {
			if err := i.users.SetQuota(ctx, address, own); err != nil {
				return "", err
			}
			u, err := i.users.User(ctx, address)
			return fmt.Sprintf("quota of %s: %s", u.Address, quotaFrom(u.Quota, u.OwnQuota)), err
		})
	}
	if cmd.Flags().Changed("app-only") {
		if appOnly != "on" && appOnly != "off" {
			return nil, usagef(cmd, "--app-only is on or off, not %q", appOnly)
		}
		changes = append(changes, func(ctx context.Context, i *installation, address string) (string, error) {
			return setAppOnly(ctx, i, address, appOnly == "on")
		})
	}
	if changes == nil {
		return nil, usagef(cmd, "--quota or --app-only is missing: it says what to set")
	}
	return changes, nil
}

// setAppOnly refuses to lock a user out who has no app password yet.
func setAppOnly(ctx context.Context, i *installation, address string, on bool) (string, error) {
	apps, err := i.users.AppPasswords(ctx, address)
	if err != nil {
		return "", err
	}
	if on && len(apps) == 0 {
		return "", fmt.Errorf("%s has no app password yet; make one first with \"restante user app-password add %s NAME\"", address, address)
	}
	if err := i.users.SetAppOnly(ctx, address, on); err != nil {
		return "", err
	}
	if on {
		return fmt.Sprintf("%s logs in with app passwords only", address), nil
	}
	return fmt.Sprintf("%s logs in with the password or an app password", address), nil
}

func (a *app) domainSet() *cobra.Command {
	var quota string
	cmd := &cobra.Command{
		Use:   "set DOMAIN --quota SIZE",
		Short: "Set how much mail each user of a domain may have",
		Long: `Set the quota of the users of a domain who have none of their own: how much mail
each mailbox may hold. SIZE is a number with KB, MB or GB (1000) or KiB, MiB or GiB
(1024), or "none" for no limit.`,
		Example:           `  restante domain set example.org --quota 1GB`,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			octets, err := parseQuota(quota)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(i *installation) error {
				name, err := parseDomain(args[0])
				if err != nil {
					return err
				}
				if err := i.users.SetDomainQuota(cmd.Context(), name, octets); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "quota of the users of %s: %s\n", name, quotaName(octets))
				return nil
			})
		},
	}
	requireQuota(cmd, &quota)
	return cmd
}

func requireQuota(cmd *cobra.Command, quota *string) {
	cmd.Flags().StringVar(quota, "quota", "", "how much mail (a `SIZE` such as 2GB)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("quota") {
			return usagef(cmd, "--quota is missing: it says what to set")
		}
		return nil
	}
}

func quotaName(quota int64) string {
	if quota == 0 {
		return "none"
	}
	return quotaCell(quota)
}

// quotaFrom tells where a quota comes from, too.
func quotaFrom(quota int64, own bool) string {
	if own {
		return quotaName(quota)
	}
	return quotaName(quota) + " (that of the domain)"
}
