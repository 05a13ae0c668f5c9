package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// busy is a directory with one of each.
func busy(t testing.TB) *Directory {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com", "empty.example", "bücher.example")
	addUsers(t, d, "alice@example.org", "bob@example.org", "bob+exact@example.org", "carol@example.com", "off@example.org", "off2@example.org", "jörg@bücher.example")
	must(t, d.SetEnabled(ctx, "off@example.org", false))
	must(t, d.SetEnabled(ctx, "off2@example.org", false))
	addAlias(t, d, "info@example.org", "alice@example.org")
	addAlias(t, d, "info+news@example.org", "bob@example.org")
	addAlias(t, d, "team@example.org", "info@example.org", "alice@example.org", "bob@example.org", "off@example.org", "carol@example.com")
	addAlias(t, d, "gone@example.org", "off@example.org", "off2@example.org")
	addAlias(t, d, `"John Doe"@example.org`, "bob@example.org")
	addAlias(t, d, "@example.com", "bob@example.org")
	return d
}

func TestResolve(t *testing.T) {
	d := busy(t)
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		local, domain string
		address       string
		mailboxes     string // or the error
		err           error
	}{
		{"alice", "example.org", "alice@example.org", "alice@example.org", nil},
		{"ALICE", "Example.ORG.", "alice@example.org", "alice@example.org", nil},
		{"JÖRG", "BÜCHER.example", "jörg@xn--bcher-kva.example", "jörg@xn--bcher-kva.example", nil},
		{"alice+Detail", "example.org", "alice+detail@example.org", "alice@example.org", nil},
		{"alice+a+b", "example.org", "alice+a+b@example.org", "alice@example.org", nil},
		{"alice+", "example.org", "alice+@example.org", "alice@example.org", nil},
		{"alice+a b", "example.org", `"alice+a b"@example.org`, "alice@example.org", nil},
		{"alice+" + long, "example.org", "alice+" + long + "@example.org", "alice@example.org", nil},
		{"bob+exact", "example.org", "bob+exact@example.org", "bob+exact@example.org", nil},
		{"bob+other", "example.org", "bob+other@example.org", "bob@example.org", nil},
		{"info", "example.org", "info@example.org", "alice@example.org", nil},
		{"info+x", "example.org", "info+x@example.org", "alice@example.org", nil},
		{"info+news", "example.org", "info+news@example.org", "bob@example.org", nil},
		{"team", "example.org", "team@example.org", "alice@example.org bob@example.org carol@example.com", nil},
		{"john doe", "example.org", `"john doe"@example.org`, "bob@example.org", nil},
		{"whoever", "example.com", "whoever@example.com", "bob@example.org", nil},
		{"carol", "example.com", "carol@example.com", "carol@example.com", nil},
		{"carol+x", "example.com", "carol+x@example.com", "carol@example.com", nil},
		{"postmaster", "example.org", "postmaster@example.org", "alice@example.org", nil},
		{"Abuse", "example.org", "abuse@example.org", "alice@example.org", nil},
		{"postmaster", "example.com", "postmaster@example.com", "carol@example.com", nil},
		{"PostMaster", "", "postmaster@example.org", "alice@example.org", nil},

		{"nobody", "example.org", "", "", ErrNoSuchUser},
		{"nobody+alice", "example.org", "", "", ErrNoSuchUser},
		{"+alice", "example.org", "", "", ErrNoSuchUser},
		{"postmaster+x", "example.org", "", "", ErrNoSuchUser},
		{"a@b", "example.org", "", "", ErrNoSuchUser},
		{"../alice", "example.org", "", "", ErrNoSuchUser},
		{"off", "example.org", "", "", ErrDisabled},
		{"off+x", "example.org", "", "", ErrDisabled},
		{"gone", "example.org", "", "", ErrDisabled},
		{"alice", "elsewhere.example", "", "", ErrNotHosted},
		{"postmaster", "elsewhere.example", "", "", ErrNotHosted},
		{"alice", "www.example.org", "", "", ErrNotHosted},
		{"alice", "[127.0.0.1]", "", "", ErrNotHosted},
		{"postmaster", "empty.example", "", "", ErrNoPostmaster},
		{"abuse", "empty.example", "", "", ErrNoPostmaster},
		{"anyone", "empty.example", "", "", ErrNoSuchUser},
		{"alice", "", "", "", ErrBadAddress},
		{"", "", "", "", ErrBadAddress},
		{"", "example.org", "", "", ErrBadAddress},
		{"", "example.com", "", "", ErrBadAddress}, // not the catch-all's own name
		{"a\x00", "example.org", "", "", ErrBadAddress},
		{"a\u202e", "example.org", "", "", ErrBadAddress},
		{"a\xff", "example.org", "", "", ErrBadAddress},
		{"alice", "exa mple.org", "", "", ErrBadAddress},
		{"alice", "127.0.0.1", "", "", ErrBadAddress},
		{strings.Repeat("x", 300), "example.org", "", "", ErrBadAddress},
	} {
		r, err := d.Resolve(context.Background(), tt.local, tt.domain)
		if !errors.Is(err, tt.err) || r.Address != tt.address || strings.Join(r.Mailboxes, " ") != tt.mailboxes {
			t.Errorf("Resolve(%q, %q) = %q, %v", tt.local, tt.domain, r, err)
		}
	}
}

