package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"restante/auth"
)

func (a *app) domainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "domain",
		Short: "Add, show and remove the domains that mail is taken for",
		RunE:  group,
	}
	cmd.AddCommand(a.domainAdd(), a.domainList(), a.domainShow(), a.domainSet(), a.domainRemove())
	return cmd
}

func (a *app) domainAdd() *cobra.Command {
	var postmaster string
	cmd := &cobra.Command{
		Use:   "add DOMAIN",
		Short: "Take mail for a domain",
		Long: `Take mail for a domain. Each domain has a postmaster, who gets the mail to
postmaster@ and abuse@: its first user, unless --postmaster names another.`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				name, err := parseDomain(args[0])
				if err != nil {
					return err
				}
				if err := i.users.AddDomain(cmd.Context(), name, postmaster); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "added domain %s\n", name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&postmaster, "postmaster", "", "the user who gets mail to postmaster@ (an `ADDRESS` here)")
	return cmd
}

// domainRow is one domain in "domain list --json".
type domainRow struct {
	Domain     string    `json:"domain"`
	Postmaster string    `json:"postmaster"`
	Users      int       `json:"users"`
	Aliases    int       `json:"aliases"`
	Created    time.Time `json:"created"`
	Quota      int64     `json:"quota"` // octets, of users without their own; 0: no limit
}

func newDomainRow(d auth.Domain) domainRow {
	return domainRow{d.Name, d.Postmaster, d.Users, d.Aliases, d.Created, d.Quota}
}

func (a *app) domainList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the domains",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				domains, err := i.users.Domains(cmd.Context())
				if err != nil {
					return err
				}
				var rows []domainRow
				for _, d := range domains {
					rows = append(rows, newDomainRow(d))
				}
				return list(a, asJSON, rows, `no domains yet; add one with "restante domain add DOMAIN"`,
					"DOMAIN | POSTMASTER | USERS | ALIASES", func(d domainRow) []string {
						return []string{d.Domain, orDash(d.Postmaster), strconv.Itoa(d.Users), strconv.Itoa(d.Aliases)}
					})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) domainRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove DOMAIN",
		Short: "Stop taking mail for a domain, and remove its users, aliases and mail",
		Long: `Stop taking mail for a domain, and remove its users, aliases and mail for good.
With users or mail in it, the domain has to be typed again, or --yes given.`,
		SuggestFor:        []string{"delete", "rm"},
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				name, err := parseDomain(args[0])
				if err != nil {
					return err
				}
				return a.removeDomain(cmd.Context(), i, name, yes)
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) removeDomain(ctx context.Context, i *installation, name string, yes bool) error {
	boxes, messages, err := domainMail(ctx, i, name)
	if err != nil {
		return err
	}
	// A domain that is gone already may have left mail when an earlier removal
	// was cut off.
	users, err := i.users.Users(ctx, name)
	if gone := errors.Is(err, auth.ErrNotFound); gone && len(boxes) == 0 {
		return notHosted(name)
	} else if err != nil && !gone {
		return err
	}
	if len(users) > 0 || messages > 0 {
		warning := fmt.Sprintf("domain %s has %s with %s, which will be removed for good", name, plural(len(users), "user"), plural(messages, "message"))
		if err := a.confirm(ctx, yes, warning, name); err != nil {
			return err
		}
	}
	// The directory first: no new mail comes and sessions end, then the mail goes.
	removed, err := i.users.RemoveDomain(ctx, name, auth.RemoveOptions{WithUsers: true})
	if err != nil && !errors.Is(err, auth.ErrNotFound) {
		return err
	}
	a.tellRemovedAliases(removed)
	wait, cancel := context.WithTimeout(ctx, removalWait)
	defer cancel()
	var kept []error
	for _, box := range boxes {
		kept = append(kept, removeMail(wait, i, box))
	}
	if err := errors.Join(kept...); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "removed domain %s with %s and %s\n", name, plural(len(users), "user"), plural(messages, "message"))
	return nil
}

// parseDomain makes the canonical name of a domain.
func parseDomain(s string) (string, error) {
	name, err := auth.ParseDomain(s)
	if bad := (*auth.AddressError)(nil); errors.As(err, &bad) {
		return "", usageError{fmt.Errorf("%q is no domain: %s", bad.Input, bad.Reason)}
	}
	return name, err
}

// hostedDomain is the domain that a list is narrowed to: "" for all. One that
// is not hosted is an error, rather than an empty list.
func hostedDomain(ctx context.Context, i *installation, args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	name, err := parseDomain(args[0])
	if err != nil {
		return "", err
	}
	if _, err = i.users.Users(ctx, name); errors.Is(err, auth.ErrNotFound) {
		return "", notHosted(name)
	}
	return name, err
}

// notHosted is for commands that want a domain that is there.
func notHosted(name string) error { return missingDomain(name) }

type missingDomain string

func (m missingDomain) Error() string {
	return fmt.Sprintf("domain %s is not hosted here; \"restante domain list\" shows those that are", string(m))
}

func domainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}

// domainMail finds the mailboxes on disk that belong to a domain and counts
// the messages in them.
func domainMail(ctx context.Context, i *installation, domain string) (boxes []string, messages int, err error) {
	all, err := i.mail.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, box := range all {
		if domainOf(box) != domain {
			continue
		}
		info, err := i.mail.Stat(ctx, box)
		if err != nil {
			return nil, 0, err
		}
		boxes = append(boxes, box)
		messages += info.Messages
	}
	return boxes, messages, nil
}
