// Package auth is the directory of a mail server: its domains, its users and
// their credentials, its aliases. It answers two questions, which mailboxes
// a recipient leads to (Resolve) and who may open one (Authenticate), and owns
// the names: every address that leaves the package is canonical, see Address.
//
// # Several processes
//
// The directory is one SQLite database in WAL mode, and any number of
// processes may hold it open. Each change is one transaction that takes the
// write lock when it begins, so changes happen one after the other and what a
// change has read stays true until it is committed; it is on stable storage
// before the function returns. What was read from the database is kept only for
// as long as SQLite's own mark of the last commit, which every call looks at, is
// the same; therefore every process sees a change at its next call. Waiting for
// the lock ends after five seconds with an error.
//
// # A stranger learns nothing
//
// A login that fails costs the same whatever was wrong with it. Names that
// cannot exist, unknown names, disabled users and wrong passwords all take one
// path: one query, one argon2id of the password, one comparison. The parameters
// of the hash are those of the account; an unknown name borrows those of an
// account that a keyed hash of the name picks, always the same one, so that
// differing parameters do not tell made-up names from real ones either.
// Passwords over the limit are replaced by a constant before they are hashed.
//
// Mail clients log in every minute. After a login that succeeded the process
// keeps a proof: an HMAC, under a random key of the process, over the number
// and stamp of the account, its stored credential and the password. The
// same password is then accepted without hashing it anew, until half an hour
// has passed without a login or anything about the account has changed, as it
// is part of the proof; and without a query while nothing in the directory has.
// Failures are counted, and who has too many is refused before anything is
// hashed; see the package throttle. A password with which a login failed is remembered in
// the same way as one that was good for it: who repeats it makes nobody hash, whatever
// was wrong. That failures then take less time is hidden by the least time of a failure.
//
// # Other passwords
//
// An app password is generated, has 80 random bits and is kept as an HMAC, so that
// a user with many of them costs no more to log in. When a password is changed, the
// new one is hashed with the salt of the old, whose hash is kept: one computation
// tells whether a client has the new one, the old one, or guesses.
package auth

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite" // driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"restante/auth/internal/throttle"
)

// Options of a Directory. The zero value is good.
type Options struct {
	Hash      HashParams
	Separator string       // between user and detail in a local part; "" is "+"
	Log       *slog.Logger // nil: discard

	// FailureDelay is the least time that a failed login takes. It grows up to eightfold
	// with the failures of the client's address. 0: none.
	FailureDelay time.Duration
	// ThrottleFile keeps who has failed to log in over restarts. "": nothing does.
	ThrottleFile string
	// Exempt tells which clients are never refused for their address; nil: none.
	Exempt func(netip.Addr) bool
}

// Directory is an open directory. Its methods may be called concurrently.
type Directory struct {
	db        *sql.DB
	separator string
	log       *slog.Logger
	now       func() time.Time
	hasher    *hasher
	proofs    *proofs
	failed    failed
	decoyKey  []byte
	appKey    []byte
	wrongKey  []byte
	versions  *versions
	resolved  answers[Address, []string] // mailboxes of recipients
	quotas    answers[string, int64]     // by the name of the mailbox

	throttle     *throttle.Throttle
	throttleFile string
	failureDelay time.Duration
	uses         uses

	lookup, expand, login, alive, first, quota, app *sql.Stmt
}

// Open opens the directory in the file path and creates it, with mode 0600,
// when there is none. A schema of an earlier version is updated; one of a later
// version is an error.
func Open(ctx context.Context, path string, o Options) (*Directory, error) {
	params, err := o.Hash.complete()
	if err != nil {
		return nil, err
	}
	if o.Separator == "" {
		o.Separator = "+"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := ensure(ctx, path); err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	// Enough for what runs at once between hashes; each connection has a cache.
	// One more only holds the wal-index.
	db.SetMaxOpenConns(9)
	db.SetMaxIdleConns(8)
	key := make([]byte, 32)
	rand.Read(key)
	d := &Directory{
		db: db, separator: o.Separator, log: o.Log, now: time.Now,
		hasher: newHasher(params), proofs: &proofs{key: key, entries: make(map[Address]proof)},
		failed:   failed{entries: make(map[presented]outcome)},
		throttle: throttle.New(maxThrottled, o.Exempt), throttleFile: o.ThrottleFile, failureDelay: o.FailureDelay,
		uses: uses{app: make(map[int64]Use), stale: make(map[int64]Use), written: make(map[int64]Use)},
	}
	if err := d.prepare(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	if d.versions, err = openVersions(ctx, db, path); err != nil {
		d.versions = new(versions)
		d.log.WarnContext(ctx, "changes of the directory cannot be told, every question reads it", "error", err)
	}
	d.loadThrottle(ctx)
	return d, nil
}

// prepare updates the schema and makes the statements of the mail path.
func (d *Directory) prepare(ctx context.Context) error {
	if err := d.migrate(ctx); err != nil {
		return err
	}
	for text, stmt := range map[string]**sql.Stmt{
		lookupSQL: &d.lookup, expandSQL: &d.expand, loginSQL: &d.login, aliveSQL: &d.alive, firstSQL: &d.first, quotaSQL: &d.quota,
		appPasswordSQL: &d.app,
	} {
		var err error
		if *stmt, err = d.db.PrepareContext(ctx, text); err != nil {
			return explain(err)
		}
	}
	for name, key := range map[string]*[]byte{"decoy": &d.decoyKey, "app": &d.appKey, "wrong": &d.wrongKey} {
		if err := d.db.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = $1`, name).Scan(key); err != nil {
			return explain(err)
		}
	}
	return nil
}

// Close releases the directory. Calls that run get an error.
func (d *Directory) Close() error {
	d.finishUses()
	return errors.Join(d.versions.close(), d.db.Close())
}

// ensure sees to it that the file exists and is for its owner only; SQLite
// gives the files that it makes beside it the same mode. The file itself is not
// opened here: closing it would end the locks that another handle of this
// process has on it (POSIX locks belong to the process).
func ensure(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return create(ctx, path)
	case err == nil && info.Mode().Perm()&0o077 != 0:
		return os.Chmod(path, info.Mode().Perm()&0o700)
	}
	return err
}

// create makes an empty directory under another name and links it to its own
// when it is whole: SQLite lets nobody wait while a file turns to WAL mode, so
// processes that begin at once would fail.
func create(ctx context.Context, path string) error {
	draft, err := os.CreateTemp(filepath.Dir(path), ".restante-*.db") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	if err := draft.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(draft.Name()))
	if err != nil {
		return err
	}
	err = (&Directory{db: db}).migrate(ctx)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err // who was first has made the same
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

func dsn(path string) string {
	file := url.URL{Scheme: "file", Path: path}
	return file.String() + "?_txlock=immediate" +
		"&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"
}

// change runs f in a transaction that holds the write lock from its beginning.
func (d *Directory) change(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	defer tx.Rollback() // does nothing after the commit
	if err := f(tx); err != nil {
		return explain(err)
	}
	return explain(tx.Commit())
}

// explain puts what an administrator can do before errors of the database.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the rest is detail
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("the directory is being changed by another program, try again: %w", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("the directory cannot be written, run this as the owner of the data directory: %w", err)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("the directory is damaged, restore a backup: %w", err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("no space is left for the directory: %w", err)
	}
	return err
}

// calm is ctx for short queries by key: a context that can be cancelled makes
// the driver start a goroutine, which takes longer than the query.
func calm(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }
