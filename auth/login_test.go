package auth

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
)

// work records what is hashed.
type work struct {
	mu    sync.Mutex
	costs []string
}

func (w *work) watch(d *Directory) {
	d.hasher.derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		w.mu.Lock()
		w.costs = append(w.costs, fmt.Sprintf("m=%d,t=%d,p=%d", memory, time, threads))
		w.mu.Unlock()
		return argon2.IDKey(password, salt, time, memory, threads, keyLen)
	}
}

// take is what was hashed since the last call.
func (w *work) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.costs, " ")
	w.costs = nil
	return s
}

func TestAuthenticate(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "bücher.example")
	for addr, password := range map[string]string{"alice@example.org": "pässword", "jörg@bücher.example": "a b"} {
		_, err := d.AddUser(ctx, addr, plain(t, password))
		must(t, err)
	}
	for _, tt := range []struct{ user, password, mailbox string }{
		{"alice@example.org", "pässword", "alice@example.org"},
		{"ALICE@Example.org.", "pässword", "alice@example.org"},
		{`"alice"@example.org`, "pässword", "alice@example.org"},
		{"alice@example.org", "pa\u0308ssword", "alice@example.org"}, // not composed
		{"JO\u0308RG@BÜCHER.example", "a b", "jörg@xn--bcher-kva.example"},
		{"jörg@xn--bcher-kva.example", "a\u00a0b", "jörg@xn--bcher-kva.example"},
	} {
		for range 2 { // hashed, proved
			a, err := d.Authenticate(ctx, as(tt.user, tt.password))
			if err != nil || a.Mailbox != tt.mailbox || !a.Alive(ctx) {
				t.Errorf("%q: %v, %v", tt.user, a, err)
			}
		}
	}
}

// Whatever is wrong, the same is done: one hash at the one cost there is.
func TestFailuresCostTheSame(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "off@example.org")
	_, err := d.AddUser(ctx, "empty@example.org", Secret{hash: mustHash(t, d, "")})
	must(t, err)
	must(t, d.SetEnabled(ctx, "off@example.org", false))
	addAlias(t, d, "info@example.org", "alice@example.org")
	addAlias(t, d, "@example.org", "alice@example.org")
	const right = "secret of alice@example.org"
	if _, err := d.Authenticate(ctx, as("alice@example.org", right)); err != nil {
		t.Fatal(err)
	}
	var w work
	w.watch(d)
	for _, tt := range []struct{ name, user, password string }{
		{"wrong password", "alice@example.org", "wrong"},
		{"no password", "alice@example.org", ""},
		{"password too long", "alice@example.org", strings.Repeat("x", 100_000)},
		{"password with NUL", "alice@example.org", right + "\x00"},
		{"password not UTF-8", "alice@example.org", "\xff"},
		{"no password, stored as such", "empty@example.org", ""},
		{"password too long, like none", "empty@example.org", strings.Repeat("x", 1025)},
		{"disabled", "off@example.org", "secret of off@example.org"},
		{"disabled and wrong", "off@example.org", "x"},
		{"unknown", "nobody@example.org", right},
		{"unknown domain", "alice@example.net", right},
		{"alias", "info@example.org", right},
		{"detail", "alice+x@example.org", right},
		{"catch-all", "@example.org", right},
		{"bare and unknown", "nobody", right},
		{"no name", "", right},
		{"at sign", "@", right},
		{"literal", "alice@[127.0.0.1]", right},
		{"malformed", "a..b@example.org", right},
		{"control characters", "alice\x00@example.org", right},
		{"not UTF-8", "\xff@example.org", right},
		{"long name", strings.Repeat("a", 100) + "@example.org", right},
		{"very long name", strings.Repeat("a", 1_000_000) + "@example.org", right},
		{"very long domain", "a@" + strings.Repeat("a.", 500_000), right},
	} {
		clear(d.failed.entries) // each as if it came first
		a, err := d.Authenticate(ctx, as(tt.user, tt.password))
		if a != nil || !errors.Is(err, ErrBadCredentials) {
			t.Errorf("%s: %v, %v", tt.name, a, err)
		}
		if got := w.take(); got != "m=64,t=1,p=1" {
			t.Errorf("%s: hashed %q", tt.name, got)
		}
	}
	must(t, d.AddDomain(ctx, "example.com", ""))
	clear(d.failed.entries)
	_, err = d.Authenticate(ctx, as("alice", right))
	wantErr(t, "bare name with two domains", err, ErrBadCredentials)
	if got := w.take(); got != "m=64,t=1,p=1" {
		t.Errorf("bare name: hashed %q", got)
	}
}

