package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// domainListCommand is "list [DOMAIN]": it gathers the rows of all domains ("")
// or of one, and writes them as list does. Rows beside an error are written all
// the same.
func domainListCommand[T any](a *app, short, none, heading string,
	gather func(ctx context.Context, i *installation, domain string) ([]T, error), row func(T) []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list [DOMAIN]",
		Short:             short,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				domain, err := hostedDomain(cmd.Context(), i, args)
				if err != nil {
					return err
				}
				rows, err := gather(cmd.Context(), i, domain)
				if err != nil && rows == nil {
					return err
				}
				return errors.Join(list(a, asJSON, rows, none, heading, row), err)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
