package auth

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/text/unicode/norm"
)

// TestFailureAgain: a login that failed is hashed once, whatever was wrong with it, and
// the reason stays the same; what changes makes it be looked at again.
func TestFailureAgain(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "bob@example.org", "disabled@example.org", "app@example.org")
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "now")))
	must(t, d.SetEnabled(ctx, "disabled@example.org", false))
	must(t, d.SetAppOnly(ctx, "app@example.org", true))
	for _, test := range []struct {
		user, password string
		want           error
	}{
		{"alice@example.org", "wrong", errBadPassword},
		{"alice@example.org", "secret of alice@example.org", errOldPassword},
		{"bob@example.org", "wrong", errBadPassword},
		{"nobody@example.org", "wrong too", errUnknownUser},
		{"disabled@example.org", "wrong", errBadPassword},
		{"disabled@example.org", "secret of disabled@example.org", errDisabledUser},
		{"app@example.org", "wrong", errBadPassword},
		{"app@example.org", "secret of app@example.org", errAppOnly},
	} {
		hashed := countHashes(d)
		for range 20 {
			_, err := d.Authenticate(ctx, from("192.0.2.7", test.user, test.password))
			wantErr(t, test.user+" again", err, test.want)
		}
		if n := hashed(); n != 1 {
			t.Errorf("%s, %q: hashed %d times", test.user, test.password, n)
		}
	}
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "wrong")))
	must(t, d.SetEnabled(ctx, "disabled@example.org", true))
	must(t, d.SetAppOnly(ctx, "app@example.org", false))
	for user, password := range map[string]string{"alice": "wrong", "disabled": "secret of disabled@example.org", "app": "secret of app@example.org"} {
		hashed := countHashes(d)
		_, err := d.Authenticate(ctx, from("192.0.2.7", user+"@example.org", password))
		wantErr(t, user+", after a change", err, nil)
		if n := hashed(); n != 1 {
			t.Errorf("%s, after a change: hashed %d times", user, n)
		}
	}
}

// TestBorrowedPassword: a name that nobody has borrows the hash of somebody, whose
// password is no better there than any other.
func TestBorrowedPassword(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	hashed := countHashes(d)
	for range 5 {
		_, err := d.Authenticate(ctx, from("192.0.2.7", "nobody@example.org", "secret of alice@example.org"))
		wantErr(t, "a name that nobody has", err, errUnknownUser)
	}
	if n := hashed(); n != 1 {
		t.Errorf("hashed %d times", n)
	}
}

// TestOldPasswordIsAGuess: who guesses is held back as long, and refused as soon, if one
// guess was the password before the last change. It would tell that there is the user.
func TestOldPasswordIsAGuess(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "now")))
	for i, first := range []string{"wrong", "secret of alice@example.org"} {
		client := fmt.Sprintf("198.51.%d.1", i)
		for n := range 10 {
			guess := first
			if n > 0 {
				guess = fmt.Sprint("guess ", n)
			}
			_, failures, err := d.authenticate(ctx, from(client, "alice@example.org", guess))
			wantErr(t, guess, err, ErrBadCredentials)
			if math.Round(failures) != float64(n+1) {
				t.Errorf("%q, then %d others: %v failures", first, n, failures)
			}
		}
		_, err := d.Authenticate(ctx, from(client, "alice@example.org", "guess 10"))
		wantErr(t, "the guess after ten", err, ErrThrottled)
	}
}

// TestForgottenPhone: a device that has the password before the last change and comes
// every five minutes for days is never refused, and neither is its user, there or
// elsewhere.
func TestForgottenPhone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restante.db")
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d, err := Open(ctx, path, Options{Hash: cheap})
		must(t, err)
		defer d.Close()
		must(t, d.AddDomain(ctx, "example.org", ""))
		addUsers(t, d, "alice@example.org")
		must(t, d.SetPassword(ctx, "alice@example.org", plain(t, "now")))
		for poll := range 2 * 24 * 12 {
			_, failures, err := d.authenticate(ctx, from("192.0.2.7", "alice@example.org", "secret of alice@example.org"))
			wantErr(t, "the phone", err, errOldPassword)
			if failures > 1 {
				t.Fatalf("poll %d: the phone has %v failures", poll, failures)
			}
			time.Sleep(5 * time.Minute)
		}
		for _, client := range []string{"192.0.2.7", "203.0.113.1"} {
			_, err := d.Authenticate(ctx, from(client, "alice@example.org", "now"))
			wantErr(t, "its user, from "+client, err, nil)
		}
	})
}

