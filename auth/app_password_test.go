package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// from are the credentials of a client.
func from(client, user, password string) Credentials {
	return Credentials{User: user, Password: password, Client: netip.MustParseAddr(client), Protocol: "POP3+TLS"}
}

func TestAppPassword(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	addUsers(t, d, "bob@example.org")
	phone, err := d.AddAppPassword(ctx, "Alice@Example.org", "phone")
	must(t, err)
	laptop, err := d.AddAppPassword(ctx, "alice@example.org", "laptop, old")
	must(t, err)
	for password, want := range map[string]string{
		"secret of alice@example.org": "", phone: "phone", laptop: "laptop, old",
		strings.ReplaceAll(phone, "-", ""): "phone", strings.ToUpper(phone): "phone", strings.ReplaceAll(phone, "-", " "): "phone",
	} {
		a, err := d.Authenticate(ctx, as("alice@example.org", password))
		if err != nil || a.AppPassword != want || a.Mailbox != "alice@example.org" {
			t.Errorf("%q: %+v, %v", password, a, err)
		}
	}
	_, err = d.Authenticate(ctx, as("bob@example.org", phone))
	wantErr(t, "another's app password", err, ErrBadCredentials)
	_, err = d.Authenticate(ctx, as("nobody@example.org", phone))
	wantErr(t, "nobody with an app password", err, ErrBadCredentials)

	session, err := d.Authenticate(ctx, as("alice@example.org", phone))
	must(t, err)
	other, err := d.Authenticate(ctx, as("alice@example.org", laptop))
	must(t, err)
	must(t, d.RemoveAppPassword(ctx, "alice@example.org", "phone"))
	if session.Alive(ctx) || !other.Alive(ctx) {
		t.Error("the session of a removed app password goes on, or that of another ended")
	}
	_, err = d.Authenticate(ctx, as("alice@example.org", phone))
	wantErr(t, "a removed app password", err, ErrBadCredentials)
	must(t, d.SetEnabled(ctx, "alice@example.org", false))
	_, err = d.Authenticate(ctx, as("alice@example.org", laptop))
	wantErr(t, "an app password of a disabled user", err, ErrBadCredentials)
}

func TestAppPasswordNames(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	for _, name := range []string{"", " x", "x ", "a\nb", "a\x00", "a\u202eb", strings.Repeat("a", 65), "\xff"} {
		_, err := d.AddAppPassword(ctx, "alice@example.org", name)
		wantErr(t, fmt.Sprintf("name %q", name), err, ErrBadSecret)
	}
	for i := range maxAppPasswords {
		_, err := d.AddAppPassword(ctx, "alice@example.org", fmt.Sprint("Gerät ", i))
		must(t, err)
	}
	_, err := d.AddAppPassword(ctx, "alice@example.org", "one more")
	wantErr(t, "too many", err, ErrExists)
	must(t, d.RemoveAppPassword(ctx, "alice@example.org", "Gerät 7"))
	_, err = d.AddAppPassword(ctx, "alice@example.org", "Gerät 8")
	wantErr(t, "the same name", err, ErrExists)
	wantErr(t, "unknown name", d.RemoveAppPassword(ctx, "alice@example.org", "x"), ErrNotFound)
	wantErr(t, "unknown user", d.RemoveAppPassword(ctx, "bob@example.org", "x"), ErrNotFound)
	_, err = d.AddAppPassword(ctx, "bob@example.org", "x")
	wantErr(t, "unknown user", err, ErrNotFound)
	_, err = d.AppPasswords(ctx, "bob@example.org")
	wantErr(t, "unknown user", err, ErrNotFound)
}

// TestAppOnly: the password itself is refused, and counts as one guess.
func TestAppOnly(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	phone, err := d.AddAppPassword(ctx, "alice@example.org", "phone")
	must(t, err)
	session, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
	must(t, err)
	must(t, d.SetAppOnly(ctx, "alice@example.org", true))
	if session.Alive(ctx) {
		t.Error("a session that was begun with the password goes on")
	}
	for range 30 {
		_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "secret of alice@example.org"))
		wantErr(t, "the password", err, errAppOnly)
	}
	_, err = d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", phone))
	must(t, err)
	if u, err := d.User(ctx, "alice@example.org"); err != nil || !u.AppOnly {
		t.Errorf("%+v, %v", u, err)
	}
	must(t, d.SetAppOnly(ctx, "alice@example.org", false))
	_, err = d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
	must(t, err)
}

