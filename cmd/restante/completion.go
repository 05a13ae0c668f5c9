package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completionTime is what a shell waits for the addresses to complete.
const completionTime = 2 * time.Second

// completeUsers has a shell complete the addresses of users, as far as whoever
// types may read them.
func (a *app) completeUsers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, 1, func(ctx context.Context, i *installation) (names []string, err error) {
		users, err := i.users.Users(ctx, "")
		for _, u := range users {
			names = append(names, u.Address)
		}
		return names, err
	})
}

// completeDomains is completeUsers for domains.
func (a *app) completeDomains(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, 1, func(ctx context.Context, i *installation) (names []string, err error) {
		domains, err := i.users.Domains(ctx)
		for _, d := range domains {
			names = append(names, d.Name)
		}
		return names, err
	})
}

// completeAliases is completeUsers for aliases, and then for the addresses they
// may lead to.
func (a *app) completeAliases(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return a.completeUsers(cmd, nil, toComplete)
	}
	return a.complete(cmd, args, 1, func(ctx context.Context, i *installation) (names []string, err error) {
		aliases, err := i.users.Aliases(ctx, "")
		for _, alias := range aliases {
			names = append(names, alias.Address)
		}
		return names, err
	})
}

// complete gives the shell names for the first arguments of a command. What goes
// wrong gives none: a shell is no place for errors.
func (a *app) complete(cmd *cobra.Command, args []string, most int,
	find func(context.Context, *installation) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if len(args) >= most {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var names []string
	err := a.with(ctx, func(i *installation) (err error) {
		names, err = find(ctx, i)
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
