package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) userSet() *cobra.Command {
	var quota string
	cmd := &cobra.Command{
		Use:   "set ADDRESS --quota SIZE",
		Short: "Set how much mail a user may have",
		Long: `Set the quota of a user: how much mail the mailbox may hold. SIZE is a number with
KB, MB or GB (1000) or KiB, MiB or GiB (1024); "none" for no limit, "default" for
that of the domain.

While a mailbox is full, mail to it is refused for the time being, so senders try
again. At 80% and at 95% a message in the mailbox warns its user.`,
		Example: `  restante user set alice@example.org --quota 2GB
  restante user set alice@example.org --quota default`,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			own := new(int64)
			var err error
			if strings.EqualFold(quota, "default") {
				own = nil
			} else if *own, err = parseQuota(quota); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(i *installation) error {
				if err := i.users.SetQuota(cmd.Context(), args[0], own); err != nil {
					return err
				}
				u, err := i.users.User(cmd.Context(), args[0])
				if err == nil {
					fmt.Fprintf(a.stdout, "quota of %s: %s\n", u.Address, quotaFrom(u.Quota, u.OwnQuota))
				}
				return err
			})
		},
	}
	requireQuota(cmd, &quota)
	return cmd
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
