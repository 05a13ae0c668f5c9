package auth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDomains(t *testing.T) {
	ctx := context.Background()
	d := open(t, "")
	if name, err := d.FirstDomain(ctx); name != "" || err != nil {
		t.Errorf("first domain of none: %q, %v", name, err)
	}
	must(t, d.AddDomain(ctx, "Zebra.example.", ""))
	must(t, d.AddDomain(ctx, "bücher.example", "Info@bücher.example"))
	addUsers(t, d, "alice@zebra.example", "bob@zebra.example")
	addAlias(t, d, "sales@zebra.example", "alice@zebra.example")
	must(t, d.AddDomain(ctx, "a.example", "sales@zebra.example"))

	wantErr(t, "twice", d.AddDomain(ctx, "zebra.EXAMPLE", ""), ErrExists)
	wantErr(t, "no name", d.AddDomain(ctx, "a_b.example", ""), ErrBadAddress)
	wantErr(t, "postmaster unknown", d.AddDomain(ctx, "b.example", "nobody@zebra.example"), ErrNotFound)
	wantErr(t, "postmaster elsewhere", d.AddDomain(ctx, "b.example", "nobody@elsewhere.example"), ErrNotFound)
	wantErr(t, "postmaster no user", d.AddDomain(ctx, "b.example", `"a b"@b.example`), ErrBadAddress)

	got, err := d.Domains(ctx)
	must(t, err)
	want := []Domain{
		{Name: "zebra.example", Postmaster: "alice@zebra.example", Users: 2, Aliases: 1},
		{Name: "xn--bcher-kva.example", Postmaster: "info@xn--bcher-kva.example"},
		{Name: "a.example", Postmaster: "sales@zebra.example"},
	}
	for i := range got {
		if age := time.Since(got[i].Created); age < -time.Minute || age > time.Hour {
			t.Errorf("created %v", got[i].Created)
		}
		got[i].Created = time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if name, err := d.FirstDomain(ctx); name != "zebra.example" || err != nil {
		t.Errorf("first domain: %q, %v", name, err)
	}
}

func TestUsers(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com")
	clock := time.Unix(1_700_000_000, 5).UTC()
	d.now = func() time.Time { return clock }
	u, err := d.AddUser(ctx, "Alice@Example.ORG", plain(t, "pw"))
	must(t, err)
	at := clock.Truncate(time.Second)
	want := User{Address: "alice@example.org", Domain: "example.org", Enabled: true, Created: at, Changed: at}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
	addUsers(t, d, "bob@example.com")
	addAlias(t, d, "info@example.org", "alice@example.org")

	for addr, kind := range map[string]error{
		"ALICE@example.org":   ErrExists,
		"info@example.org":    ErrExists,
		"carol@example.net":   ErrNotFound,
		"@example.org":        ErrBadAddress,
		"carol@[127.0.0.1]":   ErrBadAddress,
		"a/b@example.org":     ErrBadAddress,
		`"a b"@example.org`:   ErrBadAddress,
		"nobody@example.org.": nil,
	} {
		_, err := d.AddUser(ctx, addr, plain(t, "pw"))
		wantErr(t, "add "+addr, err, kind)
	}
	_, err = d.AddUser(ctx, "dave@example.org", Secret{})
	wantErr(t, "no secret", err, ErrBadSecret)

	clock = clock.Add(time.Hour)
	must(t, d.SetEnabled(ctx, "alice@example.org", false))
	want.Enabled, want.Changed = false, clock.Truncate(time.Second)
	if u, err = d.User(ctx, "alice@EXAMPLE.org."); err != nil || u != want {
		t.Errorf("user %+v, %v", u, err)
	}
	all, err := d.Users(ctx, "")
	if err != nil || len(all) != 3 || all[0] != want || all[2].Address != "bob@example.com" {
		t.Errorf("users %+v, %v", all, err)
	}
	one, err := d.Users(ctx, "EXAMPLE.com")
	if err != nil || len(one) != 1 {
		t.Errorf("users %+v, %v", one, err)
	}
	_, err = d.Users(ctx, "example.net")
	wantErr(t, "users of an unknown domain", err, ErrNotFound)
	_, err = d.User(ctx, "info@example.org")
	wantErr(t, "alias as user", err, ErrNotFound)
	wantErr(t, "disable alias", d.SetEnabled(ctx, "info@example.org", false), ErrNotFound)
	wantErr(t, "password of nobody", d.SetPassword(ctx, "x@example.org", plain(t, "x")), ErrNotFound)
	wantErr(t, "password of none", d.SetPassword(ctx, "x", plain(t, "x")), ErrBadAddress)
	_, err = d.RemoveUser(ctx, "info@example.org")
	wantErr(t, "remove alias as user", err, ErrNotFound)
}

func TestRemoveUserSettlesAliases(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com")
	addUsers(t, d, "alice@example.org", "bob@example.org")
	addAlias(t, d, "one@example.com", "alice@example.org")
	addAlias(t, d, "two@example.com", "one@example.com")
	addAlias(t, d, "@example.com", "two@example.com")
	addAlias(t, d, "both@example.com", "alice@example.org", "two@example.com", "bob@example.org")

	gone, err := d.RemoveUser(ctx, "alice@example.org")
	must(t, err)
	want := Removal{
		Users:   []string{"alice@example.org"},
		Aliases: []string{"one@example.com", "two@example.com", "@example.com"},
	}
	if diff := cmp.Diff(want, gone); diff != "" {
		t.Error(diff)
	}
	left, err := d.Aliases(ctx, "")
	must(t, err)
	if diff := cmp.Diff([]Alias{{Address: "both@example.com", Targets: []string{"bob@example.org"}}}, left); diff != "" {
		t.Error(diff)
	}
	domains, err := d.Domains(ctx)
	must(t, err)
	if domains[0].Postmaster != "bob@example.org" || domains[1].Postmaster != "" {
		t.Errorf("postmasters %+v", domains)
	}
	if _, err := d.RemoveUser(ctx, "bob@example.org"); err != nil {
		t.Fatal(err)
	}
	if domains, err = d.Domains(ctx); err != nil || domains[0].Postmaster != "" || domains[1].Aliases != 0 {
		t.Errorf("domains %+v, %v", domains, err)
	}
	addUsers(t, d, "carol@example.org")
	if domains, err = d.Domains(ctx); err != nil || domains[0].Postmaster != "carol@example.org" {
		t.Errorf("domains %+v, %v", domains, err)
	}
}

func TestRemoveDomain(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com")
	addUsers(t, d, "alice@example.org", "bob@example.com")
	addAlias(t, d, "info@example.org", "alice@example.org")
	addAlias(t, d, `"a b"@example.org`, "bob@example.com")
	addAlias(t, d, "to-alice@example.com", "info@example.org")
	addAlias(t, d, "to-both@example.com", "info@example.org", "bob@example.com")
	must(t, d.AddDomain(ctx, "example.net", "alice@example.org"))

	_, err := d.RemoveDomain(ctx, "example.org", RemoveOptions{})
	var notEmpty *DomainNotEmptyError
	if !errors.As(err, &notEmpty) || !errors.Is(err, ErrDomainNotEmpty) || notEmpty.Users != 1 || notEmpty.Aliases != 2 {
		t.Errorf("not empty: %v", err)
	}
	gone, err := d.RemoveDomain(ctx, "Example.ORG.", RemoveOptions{WithUsers: true})
	must(t, err)
	want := Removal{
		Users:   []string{"alice@example.org"},
		Aliases: []string{`"a b"@example.org`, "info@example.org", "to-alice@example.com"},
	}
	if diff := cmp.Diff(want, gone); diff != "" {
		t.Error(diff)
	}
	left, err := d.Aliases(ctx, "")
	must(t, err)
	if diff := cmp.Diff([]Alias{{Address: "to-both@example.com", Targets: []string{"bob@example.com"}}}, left); diff != "" {
		t.Error(diff)
	}
	domains, err := d.Domains(ctx)
	if err != nil || len(domains) != 2 || domains[1].Name != "example.net" || domains[1].Postmaster != "" {
		t.Errorf("domains %+v, %v", domains, err)
	}
	_, err = d.RemoveDomain(ctx, "example.org", RemoveOptions{})
	wantErr(t, "twice", err, ErrNotFound)
	if _, err = d.RemoveDomain(ctx, "example.net", RemoveOptions{}); err != nil {
		t.Errorf("empty domain: %v", err)
	}
	_, err = d.Resolve(ctx, "alice", "example.org")
	wantErr(t, "recipient in the removed domain", err, ErrNotHosted)
}

// What the command line prints: the thing, and what to do about it.
func TestErrorTexts(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	addAlias(t, d, "info@example.org", "alice@example.org")
	addAlias(t, d, "team@example.org", "info@example.org")
	_, addUser := d.AddUser(ctx, "bob@example.net", plain(t, "x"))
	_, addTwice := d.AddUser(ctx, "alice@example.org", plain(t, "x"))
	_, remove := d.RemoveDomain(ctx, "example.org", RemoveOptions{})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{addUser, `domain example.net is not hosted here; add it with "restante domain add example.net"`},
		{addTwice, `user alice@example.org exists already; set a password with "restante user passwd alice@example.org"`},
		{remove, "domain example.org still has 1 user and 2 aliases; "},
		{d.AddAlias(ctx, "info@example.org", []string{"team@example.org"}),
			"alias info@example.org cannot lead to team@example.org, which leads back to it: info@example.org -> team@example.org -> info@example.org"},
		{d.AddAlias(ctx, "x@example.org", []string{"bob@elsewhere.example"}), "target bob@elsewhere.example is not hosted here; "},
		{d.AddDomain(ctx, "a b", ""), `invalid address "a b": the domain has the character " "`},
	} {
		if tt.err == nil || !strings.HasPrefix(tt.err.Error(), tt.want) || strings.HasSuffix(tt.err.Error(), ".") {
			t.Errorf("error %q, want %q", tt.err, tt.want)
		}
	}
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "odd ?name%20#.db")
	d := open(t, path)
	must(t, d.AddDomain(ctx, "example.org", ""))
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	must(t, d.Close())
	must(t, os.Chmod(path, 0o644))
	d = open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode not put right: %v, %v", info, err)
	}
	if domains, err := d.Domains(ctx); err != nil || len(domains) != 1 {
		t.Errorf("domains %v, %v", domains, err)
	}
	_, err := d.db.Exec(`PRAGMA user_version = 1000`)
	must(t, err)
	if _, err := Open(ctx, path, Options{}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("newer schema: %v", err)
	}
	if _, err := Open(ctx, path, Options{Hash: HashParams{Memory: 1}}); err == nil {
		t.Error("bad hash parameters were taken")
	}
	junk := filepath.Join(t.TempDir(), "junk.db")
	must(t, os.WriteFile(junk, []byte(strings.Repeat("no database ", 1000)), 0o600))
	if _, err := Open(ctx, junk, Options{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("junk: %v", err)
	}
	if _, err := Open(ctx, filepath.Join(t.TempDir(), "no", "dir.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestClosed(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	account, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
	must(t, err)
	must(t, d.Close())
	if _, err := d.Resolve(ctx, "alice", "example.org"); err == nil || errors.Is(err, ErrNoSuchUser) || errors.Is(err, ErrNotHosted) {
		t.Errorf("resolve: %v", err)
	}
	if _, err := d.Authenticate(ctx, as("alice@example.org", "x")); err == nil || errors.Is(err, ErrBadCredentials) {
		t.Errorf("authenticate: %v", err)
	}
	if account.Alive(ctx) {
		t.Error("alive without a directory")
	}
}