// TestLastUse: what logins leave behind is written when the directory is closed.
func TestLastUse(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	d, err := Open(ctx, path, Options{Hash: cheap})
	must(t, err)
	must(t, d.AddDomain(ctx, "example.org", ""))
	addUsers(t, d, "alice@example.org")
	phone, err := d.AddAppPassword(ctx, "alice@example.org", "phone")
	must(t, err)
	_, err = d.AddAppPassword(ctx, "alice@example.org", "never")
	must(t, err)
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "new")))
	_, err = d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", phone))
	must(t, err)
	_, err = d.Authenticate(ctx, from("192.0.2.9", "alice@example.org", "secret of alice@example.org"))
	wantErr(t, "the old password", err, errOldPassword)
	must(t, d.Close())

	d, err = Open(ctx, path, Options{Hash: cheap})
	must(t, err)
	defer d.Close()
	apps, err := d.AppPasswords(ctx, "alice@example.org")
	must(t, err)
	if len(apps) != 2 || apps[0].Name != "phone" || apps[0].LastUse == nil || apps[1].LastUse != nil {
		t.Fatalf("%+v", apps)
	}
	if u := apps[0].LastUse; u.Address != "192.0.2.7" || u.Protocol != "POP3+TLS" || time.Since(u.Time) > time.Hour {
		t.Errorf("%+v", u)
	}
	u, err := d.User(ctx, "alice@example.org")
	must(t, err)
	if u.Stale == nil || u.Stale.Address != "192.0.2.9" {
		t.Errorf("old password: %+v", u.Stale)
	}
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "newer")))
	if u, err = d.User(ctx, "alice@example.org"); err != nil || u.Stale != nil {
		t.Errorf("after another change: %+v, %v", u.Stale, err)
	}
}

// TestOldPassword: who still has the password before the last change is refused, and
// where nobody has logged in before it counts as one guess, however often it comes. One
// computation tells.
func TestOldPassword(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	const old = "secret of alice@example.org"
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "new")))
	hashed := countHashes(d)
	for range 50 {
		_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", old))
		wantErr(t, "the old password", err, errOldPassword)
	}
	if n := hashed(); n != 1 {
		t.Errorf("%d hashes for 50 logins with the same", n)
	}
	bans := d.Bans()
	if len(bans) == 0 || slices.ContainsFunc(bans, func(b Ban) bool { return b.Failures > 1 }) {
		t.Errorf("it does not count once: %v", bans)
	}
	_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "new"))
	must(t, err)
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "newer")))
	_, err = d.Authenticate(ctx, as("alice@example.org", old))
	wantErr(t, "the one before the old", err, errBadPassword)
	_, err = d.Authenticate(ctx, as("alice@example.org", "new"))
	wantErr(t, "the old one", err, errOldPassword)
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "newer")))
	_, err = d.Authenticate(ctx, as("alice@example.org", "new"))
	wantErr(t, "the old one, after the same was set again", err, errOldPassword)
	_, err = d.Authenticate(ctx, as("alice@example.org", "newer"))
	must(t, err)
}

// countHashes counts the passwords that are hashed from now on.
func countHashes(d *Directory) func() int {
	derive, n := d.hasher.derive, 0
	d.hasher.derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		n++
		return derive(password, salt, time, memory, threads, keyLen)
	}
	return func() int { return n }
}

// TestForeignLogin: the hash of another system is good for one login, and is the
// server's own after it.
func TestForeignLogin(t *testing.T) {
	ctx := context.Background()
	for _, hash := range []string{
		"$6$rounds=1000$saltsalt$kVknPS.vPbhq7OOEQKNAT0dYZiwuhtVc1aNLEyx568p.8FOsRAfUZUQqksC7OmPxutfW72Z1E3KtUcHPjImN4.",
		"{SSHA512}9WX/sVPGUuQbFWEeTEA80fvg0hnHOeqxDqxWUM2mbNVDIDjgvlmfJ+ANkwVTSIkmNEW4UB5tt/DLl3vkwEYOsIjMe5U=",
		"{PLAIN-MD5}513bf8085dc0bb9adfd796a2187cc9e1",
		"{BLF-CRYPT}$2y$05$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
		"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$JJgj8IAOnDhhC13+YrF27Q$YlKbWaStPxa2cWuojQlFzZUQ8f03WRanztBsmL9p84k",
		"{plain}päss wörd-1",
	} {
		d := hosting(t, "example.org")
		entries, err := ParseImport(strings.NewReader("alice@example.org:" + hash + "\n"))
		must(t, err)
		must(t, d.ImportUsers(ctx, entries))
		_, err = d.Authenticate(ctx, as("alice@example.org", "wrong"))
		wantErr(t, hash+", wrong password", err, errBadPassword)
		_, err = d.Authenticate(ctx, as("nobody@example.org", "wrong"))
		wantErr(t, hash+", unknown user", err, errUnknownUser)
		for range 2 {
			_, err = d.Authenticate(ctx, as("alice@example.org", "päss wörd-1"))
			if err != nil {
				t.Fatalf("%s: %v", hash, err)
			}
		}
		var stored string
		must(t, d.db.QueryRow(`SELECT credential FROM users`).Scan(&stored))
		if !strings.HasPrefix(stored, "$argon2id$") {
			t.Errorf("%s is still stored as %s", hash, stored)
		}
	}
}