func TestResolveRoles(t *testing.T) {
	ctx := context.Background()
	d := open(t, "")
	resolves := func(local, domain string, want string, kind error) {
		t.Helper()
		r, err := d.Resolve(ctx, local, domain)
		if !errors.Is(err, kind) || strings.Join(r.Mailboxes, " ") != want {
			t.Errorf("Resolve(%q, %q) = %v, %v; want %q, %v", local, domain, r, err, want, kind)
		}
	}
	resolves("postmaster", "", "", ErrNoPostmaster) // nothing hosted
	must(t, d.AddDomain(ctx, "example.org", "root@example.org"))
	addUsers(t, d, "alice@example.org")
	resolves("postmaster", "example.org", "", ErrNoPostmaster) // named, not made yet
	addAlias(t, d, "@example.org", "alice@example.org")
	resolves("postmaster", "example.org", "alice@example.org", nil) // better than nobody
	addUsers(t, d, "root@example.org")
	resolves("postmaster", "example.org", "root@example.org", nil)
	resolves("abuse", "example.org", "root@example.org", nil)
	resolves("postmaster", "", "root@example.org", nil)
	must(t, d.SetEnabled(ctx, "root@example.org", false))
	resolves("postmaster", "example.org", "", ErrNoPostmaster)
	must(t, d.SetEnabled(ctx, "root@example.org", true))

	must(t, d.AddDomain(ctx, "example.com", "root@example.org"))
	resolves("postmaster", "example.com", "root@example.org", nil)
	addUsers(t, d, "abuse@example.com")
	resolves("abuse", "example.com", "abuse@example.com", nil)
	resolves("postmaster", "example.com", "root@example.org", nil)
	addAlias(t, d, "postmaster@example.org", "alice@example.org", "root@example.org")
	resolves("postmaster", "", "alice@example.org root@example.org", nil)
	resolves("abuse", "example.org", "alice@example.org root@example.org", nil)
	resolves("postmaster", "example.com", "root@example.org", nil)

	if _, err := d.RemoveDomain(ctx, "example.org", RemoveOptions{WithUsers: true}); err != nil {
		t.Fatal(err)
	}
	resolves("postmaster", "example.com", "abuse@example.com", nil)
	resolves("postmaster", "", "abuse@example.com", nil) // the first domain is another now
	must(t, d.SetEnabled(ctx, "abuse@example.com", false))
	resolves("abuse", "example.com", "", ErrNoPostmaster)
}

func TestResolveSeparator(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	d.separator = "--"
	addUsers(t, d, "a-b@example.org")
	for local, kind := range map[string]error{"a-b": nil, "a-b--x": nil, "a-b-x": ErrNoSuchUser, "a-b+x": ErrNoSuchUser, "--": ErrNoSuchUser} {
		_, err := d.Resolve(ctx, local, "example.org")
		wantErr(t, local, err, kind)
	}
}

func TestResolveEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := busy(t).Resolve(ctx, "alice", "example.org")
	wantErr(t, "context ended", err, context.Canceled)
}

// A loop cannot be made, but a database can be edited.
func TestResolveLoopInDatabase(t *testing.T) {
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	addAlias(t, d, "one@example.org", "alice@example.org")
	addAlias(t, d, "two@example.org", "one@example.org")
	_, err := d.db.Exec(`INSERT INTO targets SELECT a.id, b.id FROM addresses a, addresses b WHERE a.local = 'one' AND b.local = 'two'`)
	must(t, err)
	r, err := d.Resolve(context.Background(), "two", "example.org")
	if err != nil || !slices.Equal(r.Mailboxes, []string{"alice@example.org"}) {
		t.Errorf("resolves to %v, %v", r, err)
	}
}
