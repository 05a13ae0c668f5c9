package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"restante/auth/internal/throttle"
)

// The reasons why a login failed, for the log.
var (
	errMalformedName = fmt.Errorf("%w: the user name is no address", ErrBadCredentials)
	errUnknownUser   = fmt.Errorf("%w: no such user", ErrBadCredentials)
	errBadPassword   = fmt.Errorf("%w: wrong password", ErrBadCredentials)
	errOldPassword   = fmt.Errorf("%w: the password before the last change", ErrBadCredentials)
	errAppOnly       = fmt.Errorf("%w: only app passwords are taken for this user", ErrBadCredentials)
	errDisabledUser  = fmt.Errorf("%w: user disabled", ErrBadCredentials)
)

// maxDelayed bounds how much longer a login takes for the failures before it: it
// doubles this many times.
const maxDelayed = 3

// loginSQL gives the account, or else the one whose costs the name borrows:
// the first at or after a place that the caller picks. Both are looked up in
// either case.
const loginSQL = `
SELECT u.id, u.stamp, u.enabled, u.app_only, u.credential, u.previous, 1 AS found
FROM domains d JOIN addresses a ON a.domain = d.id AND a.local = $2 JOIN users u ON u.id = a.id
WHERE d.name = $1
UNION ALL
SELECT id, stamp, 0, 0, credential, NULL, 0
FROM (SELECT * FROM users WHERE id >= $3 % (SELECT max(id) + 1 FROM users) ORDER BY id LIMIT 1)
ORDER BY found DESC LIMIT 1`

const aliveSQL = `
SELECT 1 FROM users
WHERE id = $1 AND stamp = $2 AND enabled = 1
	AND ($3 = 0 OR EXISTS (SELECT 1 FROM app_passwords WHERE id = $3 AND user = $1))`

// Credentials are what a client presents.
type Credentials struct {
	User, Password string

	Client   netip.Addr // whose failures are counted; invalid: not known
	Protocol string     // for what is noted of the login
}

// Account is the outcome of a login. It is for one goroutine at a time.
type Account struct {
	Mailbox     string // canonical name
	AppPassword string // the name of the one that was used; "" is the user's password

	d              *Directory
	id, stamp, app int64   // app: the number of the app password
	seen           version // of the directory, when the account was last found alive
}

// loginRow is an account as a login sees it. When found is false it is not the
// one asked for and may only be used for what its hash costs.
type loginRow struct {
	state
	enabled, appOnly, found bool
	credential              credential
}

// state is what a proof is about: never twice the same when the account changes.
type state struct {
	id, stamp int64
	stored    string // the credential
}

// Authenticate checks a user's password, or one of the app passwords. The user is
// a full address, or a bare local part when exactly one domain is hosted. Whatever
// a client may get wrong is an ErrBadCredentials and takes the same time, see the
// package documentation; any other error is the server's own. It waits for other
// logins to be hashed until ctx ends.
func (d *Directory) Authenticate(ctx context.Context, c Credentials) (*Account, error) {
	began := time.Now()
	account, failures, err := d.authenticate(ctx, c)
	if errors.Is(err, ErrBadCredentials) {
		d.noteFailures()
		delay := float64(d.failureDelay) * math.Exp2(min(max(failures-1, 0), maxDelayed))
		select {
		case <-time.After(time.Until(began.Add(time.Duration(delay)))):
		case <-ctx.Done():
		}
	}
	return account, err
}

