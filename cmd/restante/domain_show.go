package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"restante/auth"
)

// domainDetails is one domain in "domain show --json".
type domainDetails struct {
	domainRow
	Mailboxes int   `json:"mailboxes"`
	Messages  int   `json:"messages"`
	Octets    int64 `json:"octets"`
}

func (a *app) domainShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show one domain and what its mailboxes hold",
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				return a.showDomain(cmd.Context(), i, args[0], asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) showDomain(ctx context.Context, i *installation, domain string, asJSON bool) error {
	name, err := parseDomain(domain)
	if err != nil {
		return err
	}
	all, err := i.users.Domains(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(d auth.Domain) bool { return d.Name == name })
	if at < 0 {
		return notHosted(name)
	}
	d := domainDetails{domainRow: newDomainRow(all[at])}
	rows, unread := mailboxRows(ctx, i, name)
	for _, r := range rows {
		d.Mailboxes++
		d.Messages += r.Messages
		d.Octets += r.Octets
	}
	if asJSON {
		return errors.Join(writeJSON(a.stdout, d), unread)
	}
	return errors.Join(table(a.stdout, "domain | "+d.Domain, [][]string{
		{"since", day(d.Created)},
		{"postmaster", orDash(d.Postmaster)},
		{"quota", quotaCell(d.Quota)},
		{"users", fmt.Sprint(d.Users)},
		{"aliases", fmt.Sprint(d.Aliases)},
		{"mailboxes", fmt.Sprint(d.Mailboxes)},
		{"messages", fmt.Sprint(d.Messages)},
		{"size", fmt.Sprintf("%s (%d octets)", octets(d.Octets), d.Octets)},
	}), unread)
}
