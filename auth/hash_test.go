package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// 16 and 32 octets in Base64.
const salt16, key32 = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func phc(costs, salt, key string) string {
	return "$argon2id$v=19$" + costs + "$" + salt + "$" + key
}

func TestParsePHC(t *testing.T) {
	good := []string{
		phc("m=19456,t=2,p=1", salt16, key32),
		phc("m=8,t=1,p=1", salt16, key32),
		phc("m=1048576,t=4,p=64", salt16, key32),
		phc("m=64,t=65536,p=1", salt16, key32),
		phc("m=64,t=1,p=1", strings.Repeat("A", 11), strings.Repeat("A", 22)), // 8 and 16 octets
		phc("m=64,t=1,p=1", strings.Repeat("A", 86), strings.Repeat("A", 86)), // 64 each
	}
	for _, s := range good {
		c, err := parsePHC(s)
		if err != nil || c.String() != s {
			t.Errorf("parsePHC(%q) = %q, %v", s, c, err)
		}
	}
	bad := []string{
		"", "$", "$argon2id$", "password", "$2y$10$abcdefghijklmnopqrstuv",
		strings.Replace(good[0], "argon2id", "argon2i", 1),
		strings.Replace(good[0], "v=19", "v=16", 1),
		strings.Replace(good[0], "$v=19", "", 1),
		good[0] + "$", " " + good[0], good[0] + " ", good[0] + "=", good[0] + "\n",
		phc("m=7,t=1,p=1", salt16, key32), phc("m=15,t=1,p=2", salt16, key32),
		phc("m=1048577,t=1,p=1", salt16, key32), phc("m=64,t=65537,p=1", salt16, key32),
		phc("m=1048576,t=5,p=1", salt16, key32), phc("m=4294967296,t=1,p=1", salt16, key32),
		phc("m=64,t=4294967295,p=1", salt16, key32),
		phc("m=64,t=0,p=1", salt16, key32), phc("m=64,t=1,p=0", salt16, key32),
		phc("m=1024,t=1,p=65", salt16, key32), phc("m=1024,t=1,p=256", salt16, key32),
		phc("m=0,t=1,p=1", salt16, key32), phc("m=-1,t=1,p=1", salt16, key32), phc("m=+64,t=1,p=1", salt16, key32),
		phc("m=064,t=1,p=1", salt16, key32), phc("t=1,m=64,p=1", salt16, key32), phc("m=64,t=1", salt16, key32),
		phc("m=64,t=1,p=1,keyid=x", salt16, key32),
		phc("m=64,t=1,p=1", "AAAAAAAAAB", key32), // 7 octets
		phc("m=64,t=1,p=1", strings.Repeat("A", 87), key32),
		phc("m=64,t=1,p=1", salt16, strings.Repeat("A", 20)),
		phc("m=64,t=1,p=1", salt16, strings.Repeat("A", 87)),
		phc("m=64,t=1,p=1", salt16[:21]+"B", key32), // bits left over
		phc("m=64,t=1,p=1", salt16[:10]+"\n"+salt16[10:], key32),
		phc("m=64,t=1,p=1", "", ""),
		"$argon2id$v=19$m=64,t=1,p=1$" + strings.Repeat("A", 1000),
	}
	for _, s := range bad {
		if _, err := parsePHC(s); err == nil {
			t.Errorf("parsePHC(%q) did not fail", s)
		}
		if _, err := HashSecret(s); !errors.Is(err, ErrBadSecret) {
			t.Errorf("HashSecret(%q): %v", s, err)
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add(phc("m=64,t=1,p=1", salt16, key32))
	f.Add(phc("m=1048576,t=4,p=64", "AAAAAAAAAAA", strings.Repeat("/", 22)))
	f.Add("$argon2id$v=19$m=,t=,p=$$")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parsePHC(s)
		if err != nil {
			return
		}
		if c.String() != s {
			t.Fatalf("%q reads as %q", s, c)
		}
		if checkCosts(c.memory, c.time, c.threads) != nil || len(c.salt) < minSalt || len(c.key) < minKey || len(c.salt)+len(c.key) > maxSalt+maxKey {
			t.Fatalf("%q is out of bounds", s)
		}
	})
}

// A test vector of the reference implementation: an independent witness.
func TestForeignHash(t *testing.T) {
	d := hosting(t, "example.org")
	const stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	s, err := HashSecret(stored)
	must(t, err)
	_, err = d.AddUser(context.Background(), "alice@example.org", s)
	must(t, err)
	if _, err := d.Authenticate(context.Background(), as("alice@example.org", "password")); err != nil {
		t.Errorf("right password: %v", err)
	}
	_, err = d.Authenticate(context.Background(), as("alice@example.org", "Password"))
	wantErr(t, "wrong password", err, ErrBadCredentials)
}

func TestHashParams(t *testing.T) {
	p, err := HashParams{}.complete()
	if err != nil || p.Memory != 19456 || p.Time != 2 || p.Threads != 1 || p.Parallel < 1 {
		t.Errorf("defaults %+v, %v", p, err)
	}
	for _, p := range []HashParams{{Memory: 7}, {Memory: maxMemory + 1}, {Time: 1 << 31}, {Threads: 65}, {Memory: 8, Threads: 2}} {
		if _, err := p.complete(); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

func TestPlainSecret(t *testing.T) {
	for password, good := range map[string]bool{
		"x": true, " ": true, "\t": true, "päss wörd": true, strings.Repeat("a", 1024): true,
		"": false, strings.Repeat("a", 1025): false, "a\x00": false, "a\r": false, "a\nb": false, "a\xff": false,
	} {
		_, err := PlainSecret(password)
		if good != (err == nil) || err != nil && !errors.Is(err, ErrBadSecret) {
			t.Errorf("PlainSecret(%q): %v", password, err)
		}
		if err != nil && len(password) > 2 && strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestSecretPrintsNothing(t *testing.T) {
	s := plain(t, "opensesame")
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s, "entry", ImportEntry{Secret: s})
	fmt.Fprintf(&b, "%v %+v %#v %s %q %v", s, s, s, s, s, []ImportEntry{{Secret: s}})
	if strings.Contains(b.String(), "opensesame") {
		t.Errorf("a secret shows in %s", b.String())
	}
}

func TestGeneratePassword(t *testing.T) {
	seen := make(map[string]bool)
	used := make(map[rune]bool)
	for range 1000 {
		p := GeneratePassword()
		letters := strings.ReplaceAll(p, "-", "")
		if len(letters) != 16 || strings.Count(p, "-") != 3 || strings.ContainsAny(p, "01lo") || seen[p] {
			t.Fatalf("password %q", p)
		}
		seen[p] = true
		for _, r := range letters {
			used[r] = true
		}
		plain(t, p)
	}
	if len(used) != 32 {
		t.Errorf("%d different characters, want 32", len(used))
	}
}

func TestHashWaitsForItsTurn(t *testing.T) {
	p := cheap
	p.Parallel = 1
	h := newHasher(p)
	started, finish := make(chan struct{}), make(chan struct{})
	h.derive = func(_, _ []byte, _, _ uint32, _ uint8, n uint32) []byte {
		started <- struct{}{}
		<-finish
		return make([]byte, n)
	}
	done := make(chan error)
	go func() { _, err := h.hash(context.Background(), "a"); done <- err }()
	<-started
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.hash(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("second hash at once: %v", err)
	}
	close(finish)
	must(t, <-done)
}
