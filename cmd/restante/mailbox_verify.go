package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"restante/auth"
	"restante/storage"
)

// verifyRow is one mailbox in "mailbox verify --json".
type verifyRow struct {
	Address  string       `json:"address"`
	Messages int          `json:"messages"`
	Foreign  int          `json:"foreign"`
	Octets   int64        `json:"octets"`
	Findings []findingRow `json:"findings"`
}

type findingRow struct {
	File     string `json:"file"`
	Problem  string `json:"problem"`
	Repaired bool   `json:"repaired"`
}

func (a *app) mailboxVerify() *cobra.Command {
	var repair, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [ADDRESS...]",
		Short: "Read all mail of mailboxes and compare it with what is said of it",
		Long: `Read all mail of mailboxes, of all or of those that are named, and compare it with
what the names of the files and the index say. Everything that POP3 clients do not
get, or would get wrongly announced, is named with its file. The exit status is 1
when there is something of that kind.

With --repair the index is put right. Files of mailboxes are never changed. It is
safe while a server runs; a mailbox with an open session has to wait.`,
		Args:              arguments(0, -1),
		ValidArgsFunction: a.completeUsers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				return a.verifyMailboxes(cmd.Context(), i, args, repair, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "put the index right")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) verifyMailboxes(ctx context.Context, i *installation, args []string, repair, asJSON bool) error {
	names, err := mailboxNames(ctx, i, args)
	if err != nil {
		return err
	}
	rows := []verifyRow{}
	var errs []error
	open := 0
	for _, name := range names {
		check, err := i.mail.Verify(ctx, name, repair)
		switch {
		case errors.Is(err, storage.ErrNoMailbox):
			err = fmt.Errorf("there is no mailbox %s; \"restante mailbox list\" shows those that are", name)
		case errors.Is(err, storage.ErrInUse):
			err = fmt.Errorf("%s is in use by a session; try again in some minutes", name)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		row := newVerifyRow(name, check)
		rows = append(rows, row)
		for _, f := range row.Findings {
			if !f.Repaired {
				open++
			}
		}
		if !asJSON {
			a.tellCheck(row)
		}
	}
	if asJSON {
		errs = append(errs, writeJSON(a.stdout, rows))
	}
	if open > 0 {
		errs = append(errs, fmt.Errorf("%s found", plural(open, "problem")))
	}
	return errors.Join(errs...)
}

// mailboxNames are the mailboxes of the addresses, or all on disk without any.
func mailboxNames(ctx context.Context, i *installation, args []string) ([]string, error) {
	if len(args) == 0 {
		return i.mail.List(ctx)
	}
	var names []string
	for _, arg := range args {
		addr, err := auth.ParseAddress(arg)
		if err != nil {
			return nil, err
		}
		names = append(names, addr.String())
	}
	return names, nil
}

func newVerifyRow(name string, c storage.Check) verifyRow {
	row := verifyRow{Address: name, Messages: c.Messages, Foreign: c.Foreign, Octets: c.Octets, Findings: []findingRow{}}
	for _, f := range c.Findings {
		row.Findings = append(row.Findings, findingRow{f.File, f.Problem, f.Repaired})
	}
	return row
}

func (a *app) tellCheck(r verifyRow) {
	fmt.Fprintf(a.stdout, "%s: %s, %s", r.Address, plural(r.Messages, "message"), octets(r.Octets))
	if r.Foreign > 0 {
		fmt.Fprintf(a.stdout, ", %d of other programs", r.Foreign)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(a.stdout, ": fine")
		return
	}
	fmt.Fprintln(a.stdout)
	for _, f := range r.Findings {
		file, repaired := f.File, ""
		if file != "" {
			file += ": "
		}
		if f.Repaired {
			repaired = " (repaired)"
		}
		fmt.Fprintf(a.stdout, "  %s%s%s\n", file, f.Problem, repaired)
	}
}
