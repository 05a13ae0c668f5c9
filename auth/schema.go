package auth

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations lead from one schema version to the next; the number of those
// that were applied is kept in user_version. Never change one that was
// released, append.
//
// Users and aliases share the table of addresses, so that no address can be
// both, and aliases point at rows, so that nothing dangles. Numbers are never
// used twice: a number with a stamp names one state of one account for ever.
var migrations = []string{`
CREATE TABLE domains (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	name       TEXT NOT NULL UNIQUE,
	postmaster TEXT NOT NULL, -- local@domain, perhaps not made yet; '' until the first user
	created    INTEGER NOT NULL
) STRICT;
CREATE TABLE addresses (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
	local  TEXT NOT NULL, -- unquoted; '' is the catch-all
	UNIQUE (domain, local)
) STRICT;
CREATE TABLE users (
	id         INTEGER PRIMARY KEY REFERENCES addresses (id) ON DELETE CASCADE,
	credential TEXT NOT NULL,
	enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
	stamp      INTEGER NOT NULL, -- grows when sessions of the account must end
	created    INTEGER NOT NULL,
	changed    INTEGER NOT NULL
) STRICT;
CREATE TABLE targets (
	alias  INTEGER NOT NULL REFERENCES addresses (id) ON DELETE CASCADE,
	target INTEGER NOT NULL REFERENCES addresses (id) ON DELETE CASCADE,
	PRIMARY KEY (alias, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX targets_by_target ON targets (target);
CREATE TABLE secrets (
	name  TEXT PRIMARY KEY,
	value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO secrets (name, value) VALUES ('decoy', randomblob(32));
`, `
ALTER TABLE domains ADD COLUMN quota INTEGER NOT NULL DEFAULT 0 CHECK (quota >= 0); -- octets; 0: none
ALTER TABLE users ADD COLUMN quota INTEGER CHECK (quota >= 0); -- NULL: that of the domain
`, `
CREATE TABLE app_passwords (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	user      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	name      TEXT NOT NULL,
	digest    BLOB NOT NULL,
	created   INTEGER NOT NULL,
	used      INTEGER, -- last; NULL: never
	used_by   TEXT,
	used_from TEXT,
	UNIQUE (user, name)
) STRICT;
ALTER TABLE users ADD COLUMN app_only INTEGER NOT NULL DEFAULT 0 CHECK (app_only IN (0, 1));
ALTER TABLE users ADD COLUMN previous BLOB; -- the key of the password before, with the salt and costs of this one
ALTER TABLE users ADD COLUMN stale INTEGER; -- when the one before was presented last
ALTER TABLE users ADD COLUMN stale_by TEXT;
ALTER TABLE users ADD COLUMN stale_from TEXT;
INSERT INTO secrets (name, value) VALUES ('app', randomblob(32)), ('wrong', randomblob(32));
`}

// migrate brings the schema up to date, in one transaction. Nothing is written,
// and no lock waited for, when it is.
func (d *Directory) migrate(ctx context.Context) error {
	version, err := schemaVersion(ctx, d.db)
	if err != nil || version == len(migrations) {
		return explain(err)
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		version, err := schemaVersion(ctx, tx) // another process may have been first
		if err != nil {
			return err
		}
		for _, statements := range migrations[version:] {
			if _, err := tx.ExecContext(ctx, statements); err != nil {
				return fmt.Errorf("update its schema: %w", err)
			}
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, len(migrations)))
		return err
	})
}

// schemaVersion is the number of migrations that were applied; it is an error
// if there are more than this program has.
func schemaVersion(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (int, error) {
	var version int
	err := q.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	if err == nil && version > len(migrations) {
		err = fmt.Errorf("it was written by a newer restante (schema %d, this program knows %d); run that version, or restore a backup made before it",
			version, len(migrations))
	}
	return version, err
}
