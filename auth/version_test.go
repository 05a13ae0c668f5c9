package auth

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the other handle does with the log, no answer is older than its last
// commit. A version that is not known costs time, never truth.
func TestAnswersAreNeverOld(t *testing.T) {
	ctx := context.Background()
	const alice = "alice@example.org"
	for _, known := range []bool{true, false} {
		for _, mode := range []string{"none", "PASSIVE", "RESTART", "TRUNCATE"} {
			t.Run(fmt.Sprintf("known=%t/%s", known, mode), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "restante.db")
				d, other := open(t, path), open(t, path)
				if !known {
					d.versions.ended.Store(true)
				}
				must(t, d.AddDomain(ctx, "example.org", ""))
				addUsers(t, d, alice)
				for i := range 100 {
					enabled := i%2 == 1
					must(t, other.SetEnabled(ctx, alice, enabled))
					if mode != "none" {
						_, err := other.db.Exec(`PRAGMA wal_checkpoint(` + mode + `)`)
						must(t, err)
					}
					for range 2 { // read, then perhaps kept
						account, err := d.Authenticate(ctx, as(alice, "secret of "+alice))
						if enabled != (err == nil) || enabled && !account.Alive(ctx) {
							t.Fatalf("change %d: enabled %t, log in: %v", i, enabled, err)
						}
						if _, err := d.Resolve(ctx, "alice", "example.org"); enabled != (err == nil) {
							t.Fatalf("change %d: enabled %t, resolve: %v", i, enabled, err)
						}
					}
				}
			})
		}
	}
}

// A wal-index that cannot be read is no version, and not the end of the process.
func TestVersionOfAnIndexCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	must(t, d.AddDomain(context.Background(), "example.org", ""))
	if !d.versions.now().known() {
		t.Fatal("no version is known")
	}
	must(t, os.Truncate(path+"-shm", 0))
	if v := d.versions.now(); v.known() {
		t.Errorf("version %x of nothing", v)
	}
}

func TestAnswersAreSmall(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	var all []string
	for i := range maxKept + 1 {
		all = append(all, fmt.Sprintf("user%d@example.org", i))
	}
	addUsers(t, d, all...)
	addAlias(t, d, "all@example.org", all...)
	addAlias(t, d, "most@example.org", all[1:]...)
	for _, who := range []string{"all", "most"} {
		if _, err := d.Resolve(ctx, who, "example.org"); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.resolved.kept) != 1 {
		t.Errorf("%d answers are kept", len(d.resolved.kept))
	}
}

// While nothing changes the database is not asked.
func TestAnswersAreKept(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "bob@example.org")
	addAlias(t, d, "team@example.org", "alice@example.org", "bob@example.org")
	work := func() {
		t.Helper()
		account, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
		must(t, err)
		if !account.Alive(ctx) {
			t.Error("not alive")
		}
		r, err := d.Resolve(ctx, "Team", "example.org")
		if err != nil || len(r.Mailboxes) != 2 || r.Mailboxes[0] != "alice@example.org" {
			t.Errorf("resolved to %v, %v", r, err)
		}
		clear(r.Mailboxes) // they are the caller's
	}
	work()
	if !d.versions.now().known() {
		t.Fatal("no version is known")
	}
	for _, statement := range []interface{ Close() error }{d.login, d.alive, d.lookup, d.expand} {
		must(t, statement.Close()) // from here on a question fails
	}
	work()
	must(t, d.SetEnabled(ctx, "bob@example.org", false))
	if _, err := d.Resolve(ctx, "team", "example.org"); err == nil {
		t.Error("resolved without the database after a change")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var a answers[int, int]
	one, two := version{1}, version{2}
	for i := range maxAnswers + 10 {
		a.put(one, i, i)
		if v, ok := a.get(one, i); !ok || v != i {
			t.Fatalf("answer %d: %d, %t", i, v, ok)
		}
	}
	if len(a.kept) != maxAnswers {
		t.Errorf("%d answers", len(a.kept))
	}
	a.put(two, 1, 1)
	if len(a.kept) != 1 {
		t.Errorf("%d answers after a change", len(a.kept))
	}
	a.put(version{}, 2, 2)
	if _, ok := a.get(version{}, 2); ok {
		t.Error("an answer of no version")
	}
}
