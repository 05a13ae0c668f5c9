package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// User is an account with a mailbox. Its address is the name of the mailbox.
type User struct {
	Address string
	Domain  string
	Enabled bool
	Created time.Time
	Changed time.Time // password or enabled

	Quota    int64 // octets that may be in the mailbox, 0: no limit
	OwnQuota bool  // the quota is the user's own, not that of the domain

	AppOnly bool // only app passwords are taken
	Stale   *Use // when the password before the last change was presented last; nil: never
}

// AddUser adds an enabled user to a hosted domain. The first user of a domain
// without a postmaster becomes it. Errors: ErrBadAddress, ErrBadSecret,
// ErrNotFound (the domain), ErrExists (a user or alias).
func (d *Directory) AddUser(ctx context.Context, addr string, secret Secret) (User, error) {
	a, err := ParseUser(addr)
	if err != nil {
		return User{}, err
	}
	stored, err := d.credential(ctx, secret)
	if err != nil {
		return User{}, err
	}
	now := d.now().UTC().Truncate(time.Second)
	err = d.change(ctx, func(tx *sql.Tx) error { return insertUser(ctx, tx, a, stored, now) })
	if err != nil {
		return User{}, err
	}
	return User{Address: a.String(), Domain: a.Domain, Enabled: true, Created: now, Changed: now}, nil
}

func insertUser(ctx context.Context, tx *sql.Tx, a Address, stored string, now time.Time) error {
	domain, err := userVacancy(ctx, tx, a)
	if err != nil {
		return err
	}
	id, err := insertAddress(ctx, tx, domain, a.Local)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO users (id, credential, enabled, stamp, created, changed) VALUES ($1, $2, 1, 1, $3, $3)`,
		id, stored, now.Unix())
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE domains SET postmaster = $1 WHERE id = $2 AND postmaster = ''`, a.String(), domain)
	return err
}

// userVacancy says that a user of this address can be added to the domain that
// it returns, or why not.
func userVacancy(ctx context.Context, tx *sql.Tx, a Address) (domain int64, err error) {
	if domain, err = domainID(ctx, tx, a.Domain); err != nil {
		return 0, err
	}
	found, err := findAddress(ctx, tx, a)
	switch {
	case errors.Is(err, ErrNotFound):
		return domain, nil
	case err != nil:
		return 0, err
	case found.user:
		return 0, failuref(ErrExists, `user %s exists already; set a password with "restante user passwd %s"`, a, a)
	}
	return 0, failuref(ErrExists, `%s is an alias already; remove it first with "restante alias remove %s"`, a, a)
}

// insertAddress adds a row for a user or alias.
func insertAddress(ctx context.Context, tx *sql.Tx, domain int64, local string) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, `INSERT INTO addresses (domain, local) VALUES ($1, $2) RETURNING id`, domain, local).Scan(&id)
	return id, err
}

const usersSQL = `
	SELECT a.local, d.name, u.enabled, u.created, u.changed, coalesce(u.quota, d.quota), u.quota IS NOT NULL,
		u.app_only, u.stale, u.stale_by, u.stale_from
	FROM users u JOIN addresses a ON a.id = u.id JOIN domains d ON d.id = a.domain`

func scanUser(rows *sql.Rows) (User, error) {
	var a Address
	var v User
	var created, changed int64
	var stale useColumns
	err := rows.Scan(&a.Local, &a.Domain, &v.Enabled, &created, &changed, &v.Quota, &v.OwnQuota,
		&v.AppOnly, &stale.at, &stale.protocol, &stale.address)
	v.Stale = stale.value()
	v.Address, v.Domain = a.String(), a.Domain
	v.Created, v.Changed = time.Unix(created, 0).UTC(), time.Unix(changed, 0).UTC()
	return v, err
}

// Users lists the users of a domain, of every one if it is "". Errors:
// ErrBadAddress, ErrNotFound (the domain).
func (d *Directory) Users(ctx context.Context, domain string) ([]User, error) {
	domain, err := d.hosted(ctx, domain)
	if err != nil {
		return nil, err
	}
	return list(ctx, d, usersSQL+` WHERE $1 = '' OR d.name = $1 ORDER BY d.id, a.local`, []any{domain}, scanUser)
}

// User finds one user. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) User(ctx context.Context, addr string) (User, error) {
	a, err := ParseAddress(addr)
	if err != nil {
		return User{}, err
	}
	found, err := list(ctx, d, usersSQL+` WHERE d.name = $1 AND a.local = $2`, []any{a.Domain, a.Local}, scanUser)
	switch {
	case err != nil:
		return User{}, err
	case len(found) == 0:
		return User{}, noUser(a)
	}
	return found[0], nil
}