func mustHash(t *testing.T, d *Directory, password string) string {
	t.Helper()
	s, err := d.hasher.hash(context.Background(), password)
	must(t, err)
	return s
}

// Made-up names borrow the costs of real accounts, each name always the same.
func TestUnknownNamesBorrowCosts(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	_, err := d.Authenticate(ctx, as("nobody@example.org", "x"))
	wantErr(t, "nobody in an empty directory", err, ErrBadCredentials)
	must(t, d.AddDomain(ctx, "example.org", ""))
	for i := range 8 {
		s, err := HashSecret(phc(fmt.Sprintf("m=64,t=%d,p=1", 1+i%2), salt16, key32))
		must(t, err)
		_, err = d.AddUser(ctx, fmt.Sprintf("user%d@example.org", i), s)
		must(t, err)
	}
	other := open(t, path) // as after a restart
	var w, again work
	w.watch(d)
	again.watch(other)
	seen := make(map[string]int)
	for i := range 64 {
		name := fmt.Sprintf("nobody%d@example.org", i)
		d.Authenticate(ctx, as(name, "x"))
		other.Authenticate(ctx, as(strings.ToUpper(name), "y"))
		costs := w.take()
		if got := again.take(); got != costs {
			t.Errorf("%s cost %s, then %s", name, costs, got)
		}
		seen[costs]++
	}
	if len(seen) != 2 || seen["m=64,t=1,p=1"] < 8 || seen["m=64,t=2,p=1"] < 8 {
		t.Errorf("costs of made-up names: %v", seen)
	}
}

func TestProof(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "bob@example.org")
	clock := time.Unix(1_700_000_000, 0)
	d.now = func() time.Time { return clock }
	var w work
	w.watch(d)
	login := func(what, user, password string, good bool, hashes string) {
		t.Helper()
		if _, err := d.Authenticate(ctx, as(user, password)); good != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
		if got := w.take(); got != hashes {
			t.Errorf("%s: hashed %q, want %q", what, got, hashes)
		}
	}
	const alice, once = "alice@example.org", "m=64,t=1,p=1"
	password := "secret of " + alice
	login("first", alice, password, true, once)
	login("second", "Alice@EXAMPLE.org", password, true, "")
	login("bare", "alice", password, true, "")
	login("wrong", alice, "wrong", false, once)
	login("right again", alice, password, true, "")
	login("another's", "bob@example.org", password, false, once)
	clock = clock.Add(proofLife)
	login("at the limit", alice, password, true, "")
	clock = clock.Add(proofLife + 1)
	login("after it", alice, password, true, once)

	must(t, d.SetEnabled(ctx, alice, false))
	w.take()
	login("disabled", alice, password, false, once)
	must(t, d.SetEnabled(ctx, alice, true))
	login("enabled", alice, password, true, once)
	must(t, d.SetPassword(ctx, alice, plain(t, "new")))
	w.take()
	login("old password", alice, password, false, once)
	login("new password", alice, "new", true, once)
	login("new password again", alice, "new", true, "")
	if _, err := d.RemoveUser(ctx, alice); err != nil {
		t.Fatal(err)
	}
	login("removed", alice, "new", false, once)
	_, err := d.AddUser(ctx, alice, plain(t, "new"))
	must(t, err)
	w.take()
	login("another of the name", alice, "new", true, once)
}

