package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"restante/auth"
)

func (a *app) aliasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alias",
		Short: "Add, list and remove addresses that lead to users",
		RunE:  group,
	}
	cmd.AddCommand(a.aliasAdd(), a.aliasList(), a.aliasRemove())
	return cmd
}

func (a *app) aliasAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add ADDRESS TARGET...",
		Short: "Lead an address to one or more users or other aliases",
		Long: `Lead an address to one or more users or other aliases of the domains here.
The address @example.org takes everything to example.org that no user and no
other alias takes. Targets are added to those an alias has already.`,
		Example: `  restante alias add info@example.org alice@example.org bob@example.org
  restante alias add @example.org alice@example.org`,
		Args:              arguments(2, -1),
		ValidArgsFunction: a.completeAliases,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				if err := i.users.AddAlias(cmd.Context(), args[0], args[1:]); err != nil {
					return err
				}
				return a.tellAlias(cmd.Context(), i, args[0])
			})
		},
	}
}

// tellAlias shows an alias of the directory as it is now.
func (a *app) tellAlias(ctx context.Context, i *installation, address string) error {
	domain, err := auth.ParseDomain(domainOf(address))
	if err != nil {
		return err
	}
	name := "@" + domain // the catch-all
	if parsed, err := auth.ParseAddress(address); err == nil {
		name = parsed.String()
	}
	aliases, err := i.users.Aliases(ctx, domain)
	if err != nil {
		return err
	}
	for _, al := range aliases {
		if al.Address == name {
			fmt.Fprintf(a.stdout, "%s leads to %s\n", al.Address, strings.Join(al.Targets, ", "))
		}
	}
	return nil
}

// aliasRow is one alias in "alias list --json".
type aliasRow struct {
	Address string   `json:"address"`
	Targets []string `json:"targets"`
}

func (a *app) aliasList() *cobra.Command {
	return domainListCommand(a, "List the aliases", `no aliases yet; add one with "restante alias add ADDRESS TARGET..."`, "ADDRESS | LEADS TO",
		func(ctx context.Context, i *installation, domain string) (rows []aliasRow, err error) {
			aliases, err := i.users.Aliases(ctx, domain)
			for _, al := range aliases {
				rows = append(rows, aliasRow{al.Address, al.Targets})
			}
			return rows, err
		},
		func(r aliasRow) []string { return []string{r.Address, strings.Join(r.Targets, ", ")} })
}

func (a *app) aliasRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ADDRESS [TARGET...]",
		Short: "Remove an alias, or some of its targets",
		Long: `Remove an alias, or only the targets that are named. An alias goes when it has no
target left.`,
		SuggestFor:        []string{"delete", "rm"},
		Args:              arguments(1, -1),
		ValidArgsFunction: a.completeAliases,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(i *installation) error {
				removed, err := i.users.RemoveAlias(cmd.Context(), args[0], args[1:]...)
				if err != nil {
					return err
				}
				a.tellRemovedAliases(removed)
				if len(removed.Aliases) == 0 {
					return a.tellAlias(cmd.Context(), i, args[0])
				}
				return nil
			})
		},
	}
}

// tellRemovedAliases names the aliases that went with something else, because
// they led nowhere any more.
func (a *app) tellRemovedAliases(r auth.Removal) {
	for _, alias := range r.Aliases {
		fmt.Fprintf(a.stdout, "removed alias %s\n", alias)
	}
}