// SetPassword replaces what the user logs in with. The password before is still
// recognised, though not accepted. Errors: ErrBadAddress, ErrBadSecret,
// ErrNotFound.
func (d *Directory) SetPassword(ctx context.Context, addr string, secret Secret) error {
	a, err := ParseAddress(addr)
	if err != nil {
		return err
	}
	row, err := d.loginRow(ctx, a)
	if err != nil {
		return explain(err)
	}
	var stored string
	var previous []byte
	if secret.password != "" && row.found {
		stored, previous, err = d.hasher.hashAfter(ctx, row.credential, secret.password)
	} else {
		stored, err = d.credential(ctx, secret)
	}
	if err != nil {
		return err
	}
	// If another change came between, its password is not recognised.
	return d.updateUser(ctx, addr, `credential = $3, previous = CASE WHEN credential = $4 THEN $5 END,
		stale = NULL, stale_by = NULL, stale_from = NULL`, stored, row.stored, previous)
}

// SetEnabled lets the user log in and receive mail, or not. Errors:
// ErrBadAddress, ErrNotFound.
func (d *Directory) SetEnabled(ctx context.Context, addr string, on bool) error {
	return d.updateUser(ctx, addr, `enabled = $3`, on)
}

// updateUser sets columns, and the stamp, which ends the user's sessions. The values
// of the assignments begin with $3.
func (d *Directory) updateUser(ctx context.Context, addr, assignments string, values ...any) error {
	return d.changeUser(ctx, addr, func(tx *sql.Tx, _ Address, id int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE users SET stamp = stamp + 1, changed = $2, `+assignments+` WHERE id = $1`,
			append([]any{id, d.now().Unix()}, values...)...)
		return err
	})
}

// RemoveUser removes a user, also from the aliases that lead to it; the Removal
// has those that led nowhere else and went too. The mail is not touched. Errors:
// ErrBadAddress, ErrNotFound.
func (d *Directory) RemoveUser(ctx context.Context, addr string) (Removal, error) {
	a, err := ParseAddress(addr)
	if err != nil {
		return Removal{}, err
	}
	gone := Removal{Users: []string{a.String()}}
	err = d.change(ctx, func(tx *sql.Tx) error {
		found, err := findUser(ctx, tx, a)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM addresses WHERE id = $1`, found.id); err != nil {
			return err
		}
		return settle(ctx, tx, &gone)
	})
	if err != nil {
		return Removal{}, err
	}
	return gone, nil
}

// entry is a user or alias.
type entry struct {
	id   int64
	user bool
}

// findAddress finds a user or alias, or an ErrNotFound.
func findAddress(ctx context.Context, tx *sql.Tx, a Address) (entry, error) {
	var e entry
	err := tx.QueryRowContext(ctx, `
		SELECT a.id, u.id IS NOT NULL
		FROM domains d JOIN addresses a ON a.domain = d.id LEFT JOIN users u ON u.id = a.id
		WHERE d.name = $1 AND a.local = $2`, a.Domain, a.Local).Scan(&e.id, &e.user)
	if errors.Is(err, sql.ErrNoRows) {
		err = failuref(ErrNotFound, `%s is neither a user nor an alias here; "restante user list" and "restante alias list" show what there is`, a)
	}
	return e, err
}

// findUser finds a user, or an ErrNotFound.
func findUser(ctx context.Context, tx *sql.Tx, a Address) (entry, error) {
	e, err := findAddress(ctx, tx, a)
	switch {
	case errors.Is(err, ErrNotFound):
		return e, noUser(a)
	case err == nil && !e.user:
		return e, failuref(ErrNotFound, `%s is an alias, not a user; see "restante alias list"`, a)
	}
	return e, err
}

func noUser(a Address) error {
	return &failure{ErrNotFound, fmt.Sprintf(`there is no user %s; "restante user list" shows the users`, a), a.String()}
}

// hosted is the canonical name of a hosted domain; "" stays "".
func (d *Directory) hosted(ctx context.Context, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	name, err := ParseDomain(name)
	if err != nil {
		return "", err
	}
	var one int
	err = d.db.QueryRowContext(ctx, `SELECT 1 FROM domains WHERE name = $1`, name).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return "", notHosted(name)
	}
	return name, explain(err)
}