// authenticate also gives how many failures the client's address has.
func (d *Directory) authenticate(ctx context.Context, c Credentials) (_ *Account, failures float64, err error) {
	// A name that cannot exist goes on as the empty address, which nobody has.
	addr, nameErr := d.loginAddress(ctx, c.User)
	if nameErr != nil && !errors.Is(nameErr, ErrBadCredentials) {
		return nil, 0, nameErr
	}
	name := ""
	if nameErr == nil {
		name = addr.String()
	}
	attempt, err := d.throttle.Begin(ctx, c.Client, name)
	if errors.Is(err, throttle.ErrAccountRefused) {
		// Nobody can guess an app password, so strangers cannot lock out who has one.
		if account, ok := d.proveApp(ctx, addr, c); ok {
			return account, 0, nil
		}
	}
	if errors.Is(err, throttle.ErrRefused) {
		return nil, maxDelayed + 1, fmt.Errorf("%w: %v", ErrThrottled, err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("wait for other logins: %w", err)
	}
	defer attempt.Harmless() // for a panic; what comes first counts
	account, err := d.prove(ctx, addr, nameErr, c)
	switch {
	case err == nil:
		attempt.Right()
	case errors.Is(err, errOldPassword):
		// A stranger who has found it must not see that: it is a failure like others.
		failures = attempt.Outdated(d.wrongDigest(c.User, name, c.Password))
	case errors.Is(err, ErrBadCredentials):
		// Also a right password of somebody who may not log in with it.
		failures = attempt.Wrong(d.wrongDigest(c.User, name, c.Password))
	default:
		attempt.Harmless()
	}
	return account, failures, err
}

// wrongDigest stands for an account and a password that is not right.
func (d *Directory) wrongDigest(user, canonical, password string) (digest throttle.Digest) {
	if canonical != "" {
		user = canonical
	}
	h := hmac.New(sha256.New, d.wrongKey)
	h.Write([]byte(user))
	h.Write([]byte{0})
	h.Write([]byte(password))
	copy(digest[:], h.Sum(nil))
	return digest
}

// prove tells whether the password is right.
func (d *Directory) prove(ctx context.Context, addr Address, nameErr error, c Credentials) (*Account, error) {
	prepared, reason := preparePassword(c.Password)
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
	if usable && !row.appOnly && d.proofs.renew(addr, proof) {
		return d.account(addr, proof), nil
	}
	app, name, ok, err := d.appPassword(ctx, row.id, prepared)
	if err != nil {
		return nil, fmt.Errorf("look up an app password: %w", err)
	}
	if ok && usable {
		return d.appAccount(addr, proof, app, name, c), nil
	}
	found, err := d.check(ctx, addr, row, proof, prepared, c.Password)
	switch {
	case err != nil:
		return nil, fmt.Errorf("check a password: %w", err)
	case nameErr != nil:
		return nil, nameErr
	case found.before && usable:
		d.noteStale(row.id, c.use(d.now()))
		return nil, errOldPassword
	}
	if err := row.judge(found.match && reason == ""); err != nil {
		return nil, err
	}
	if d.hasher.outdated(row.credential) {
		d.rehash(ctx, addr, row, prepared)
	}
	proof.seen = d.now()
	d.proofs.add(addr, proof)
	return d.account(addr, proof), nil
}

// check hashes the password, unless a login with it has failed before. given is what the
// client has sent of it: another system may have hashed it as it came.
func (d *Directory) check(ctx context.Context, addr Address, row loginRow, p proof, prepared, given string) (o outcome, err error) {
	asItCame := row.credential.foreign != nil && given != prepared && len(given) <= maxPassword
	this := presented{addr, p.mac}
	if asItCame {
		this.mac = d.proofs.make(p.state, given).mac
	}
	if o, known := d.failed.recall(this); known {
		return o, nil
	}
	o.match, o.before, err = d.hasher.matches(ctx, row.credential, prepared)
	if err == nil && !o.match && asItCame {
		o.match, _, err = d.hasher.matches(ctx, row.credential, given)
	}
	if err == nil && row.judge(o.match) != nil {
		d.failed.remember(this, o)
	}
	return o, err
}

// proveApp tells whether the password is an app password of an enabled user.
func (d *Directory) proveApp(ctx context.Context, addr Address, c Credentials) (*Account, bool) {
	prepared, reason := preparePassword(c.Password)
	present := d.versions.now()
	row, err := d.loginRow(ctx, addr)
	if err != nil || reason != "" || !row.found || !row.enabled {
		return nil, false
	}
	app, name, ok, err := d.appPassword(ctx, row.id, prepared)
	if err != nil || !ok {
		return nil, false
	}
	return d.appAccount(addr, proof{state: row.state, version: present}, app, name, c), true
}

// appAccount is the account of a login with an app password.
func (d *Directory) appAccount(addr Address, p proof, app int64, name string, c Credentials) *Account {
	d.noteApp(app, c.use(d.now()))
	a := d.account(addr, p)
	a.app, a.AppPassword = app, name
	return a
}

// judge tells why the login fails, if it does.
func (r loginRow) judge(match bool) error {
	switch {
	case !r.found:
		return errUnknownUser
	case !match:
		return errBadPassword
	case !r.enabled:
		return errDisabledUser
	case r.appOnly:
		return errAppOnly
	}
	return nil
}

// use is what is noted of the login.
func (c Credentials) use(now time.Time) Use {
	u := Use{Time: now, Protocol: c.Protocol, Address: "-"}
	if c.Client.IsValid() {
		u.Address = c.Client.Unmap().WithZone("").String()
	}
	return u
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
	var previous []byte
	err := d.login.QueryRowContext(calm(ctx), addr.Domain, addr.Local, place).
		Scan(&row.id, &row.stamp, &row.enabled, &row.appOnly, &row.stored, &previous, &row.found)
	if errors.Is(err, sql.ErrNoRows) { // not one user yet
		return row, nil
	}
	if err == nil {
		row.credential, err = parseCredential(row.stored)
		row.credential.previous = previous
	}
	return row, err
}

// rehash stores the password, which was right, under the present costs. It
// leaves the stamp alone, for nothing has changed for the user. The login is
// good without it, so failures are only logged.
func (d *Directory) rehash(ctx context.Context, addr Address, row loginRow, password string) {
	stored, err := d.hasher.hash(ctx, password)
	if err == nil {
		_, err = d.db.ExecContext(ctx, `UPDATE users SET credential = $1, previous = NULL WHERE id = $2 AND stamp = $3 AND credential = $4`,
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
	err := a.d.alive.QueryRowContext(calm(ctx), a.id, a.stamp, a.app).Scan(&one)
	if err != nil {
		if !errors.Is(err, sql.ErrNoRows) {
			a.d.log.ErrorContext(ctx, "directory not readable, session ends", "user", a.Mailbox, "error", err)
		}
		return false
	}
	a.seen = present
	return true
}
