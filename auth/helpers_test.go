package auth

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// cheap are hash costs for tests.
var cheap = HashParams{Memory: 64, Time: 1, Threads: 1}

// open opens the directory at path, a new one if path is "".
func open(t testing.TB, path string) *Directory {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "restante.db")
	}
	d, err := Open(context.Background(), path, Options{Hash: cheap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// hosting opens a new directory with these domains.
func hosting(t testing.TB, domains ...string) *Directory {
	t.Helper()
	d := open(t, "")
	for _, name := range domains {
		must(t, d.AddDomain(context.Background(), name, ""))
	}
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr fails unless err is of the kind; nil is no error.
func wantErr(t testing.TB, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: error %v, want %v", what, err, kind)
	}
}

func plain(t testing.TB, password string) Secret {
	t.Helper()
	s, err := PlainSecret(password)
	must(t, err)
	return s
}

func addUsers(t testing.TB, d *Directory, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		_, err := d.AddUser(context.Background(), a, plain(t, "secret of "+a))
		must(t, err)
	}
}

func addAlias(t testing.TB, d *Directory, alias string, targets ...string) {
	t.Helper()
	must(t, d.AddAlias(context.Background(), alias, targets))
}

// as are the credentials of a client of which nothing is known.
func as(user, password string) Credentials { return Credentials{User: user, Password: password} }
