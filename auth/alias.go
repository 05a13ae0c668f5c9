package auth

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// maxReach bounds the addresses that one alias leads to, those on the way
// counted too, and so the depth of a nest. Adding to an alias fails when it, or
// one that leads through it, would lead to more.
const maxReach = 1000

// Alias is an address that leads to others.
type Alias struct {
	Address string   // quoted as needed, or @domain for the catch-all
	Targets []string // users and aliases
}

// target is an address that an alias leads to.
type target struct {
	Address
	id int64
}

// AddAlias makes an alias, or adds targets to one that exists; targets it has
// already are no error. The address is local-part@domain in a hosted domain, or
// @domain for what no other user or alias of the domain takes. Targets are
// users and aliases that exist. Errors: ErrBadAddress, ErrNotFound, ErrExists
// (a user has the address), ErrAliasLoop.
func (d *Directory) AddAlias(ctx context.Context, addr string, targets []string) error {
	a, err := parseAlias(addr)
	if err != nil {
		return err
	}
	wanted, err := parseTargets(a, targets)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		alias, err := aliasID(ctx, tx, a)
		if err != nil {
			return err
		}
		for _, t := range wanted {
			if err := addTarget(ctx, tx, target{a, alias}, t); err != nil {
				return err
			}
		}
		return checkReach(ctx, tx, target{a, alias})
	})
}

func parseTargets(alias Address, targets []string) ([]Address, error) {
	if len(targets) == 0 {
		return nil, failuref(ErrBadAddress, "alias %s needs at least one target", alias)
	}
	parsed := make([]Address, len(targets))
	for i, s := range targets {
		if strings.HasPrefix(s, "@") {
			return nil, &AddressError{Input: s, Reason: "a catch-all cannot be a target; name a user or an alias"}
		}
		var err error
		if parsed[i], err = ParseAddress(s); err != nil {
			return nil, err
		}
	}
	return parsed, nil
}

// aliasID finds the alias or makes one without targets.
func aliasID(ctx context.Context, tx *sql.Tx, a Address) (int64, error) {
	domain, err := domainID(ctx, tx, a.Domain)
	if err != nil {
		return 0, err
	}
	found, err := findAddress(ctx, tx, a)
	switch {
	case errors.Is(err, ErrNotFound):
		return insertAddress(ctx, tx, domain, a.Local)
	case err == nil && found.user:
		return 0, failuref(ErrExists, `%s is a user and cannot be an alias too; choose another address, or remove the user first with "restante user remove %s"`, a, a)
	}
	return found.id, err
}

