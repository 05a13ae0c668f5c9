package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Domain is a hosted domain.
type Domain struct {
	Name       string
	Postmaster string // address; "" until the domain has a user
	Users      int
	Aliases    int
	Created    time.Time
	Quota      int64 // octets that may be in the mailbox of a user without a quota of its own, 0: no limit
}

// Removal is what went with a removed domain, user or alias, itself included.
type Removal struct {
	Users   []string // mailbox names; the mail is not touched
	Aliases []string // addresses; among them those that were left leading nowhere
}

// RemoveOptions say how much RemoveDomain may remove.
type RemoveOptions struct {
	WithUsers bool // the users and aliases in the domain, too
}

// AddDomain hosts a domain. Its postmaster is a user or alias, in another
// domain, or in this one, where it need not exist yet; "" is the first user
// that will be added. Errors: ErrExists, ErrBadAddress, ErrNotFound.
func (d *Directory) AddDomain(ctx context.Context, name, postmaster string) error {
	name, err := ParseDomain(name)
	if err != nil {
		return err
	}
	var who Address
	if postmaster != "" {
		if who, err = ParseUser(postmaster); err != nil {
			return err
		}
		postmaster = who.String()
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		if _, err := domainID(ctx, tx, name); err == nil {
			return failuref(ErrExists, "domain %s is hosted here already", name)
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if postmaster != "" && who.Domain != name {
			if _, err := findAddress(ctx, tx, who); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO domains (name, postmaster, created) VALUES ($1, $2, $3)`,
			name, postmaster, d.now().Unix())
		return err
	})
}

// Domains lists the hosted domains in the order in which they were added.
func (d *Directory) Domains(ctx context.Context) ([]Domain, error) {
	return list(ctx, d, `
		SELECT d.name, d.postmaster, d.created, d.quota, count(u.id), count(a.id) - count(u.id)
		FROM domains d LEFT JOIN addresses a ON a.domain = d.id LEFT JOIN users u ON u.id = a.id
		GROUP BY d.id ORDER BY d.id`, nil,
		func(rows *sql.Rows) (v Domain, err error) {
			var created int64
			err = rows.Scan(&v.Name, &v.Postmaster, &created, &v.Quota, &v.Users, &v.Aliases)
			v.Created = time.Unix(created, 0).UTC()
			return v, err
		})
}

// FirstDomain is the name of the domain that was added first of those hosted,
// "" if none is.
func (d *Directory) FirstDomain(ctx context.Context) (string, error) {
	var name string
	err := d.first.QueryRowContext(calm(ctx)).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return name, err
}

const firstSQL = `SELECT name FROM domains ORDER BY id LIMIT 1`

// RemoveDomain stops hosting a domain. With users or aliases in it that is a
// *DomainNotEmptyError unless the options allow it. Aliases elsewhere no longer
// lead into the domain, and go when they lead nowhere else. Errors:
// ErrNotFound, ErrBadAddress, ErrDomainNotEmpty.
func (d *Directory) RemoveDomain(ctx context.Context, name string, o RemoveOptions) (Removal, error) {
	var gone Removal
	name, err := ParseDomain(name)
	if err != nil {
		return gone, err
	}
	err = d.change(ctx, func(tx *sql.Tx) error {
		id, err := domainID(ctx, tx, name)
		if err != nil {
			return err
		}
		if gone, err = contents(ctx, tx, id); err != nil {
			return err
		}
		if !o.WithUsers && len(gone.Users)+len(gone.Aliases) > 0 {
			return &DomainNotEmptyError{Domain: name, Users: len(gone.Users), Aliases: len(gone.Aliases)}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM domains WHERE id = $1`, id); err != nil {
			return err
		}
		return settle(ctx, tx, &gone)
	})
	if err != nil {
		return Removal{}, err
	}
	return gone, nil
}

// contents is what goes when the domain goes.
func contents(ctx context.Context, tx *sql.Tx, domain int64) (Removal, error) {
	var gone Removal
	rows, err := tx.QueryContext(ctx, `
		SELECT a.local, d.name, u.id IS NOT NULL
		FROM addresses a JOIN domains d ON d.id = a.domain LEFT JOIN users u ON u.id = a.id
		WHERE a.domain = $1 ORDER BY a.local`, domain)
	if err != nil {
		return gone, err
	}
	defer rows.Close()
	for rows.Next() {
		var a Address
		var user bool
		if err := rows.Scan(&a.Local, &a.Domain, &user); err != nil {
			return gone, err
		}
		if user {
			gone.Users = append(gone.Users, a.String())
		} else {
			gone.Aliases = append(gone.Aliases, a.String())
		}
	}
	return gone, rows.Err()
}

// settle puts in order what referred to removed addresses: aliases that lead
// nowhere any more go, one after the other up a nest of them; and where
// a domain lost its postmaster, its oldest user takes over, if it has one.
func settle(ctx context.Context, tx *sql.Tx, gone *Removal) error {
	for {
		empty, err := deleteEmptyAliases(ctx, tx)
		if err != nil {
			return err
		}
		if len(empty) == 0 {
			break
		}
		gone.Aliases = append(gone.Aliases, empty...)
	}
	for _, address := range slices.Concat(gone.Users, gone.Aliases) {
		_, err := tx.ExecContext(ctx, `
			UPDATE domains SET postmaster = coalesce((
				SELECT a.local || '@' || domains.name FROM addresses a JOIN users u ON u.id = a.id
				WHERE a.domain = domains.id ORDER BY u.id LIMIT 1), '')
			WHERE postmaster = $1`, address)
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteEmptyAliases removes the aliases without a target.
func deleteEmptyAliases(ctx context.Context, tx *sql.Tx) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `
		DELETE FROM addresses
		WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.id = addresses.id)
		  AND NOT EXISTS (SELECT 1 FROM targets t WHERE t.alias = addresses.id)
		RETURNING local, (SELECT name FROM domains d WHERE d.id = addresses.domain)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var deleted []string
	for rows.Next() {
		var a Address
		if err := rows.Scan(&a.Local, &a.Domain); err != nil {
			return nil, err
		}
		deleted = append(deleted, a.String())
	}
	return deleted, rows.Err()
}

// domainID finds a hosted domain by its canonical name, or an ErrNotFound that
// says how to host it.
func domainID(ctx context.Context, tx *sql.Tx, name string) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM domains WHERE name = $1`, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = notHosted(name)
	}
	return id, err
}

func notHosted(name string) error {
	return &failure{ErrNotFound, fmt.Sprintf(`domain %s is not hosted here; add it with "restante domain add %s"`, name, name), name}
}

// list runs a query and makes a slice of its rows.
func list[T any](ctx context.Context, d *Directory, query string, args []any, scan func(*sql.Rows) (T, error)) ([]T, error) {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, explain(err)
		}
		all = append(all, v)
	}
	return all, explain(rows.Err())
}
