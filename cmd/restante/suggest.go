package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"restante/auth"
	"restante/cmd/restante/internal/nearest"
)

// slips is how many letters of a name may be wrong.
const slips = 2

// suggest adds to an error about a user or a domain that is not there which one may
// have been meant.
func (i *installation) suggest(ctx context.Context, err error) error {
	name := auth.Missing(err)
	if domain := missingDomain(""); errors.As(err, &domain) {
		name = string(domain)
	}
	if name == "" {
		return err
	}
	if near := nearest.Name(name, i.names(ctx, strings.Contains(name, "@")), slips); near != "" {
		return fmt.Errorf("%w\ndid you mean %s?", err, near)
	}
	return err
}

// names are those of the users, or of the domains. They only help: none when they
// cannot be read.
func (i *installation) names(ctx context.Context, users bool) (names []string) {
	if users {
		all, _ := i.users.Users(ctx, "")
		for _, u := range all {
			names = append(names, u.Address)
		}
		return names
	}
	all, _ := i.users.Domains(ctx)
	for _, d := range all {
		names = append(names, d.Name)
	}
	return names
}