func addTarget(ctx context.Context, tx *sql.Tx, alias target, to Address) error {
	if to == alias.Address {
		return failuref(ErrAliasLoop, "alias %s cannot lead to itself", alias)
	}
	if _, err := domainID(ctx, tx, to.Domain); errors.Is(err, ErrNotFound) {
		return failuref(ErrNotFound, "target %s is not hosted here; an alias leads only to users and aliases of this server", to)
	} else if err != nil {
		return err
	}
	found, err := findAddress(ctx, tx, to)
	if errors.Is(err, ErrNotFound) {
		return failuref(ErrNotFound, `target %s is neither a user nor an alias here; add it first, for example with "restante user add %s"`, to, to)
	}
	if err != nil {
		return err
	}
	chain, err := findChain(ctx, tx, target{to, found.id}, alias)
	if err != nil {
		return err
	}
	if chain != nil {
		return failuref(ErrAliasLoop, "alias %s cannot lead to %s, which leads back to it: %s", alias, to, strings.Join(chain, " -> "))
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO targets (alias, target) VALUES ($1, $2) ON CONFLICT DO NOTHING`, alias.id, found.id)
	return err
}

// findChain is the shortest way from one address over aliases to another, nil
// if there is none.
func findChain(ctx context.Context, tx *sql.Tx, from, to target) ([]string, error) {
	came := map[int64]target{from.id: {}}
	for queue := []target{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0].id == to.id {
			var chain []string
			for t := queue[0]; t.id != 0; t = came[t.id] {
				chain = append([]string{t.String()}, chain...)
			}
			return append([]string{to.String()}, chain...), nil
		}
		next, err := targetsOf(ctx, tx, queue[0].id)
		if err != nil {
			return nil, err
		}
		for _, t := range next {
			if _, seen := came[t.id]; !seen {
				came[t.id] = queue[0]
				queue = append(queue, t)
			}
		}
	}
	return nil, nil
}

func targetsOf(ctx context.Context, tx *sql.Tx, alias int64) ([]target, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT a.id, a.local, d.name
		FROM targets t JOIN addresses a ON a.id = t.target JOIN domains d ON d.id = a.domain
		WHERE t.alias = $1 ORDER BY a.id`, alias)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []target
	for rows.Next() {
		var t target
		if err := rows.Scan(&t.id, &t.Local, &t.Domain); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// checkReach counts the addresses behind the alias and behind those that lead
// to it; of these the topmost suffice, as they reach what is below them.
func checkReach(ctx context.Context, tx *sql.Tx, alias target) error {
	var most int
	err := tx.QueryRowContext(ctx, `
		WITH RECURSIVE above (id) AS (
			SELECT $1 UNION SELECT t.alias FROM targets t JOIN above ON t.target = above.id
		), reach (top, id) AS (
			SELECT t.alias, t.target FROM targets t JOIN above ON t.alias = above.id
			WHERE NOT EXISTS (SELECT 1 FROM targets higher WHERE higher.target = above.id)
			UNION SELECT reach.top, t.target FROM targets t JOIN reach ON t.alias = reach.id
		)
		SELECT max(n) FROM (SELECT count(*) AS n FROM reach GROUP BY top)`, alias.id).Scan(&most)
	if err == nil && most > maxReach {
		return failuref(ErrBadAddress, "alias %s, or one that leads to it, would lead to %d addresses; the limit is %d", alias, most, maxReach)
	}
	return err
}

// Aliases lists the aliases of a domain, of every one if it is "", each with
// its own targets (those of nested aliases are not resolved). Errors:
// ErrBadAddress, ErrNotFound (the domain).
func (d *Directory) Aliases(ctx context.Context, domain string) ([]Alias, error) {
	domain, err := d.hosted(ctx, domain)
	if err != nil {
		return nil, err
	}
	pairs, err := list(ctx, d, `
		SELECT a.local, d.name, b.local, e.name
		FROM addresses a JOIN domains d ON d.id = a.domain JOIN targets t ON t.alias = a.id
			JOIN addresses b ON b.id = t.target JOIN domains e ON e.id = b.domain
		WHERE $1 = '' OR d.name = $1
		ORDER BY d.id, a.local, b.local, e.id`, []any{domain},
		func(rows *sql.Rows) (p [2]Address, err error) {
			err = rows.Scan(&p[0].Local, &p[0].Domain, &p[1].Local, &p[1].Domain)
			return p, err
		})
	var all []Alias
	for _, p := range pairs {
		name := p[0].String()
		if len(all) == 0 || all[len(all)-1].Address != name {
			all = append(all, Alias{Address: name})
		}
		last := &all[len(all)-1]
		last.Targets = append(last.Targets, p[1].String())
	}
	return all, err
}

// RemoveAlias removes targets from an alias, and the alias when none is left;
// without targets, the whole alias. The Removal has the aliases that went, also
// those that led nowhere else. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) RemoveAlias(ctx context.Context, addr string, targets ...string) (Removal, error) {
	var gone Removal
	a, err := parseAlias(addr)
	if err != nil {
		return gone, err
	}
	var unwanted []Address
	if len(targets) > 0 {
		if unwanted, err = parseTargets(a, targets); err != nil {
			return gone, err
		}
	}
	err = d.change(ctx, func(tx *sql.Tx) error {
		found, err := findAddress(ctx, tx, a)
		switch {
		case errors.Is(err, ErrNotFound):
			return failuref(ErrNotFound, `there is no alias %s; "restante alias list" shows the aliases`, a)
		case err == nil && found.user:
			return failuref(ErrNotFound, `%s is a user, not an alias; see "restante user list"`, a)
		case err != nil:
			return err
		}
		if err := removeTargets(ctx, tx, target{a, found.id}, unwanted); err != nil {
			return err
		}
		return settle(ctx, tx, &gone)
	})
	if err != nil {
		return Removal{}, err
	}
	return gone, nil
}

// removeTargets takes targets from the alias, all if none are given.
func removeTargets(ctx context.Context, tx *sql.Tx, alias target, unwanted []Address) error {
	if len(unwanted) == 0 {
		_, err := tx.ExecContext(ctx, `DELETE FROM targets WHERE alias = $1`, alias.id)
		return err
	}
	for _, t := range unwanted {
		found, err := findAddress(ctx, tx, t)
		if err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM targets WHERE alias = $1 AND target = $2`, alias.id, found.id)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return failuref(ErrNotFound, `alias %s does not lead to %s itself; "restante alias list" shows where it leads`, alias, t)
		}
	}
	return nil
}