// TestForgottenOffice: the passwords of all in an office are reset, and every device
// there goes on with the old one. A colleague is never refused, and the users are not
// when they type the new one; nor is anybody who comes by way of an exempt web mail.
func TestForgottenOffice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restante.db")
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d, err := Open(ctx, path, Options{Hash: cheap, Exempt: netip.Addr.IsLoopback})
		must(t, err)
		defer d.Close()
		must(t, d.AddDomain(ctx, "example.org", ""))
		offices := []string{"192.0.2.7", "127.0.0.1"}
		logIn := func(user, password string, want error) {
			t.Helper()
			for _, office := range offices {
				_, failures, err := d.authenticate(ctx, from(office, user, password))
				wantErr(t, user+" from "+office, err, want)
				if failures > 1 {
					t.Fatalf("%s from %s: %v failures", user, office, failures)
				}
			}
		}
		addUsers(t, d, "colleague@example.org")
		users := make([]string, 20)
		for i := range users {
			users[i] = fmt.Sprintf("user%d@example.org", i)
			addUsers(t, d, users[i])
			logIn(users[i], "secret of "+users[i], nil)
			must(t, d.SetPassword(ctx, users[i], plain(t, "new of "+users[i])))
		}
		for range 24 * 12 {
			for _, user := range users {
				logIn(user, "secret of "+user, errOldPassword)
			}
			logIn("colleague@example.org", "secret of colleague@example.org", nil)
			time.Sleep(5 * time.Minute)
		}
		for _, user := range users {
			logIn(user, "new of "+user, nil)
		}
	})
}

// TestAppPasswordOfRefusedAccount: guesses from everywhere lock nobody out who has an
// app password.
func TestAppPasswordOfRefusedAccount(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	phone, err := d.AddAppPassword(ctx, "alice@example.org", "phone")
	must(t, err)
	for i := range 25 {
		_, _ = d.Authenticate(ctx, from(fmt.Sprintf("198.%d.2.1", i), "alice@example.org", "guess"))
	}
	_, err = d.Authenticate(ctx, from("203.0.113.1", "alice@example.org", "secret of alice@example.org"))
	wantErr(t, "the password", err, ErrThrottled)
	_, err = d.Authenticate(ctx, from("203.0.113.1", "alice@example.org", strings.ToUpper("aaaa-"+phone)))
	wantErr(t, "no app password", err, ErrThrottled)
	account, err := d.Authenticate(ctx, from("203.0.113.1", "alice@example.org", phone))
	if err != nil || account.AppPassword != "phone" || !account.Alive(ctx) {
		t.Fatalf("the app password: %+v, %v", account, err)
	}
	must(t, d.SetEnabled(ctx, "alice@example.org", false))
	_, err = d.Authenticate(ctx, from("203.0.113.1", "alice@example.org", phone))
	wantErr(t, "of a user who is disabled", err, ErrThrottled)
	if account.Alive(ctx) {
		t.Error("the session goes on")
	}
}

// TestPanicInLogin: what goes wrong in one login is in the way of no other.
func TestPanicInLogin(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	derive := d.hasher.derive
	for range 20 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			d.hasher.derive = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte { panic("broken") }
			_, _ = d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "x"))
		}()
	}
	d.hasher.derive = derive
	_, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "secret of alice@example.org"))
	must(t, err)
}

// TestImportedCosts: a hash that strangers could keep the server busy with is not
// brought in, and one that is there is replaced.
func TestImportedCosts(t *testing.T) {
	const rest = "$JJgj8IAOnDhhC13+YrF27Q$YlKbWaStPxa2cWuojQlFzZUQ8f03WRanztBsmL9p84k"
	for costs, ok := range map[string]bool{
		"m=65536,t=3,p=4": true, "m=131072,t=8,p=1": true, "m=19456,t=2,p=1": true,
		"m=1048576,t=1,p=1": false, "m=524288,t=8,p=64": false, "m=131072,t=9,p=1": false, "m=1024,t=4096,p=1": false,
	} {
		for _, scheme := range []string{"", "{ARGON2ID}"} {
			_, err := HashSecret(scheme + "$argon2id$v=19$" + costs + rest)
			if (err == nil) != ok || err != nil && !errors.Is(err, ErrBadSecret) {
				t.Errorf("%s%s: %v", scheme, costs, err)
			}
		}
	}
	h := newHasher(HashParams{Memory: 64, Time: 2, Parallel: 1})
	for _, test := range []struct {
		memory, time uint32
		want         bool
	}{{64, 2, false}, {256, 2, false}, {64, 8, false}, {257, 1, true}, {64, 9, true}, {63, 2, true}, {64, 1, true}} {
		if got := h.outdated(credential{memory: test.memory, time: test.time, threads: 1}); got != test.want {
			t.Errorf("%d KiB, %d passes: outdated %t", test.memory, test.time, got)
		}
	}
}

// TestImportedAsTyped: other systems hash a password as it comes, whatever form its
// letters have.
func TestImportedAsTyped(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	apart := norm.NFD.String("päss wörd-1")
	entries, err := ParseImport(strings.NewReader("alice@example.org:{PLAIN-MD5}" + md5Hex(apart) + "\n"))
	must(t, err)
	must(t, d.ImportUsers(ctx, entries))
	for range 2 {
		_, err = d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", "päss wörd-1"))
		wantErr(t, "in another form than it was hashed", err, errBadPassword)
	}
	for _, password := range []string{apart, "päss wörd-1", apart} { // hashed anew after the first
		if _, err := d.Authenticate(ctx, from("192.0.2.7", "alice@example.org", password)); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestHashErrorsShowNothing: what somebody brings in as a hash may be a password.
func TestHashErrorsShowNothing(t *testing.T) {
	for _, line := range []string{"$uperSecret1", "{uperSecret1}x", "{SSHA.uperSecret1}AAAA"} {
		_, err := ParseImport(strings.NewReader("alice@example.org:" + line + "\n"))
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "upersecret") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
