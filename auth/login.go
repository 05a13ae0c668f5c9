package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The reasons why a login failed, for the log.
var (
	errMalformedName = fmt.Errorf("%w: the user name is no address", ErrBadCredentials)
	errUnknownUser   = fmt.Errorf("%w: no such user", ErrBadCredentials)
	errBadPassword   = fmt.Errorf("%w: wrong password", ErrBadCredentials)
	errDisabledUser  = fmt.Errorf("%w: user disabled", ErrBadCredentials)
)

// loginSQL gives the account, or else the one whose costs the name borrows:
// the first at or after a place that the caller picks. Both are looked up in
// either case.
const loginSQL = `
SELECT u.id, u.stamp, u.enabled, u.credential, 1 AS found
FROM domains d JOIN addresses a ON a.domain = d.id AND a.local = $2 JOIN users u ON u.id = a.id
WHERE d.name = $1
UNION ALL
SELECT id, stamp, 0, credential, 0
FROM (SELECT * FROM users WHERE id >= $3 % (SELECT max(id) + 1 FROM users) ORDER BY id LIMIT 1)
ORDER BY found DESC LIMIT 1`

const aliveSQL = `SELECT 1 FROM users WHERE id = $1 AND stamp = $2 AND enabled = 1`

// Account is the outcome of a login. It is for one goroutine at a time.
type Account struct {
	Mailbox string // canonical name

	d         *Directory
	id, stamp int64
	seen      version // of the directory, when the account was last found alive
}

// loginRow is an account as a login sees it. When found is false it is not the
// one asked for and may only be used for what its hash costs.
type loginRow struct {
	state
	enabled, found bool
	credential     credential
}

// state is what a proof is about: never twice the same when the account changes.
type state struct {
	id, stamp int64
	stored    string // the credential
}

// Authenticate checks a user's password. The user is a full address, or a bare
// local part when exactly one domain is hosted. Whatever a client may get
// wrong is an ErrBadCredentials and takes the same time, see the package
// documentation; any other error is the server's own. It waits for other
// logins to be hashed until ctx ends.
func (d *Directory) Authenticate(ctx context.Context, user, password string) (*Account, error) {
	// A name that cannot exist goes on as the empty address, which nobody has.
	addr, nameErr := d.loginAddress(ctx, user)
	if nameErr != nil && !errors.Is(nameErr, ErrBadCredentials) {
		return nil, nameErr
	}
	prepared, reason := preparePassword(password)
	present := d.versions.now()
	if proof, ok := d.proofs.current(addr, present, prepared, d.now()); ok && reason == "" {
		return d.account(addr, proof), nil
	}
	row, err := d.loginRow(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("look up the user for a login: %w", err)
	}
	proof := d.proofs.make(row.state, prepared)
	proof.version, proof.seen = present, d.now()
	usable := row.found && row.enabled && reason == ""
	if usable && d.proofs.renew(addr, proof) {
		return d.account(addr, proof), nil
	}
	match, err := d.hasher.matches(ctx, row.credential, prepared)
	switch {
	case err != nil:
		return nil, fmt.Errorf("check a password: %w", err)
	case match && usable:
	case nameErr != nil:
		return nil, nameErr
	case !row.found:
		return nil, errUnknownUser
	case !match || reason != "":
		return nil, errBadPassword
	default:
		return nil, errDisabledUser
	}
	if d.hasher.outdated(row.credential) {
		d.rehash(ctx, addr, row, prepared)
	}
	proof.seen = d.now()
	d.proofs.add(addr, proof)
	return d.account(addr, proof), nil
}

func (d *Directory) account(a Address, p proof) *Account {
	return &Account{Mailbox: a.String(), d: d, id: p.id, stamp: p.stamp, seen: p.version}
}

// loginAddress is the canonical address of a login name.
func (d *Directory) loginAddress(ctx context.Context, user string) (Address, error) {
	if !strings.Contains(user, "@") {
		var domain string
		var hosted int
		err := d.db.QueryRowContext(calm(ctx), `SELECT coalesce(min(name), ''), count(*) FROM domains`).Scan(&domain, &hosted)
		if err != nil {
			return Address{}, fmt.Errorf("look up the domain for a login: %w", err)
		}
		if hosted != 1 {
			return Address{}, errMalformedName
		}
		user += "@" + domain
	}
	addr, err := ParseAddress(user)
	if err != nil {
		return Address{}, errMalformedName
	}
	return addr, nil
}

// loginRow looks the account up, or a stand-in for it.
func (d *Directory) loginRow(ctx context.Context, addr Address) (loginRow, error) {
	mac := hmac.New(sha256.New, d.decoyKey)
	mac.Write([]byte(addr.String()))
	place := int64(binary.BigEndian.Uint64(mac.Sum(nil)) >> 1)

	row := loginRow{credential: d.hasher.blank()}
	err := d.login.QueryRowContext(calm(ctx), addr.Domain, addr.Local, place).
		Scan(&row.id, &row.stamp, &row.enabled, &row.stored, &row.found)
	if errors.Is(err, sql.ErrNoRows) { // not one user yet
		return row, nil
	}
	if err == nil {
		row.credential, err = parsePHC(row.stored)
	}
	return row, err
}

// rehash stores the password, which was right, under the present costs. It
// leaves the stamp alone, for nothing has changed for the user. The login is
// good without it, so failures are only logged.
func (d *Directory) rehash(ctx context.Context, addr Address, row loginRow, password string) {
	stored, err := d.hasher.hash(ctx, password)
	if err == nil {
		_, err = d.db.ExecContext(ctx, `UPDATE users SET credential = $1 WHERE id = $2 AND stamp = $3 AND credential = $4`,
			stored, row.id, row.stamp, row.stored)
	}
	if err != nil {
		d.log.WarnContext(ctx, "password not hashed anew with the present costs", "user", addr.String(), "error", err)
	}
}

// Alive reports whether the account still is what it was when its user logged
// in: false once it was removed or disabled or its password was changed, by
// whatever process, even if that was undone since. While nothing is committed to
// the directory that takes some nanoseconds. Else it reads one row by its key,
// without a transaction, a hash or a write: about 5 us, a good part of it the
// locks that make the answer current. It is false, too, when the directory
// cannot be read; the log says so.
func (a *Account) Alive(ctx context.Context) bool {
	present := a.d.versions.now()
	if present.known() && present == a.seen {
		return true
	}
	var one int
	err := a.d.alive.QueryRowContext(calm(ctx), a.id, a.stamp).Scan(&one)
	if err != nil {
		if !errors.Is(err, sql.ErrNoRows) {
			a.d.log.ErrorContext(ctx, "directory not readable, session ends", "user", a.Mailbox, "error", err)
		}
		return false
	}
	a.seen = present
	return true
}