// TestThrottle: guesses from one address end, before they are hashed, also after a
// restart; the others are not concerned.
func TestThrottle(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	start := func() *Directory {
		d, err := Open(ctx, filepath.Join(dir, "restante.db"), Options{Hash: cheap, ThrottleFile: filepath.Join(dir, "throttle.json"),
			Exempt: netip.Addr.IsLoopback})
		must(t, err)
		return d
	}
	d := start()
	must(t, d.AddDomain(ctx, "example.org", ""))
	addUsers(t, d, "alice@example.org")
	for i := range 10 {
		_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", fmt.Sprint(i)))
		wantErr(t, "a guess", err, errBadPassword)
	}
	refused := func() {
		t.Helper()
		hashed := countHashes(d)
		for _, password := range []string{"guess", "secret of alice@example.org"} {
			_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", password))
			wantErr(t, "after ten guesses", err, ErrThrottled)
			wantErr(t, "after ten guesses", err, ErrBadCredentials)
		}
		if n := hashed(); n != 0 {
			t.Errorf("%d passwords were hashed for who is refused", n)
		}
	}
	refused()
	must(t, d.Close())
	d = start()
	defer func() { must(t, d.Close()) }()
	refused()
	_, err := d.Authenticate(ctx, from("198.51.100.1", "alice@example.org", "secret of alice@example.org"))
	must(t, err)
	bans := d.Bans()
	if !slices.ContainsFunc(bans, func(b Ban) bool { return b.Name == "192.0.2.7/32" && b.Until.After(time.Now()) }) {
		t.Errorf("bans: %v", bans)
	}
	if n := d.ClearBans("192.0.2.7"); n != 2 { // its network, too
		t.Errorf("%d cleared", n)
	}
	_, err = d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "secret of alice@example.org"))
	must(t, err)
}

// TestFailureDelay: every failure takes as long, whatever was wrong.
func TestFailureDelay(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	d.failureDelay = 50 * time.Millisecond
	for i, c := range []Credentials{
		from("192.0.2.1", "alice@example.org", "x"), from("192.0.2.2", "nobody@example.org", "x"), from("192.0.2.3", "no address@", "x"),
	} {
		began := time.Now()
		_, err := d.Authenticate(ctx, c)
		wantErr(t, "a failure", err, ErrBadCredentials)
		if took := time.Since(began); took < d.failureDelay {
			t.Errorf("failure %d took only %v", i, took)
		}
	}

	// Whatever else was wrong takes as long as one more guess.
	addUsers(t, d, "disabled@example.org", "app@example.org", "changed@example.org")
	_, err := d.AddAppPassword(ctx, "app@example.org", "phone")
	must(t, errors.Join(err, d.SetEnabled(ctx, "disabled@example.org", false), d.SetAppOnly(ctx, "app@example.org", true),
		d.SetPassword(ctx, "changed@example.org", plain(t, "new"))))
	for i, user := range []string{"alice", "disabled", "app", "changed"} {
		client := fmt.Sprintf("192.0.3.%d", i)
		for _, guess := range []string{"a", "b"} {
			_, err := d.Authenticate(ctx, from(client, "nobody@example.org", guess))
			wantErr(t, "a guess", err, ErrBadCredentials)
		}
		began := time.Now()
		_, err := d.Authenticate(ctx, from(client, user+"@example.org", map[bool]string{true: "wrong", false: "secret of " + user + "@example.org"}[user == "alice"]))
		wantErr(t, user, err, ErrBadCredentials)
		if took := time.Since(began); took < 3*d.failureDelay { // nearly four: they fade
			t.Errorf("%s: the third failure took only %v", user, took)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	d.failureDelay = time.Hour
	_, err = d.Authenticate(ended, from("192.0.2.1", "alice@example.org", "y"))
	if err == nil {
		t.Error("a wrong password was taken")
	}
}
