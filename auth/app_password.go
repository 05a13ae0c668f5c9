package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxAppPasswords = 50 // of a user
	maxAppName      = 64 // octets
)

// AppPassword is a password of one device or program. It was generated and has
// 80 random bits, so a fast hash keeps it: nobody can try them all.
type AppPassword struct {
	Name    string
	Created time.Time
	LastUse *Use // nil: never used
}

// Use is when a credential was presented, how, and from where.
type Use struct {
	Time     time.Time
	Protocol string
	Address  string
}

const appPasswordSQL = `SELECT id, name FROM app_passwords WHERE user = $1 AND digest = $2`

// AddAppPassword makes another password for the user, for the device or program
// that name tells, and returns it: it is in no other place. Errors:
// ErrBadAddress, ErrNotFound, ErrExists, ErrBadSecret (the name).
func (d *Directory) AddAppPassword(ctx context.Context, addr, name string) (password string, err error) {
	if err := checkAppName(name); err != nil {
		return "", err
	}
	password = GeneratePassword()
	return password, d.changeUser(ctx, addr, func(tx *sql.Tx, a Address, id int64) error {
		var count, same int
		err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(name = $2), 0) FROM app_passwords WHERE user = $1`, id, name).
			Scan(&count, &same)
		switch {
		case err != nil:
			return err
		case same > 0:
			return failuref(ErrExists, `%s has an app password %q already; remove it first, or give this one another name`, a, name)
		case count >= maxAppPasswords:
			return failuref(ErrExists, `%s has %d app passwords, which is as many as there may be; remove those that are not in use`, a, count)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO app_passwords (user, name, digest, created) VALUES ($1, $2, $3, $4)`,
			id, name, d.appDigest(id, password), d.now().Unix())
		return err
	})
}

func checkAppName(name string) error {
	control := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case name == "" || name != strings.TrimSpace(name):
		return failuref(ErrBadSecret, "the name of an app password is empty, or begins or ends with a space")
	case len(name) > maxAppName:
		return failuref(ErrBadSecret, "the name of an app password is longer than %d octets", maxAppName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, control):
		return failuref(ErrBadSecret, "the name of an app password has characters that cannot be printed")
	}
	return nil
}

// AppPasswords lists those of a user, the oldest first. Errors: ErrBadAddress,
// ErrNotFound.
func (d *Directory) AppPasswords(ctx context.Context, addr string) ([]AppPassword, error) {
	u, err := d.User(ctx, addr)
	if err != nil {
		return nil, err
	}
	a, err := ParseAddress(u.Address)
	if err != nil {
		return nil, err
	}
	return list(ctx, d, `
		SELECT p.name, p.created, p.used, p.used_by, p.used_from
		FROM app_passwords p JOIN addresses a ON a.id = p.user JOIN domains d ON d.id = a.domain
		WHERE d.name = $1 AND a.local = $2 ORDER BY p.id`, []any{a.Domain, a.Local},
		func(rows *sql.Rows) (AppPassword, error) {
			var p AppPassword
			var created int64
			var use useColumns
			err := rows.Scan(&p.Name, &created, &use.at, &use.protocol, &use.address)
			p.Created, p.LastUse = time.Unix(created, 0).UTC(), use.value()
			return p, err
		})
}

// useColumns are a Use in the database; all NULL: none.
type useColumns struct {
	at                sql.NullInt64
	protocol, address sql.NullString
}

func (c useColumns) value() *Use {
	if !c.at.Valid {
		return nil
	}
	return &Use{time.Unix(c.at.Int64, 0).UTC(), c.protocol.String, c.address.String}
}

// RemoveAppPassword removes an app password. The sessions that were begun with it
// end at their next command. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) RemoveAppPassword(ctx context.Context, addr, name string) error {
	return d.changeUser(ctx, addr, func(tx *sql.Tx, a Address, id int64) error {
		gone, err := tx.ExecContext(ctx, `DELETE FROM app_passwords WHERE user = $1 AND name = $2`, id, name)
		if err != nil {
			return err
		}
		if n, err := gone.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return failuref(ErrNotFound, `%s has no app password %q; "restante user app-password list %s" shows them`, a, name, a)
	})
}

// changeUser runs f on a user in a transaction.
func (d *Directory) changeUser(ctx context.Context, addr string, f func(tx *sql.Tx, a Address, id int64) error) error {
	a, err := ParseAddress(addr)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		found, err := findUser(ctx, tx, a)
		if err != nil {
			return err
		}
		return f(tx, a, found.id)
	})
}

// SetAppOnly has a user log in with app passwords only, or with the password too.
// The user's sessions end. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) SetAppOnly(ctx context.Context, addr string, on bool) error {
	return d.updateUser(ctx, addr, `app_only = $3`, on)
}

// appDigest is what is kept of an app password. People type it with or without
// its hyphens, and programs begin it with a capital.
func (d *Directory) appDigest(user int64, password string) []byte {
	h := hmac.New(sha256.New, d.appKey)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(user))
	h.Write(b[:])
	h.Write([]byte(strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(password))))
	return h.Sum(nil)
}

// appPassword finds the app password of a user; ok is false if it is none.
func (d *Directory) appPassword(ctx context.Context, user int64, password string) (id int64, name string, ok bool, err error) {
	err = d.app.QueryRowContext(calm(ctx), user, d.appDigest(user, password)).Scan(&id, &name)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", false, nil
	}
	return id, name, err == nil, err
}
