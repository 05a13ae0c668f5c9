package auth

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
)

func TestQuota(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.net")
	addUsers(t, d, "alice@example.org", "bob@example.org", "carol@example.net")
	addAlias(t, d, "team@example.org", "bob@example.org")
	account, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
	must(t, err)
	n := func(octets int64) *int64 { return &octets }
	for _, step := range []struct {
		name              string
		do                func() error
		alice, bob, carol int64
	}{
		{"at first", func() error { return nil }, 0, 0, 0},
		{"the domain", func() error { return d.SetDomainQuota(ctx, "Example.ORG", 100) }, 100, 100, 0},
		{"one user", func() error { return d.SetQuota(ctx, "Alice@example.org", n(7)) }, 7, 100, 0},
		{"none for one", func() error { return d.SetQuota(ctx, "bob@example.org", n(0)) }, 7, 0, 0},
		{"another for the domain", func() error { return d.SetDomainQuota(ctx, "example.org", 200) }, 7, 0, 0},
		{"that of the domain", func() error { return d.SetQuota(ctx, "alice@example.org", nil) }, 200, 0, 0},
		{"none for the domain", func() error { return d.SetDomainQuota(ctx, "example.org", 0) }, 0, 0, 0},
	} {
		must(t, step.do())
		for who, want := range map[string]int64{"alice@example.org": step.alice, "bob@example.org": step.bob, "carol@example.net": step.carol, "team@example.org": 0, "x@y.example": 0} {
			for range 2 { // read, then kept
				if got, err := d.Quota(ctx, who); got != want || err != nil {
					t.Errorf("%s: %s has %d, %v, want %d", step.name, who, got, err, want)
				}
			}
		}
	}
	if !account.Alive(ctx) {
		t.Error("a quota has ended a session")
	}
	for _, err := range []error{
		d.SetQuota(ctx, "nobody@example.org", n(1)), d.SetQuota(ctx, "team@example.org", n(1)), d.SetDomainQuota(ctx, "example.com", 1),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
	}
}

// A directory of the first schema gets quotas, which are none.
func TestQuotaInAnOldDirectory(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	db, err := sql.Open("sqlite", path)
	must(t, err)
	for _, statement := range []string{migrations[0], `PRAGMA user_version = 1`,
		`INSERT INTO domains (id, name, postmaster, created) VALUES (1, 'example.org', '', 5)`,
		`INSERT INTO addresses (id, domain, local) VALUES (1, 1, 'alice')`,
		`INSERT INTO users (id, credential, enabled, stamp, created, changed) VALUES (1, 'x', 1, 1, 5, 5)`} {
		_, err := db.Exec(statement)
		must(t, err)
	}
	must(t, db.Close())
	d := open(t, path)
	if u, err := d.User(ctx, "alice@example.org"); err != nil || u.Quota != 0 || u.OwnQuota {
		t.Errorf("the old user: %+v, %v", u, err)
	}
	must(t, d.SetDomainQuota(ctx, "example.org", 10))
	if q, err := d.Quota(ctx, "alice@example.org"); q != 10 || err != nil {
		t.Errorf("quota %d, %v", q, err)
	}
}