func TestProofsAreBounded(t *testing.T) {
	p := &proofs{key: []byte("key"), entries: make(map[Address]proof)}
	for id := range int64(maxProofs + 100) {
		a := Address{fmt.Sprint(id), "example.org"}
		made := p.make(state{id: id}, "x")
		p.add(a, made)
		if !p.renew(a, made) {
			t.Fatalf("proof %d is not known", id)
		}
	}
	if len(p.entries) != maxProofs {
		t.Errorf("%d proofs", len(p.entries))
	}
}

func TestAlive(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(d *Directory, addr string) error{
		"password": func(d *Directory, addr string) error { return d.SetPassword(ctx, addr, plain(t, "x")) },
		"same password": func(d *Directory, addr string) error {
			return d.SetPassword(ctx, addr, plain(t, "secret of "+addr))
		},
		"disabled": func(d *Directory, addr string) error { return d.SetEnabled(ctx, addr, false) },
		"disabled and enabled": func(d *Directory, addr string) error {
			return errors.Join(d.SetEnabled(ctx, addr, false), d.SetEnabled(ctx, addr, true))
		},
		"removed": func(d *Directory, addr string) error { return ignore(d.RemoveUser(ctx, addr)) },
		"removed and added": func(d *Directory, addr string) error {
			_, err := d.RemoveUser(ctx, addr)
			addUsers(t, d, addr)
			return err
		},
		"domain removed": func(d *Directory, addr string) error {
			return ignore(d.RemoveDomain(ctx, "example.org", RemoveOptions{WithUsers: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "restante.db")
			d, other := open(t, path), open(t, path)
			must(t, d.AddDomain(ctx, "example.org", ""))
			addUsers(t, d, "bob@example.org", "alice@example.org")
			alice, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
			must(t, err)
			must(t, other.SetPassword(ctx, "bob@example.org", plain(t, "x")))
			addAlias(t, other, "info@example.org", "alice@example.org")
			cancelled, cancel := context.WithCancel(ctx)
			cancel()
			if !alice.Alive(ctx) || !alice.Alive(cancelled) {
				t.Error("dead before the change")
			}
			must(t, change(other, "alice@example.org"))
			if alice.Alive(ctx) {
				t.Error("alive after the change")
			}
		})
	}
}

func TestRehash(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	must(t, d.AddDomain(ctx, "example.org", ""))
	addUsers(t, d, "alice@example.org")
	password := "secret of alice@example.org"
	session, err := d.Authenticate(ctx, as("alice@example.org", password))
	must(t, err)

	dearer, err := Open(ctx, path, Options{Hash: HashParams{Memory: 128, Time: 2}})
	must(t, err)
	defer dearer.Close()
	for range 3 {
		if _, err := dearer.Authenticate(ctx, as("alice@example.org", password)); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() (s string) {
		must(t, d.db.QueryRow(`SELECT credential FROM users`).Scan(&s))
		return s
	}
	now := stored()
	if !strings.Contains(now, "$m=128,t=2,p=1$") {
		t.Errorf("not hashed anew: %s", now)
	}
	if !session.Alive(ctx) {
		t.Error("hashing anew ended a session")
	}
	if _, err := d.Authenticate(ctx, as("alice@example.org", password)); err != nil || stored() != now {
		t.Errorf("hashed down to %s, %v", stored(), err)
	}
}

// A credential that cannot be read is the server's trouble, not the client's.
func TestDamagedCredential(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	_, err := d.db.Exec(`UPDATE users SET credential = 'x'`)
	must(t, err)
	_, err = d.Authenticate(ctx, as("alice@example.org", "x"))
	if err == nil || errors.Is(err, ErrBadCredentials) {
		t.Errorf("error %v", err)
	}
}
