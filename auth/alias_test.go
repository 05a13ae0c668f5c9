package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAliases(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com")
	addUsers(t, d, "alice@example.org", "bob@example.com")
	addAlias(t, d, "Info@example.org", "alice@example.org")
	addAlias(t, d, "info@example.org", "BOB@example.com", "alice@example.org")
	addAlias(t, d, `"John Doe"@example.org`, "info@example.org")
	addAlias(t, d, "@example.com", `"john doe"@example.org`)
	addAlias(t, d, "a/b@example.com", "bob@example.com")

	want := []Alias{
		{Address: "info@example.org", Targets: []string{"alice@example.org", "bob@example.com"}},
		{Address: `"john doe"@example.org`, Targets: []string{"info@example.org"}},
		{Address: "@example.com", Targets: []string{`"john doe"@example.org`}},
		{Address: "a/b@example.com", Targets: []string{"bob@example.com"}},
	}
	got, err := d.Aliases(ctx, "")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err = d.Aliases(ctx, "example.COM"); err != nil || len(got) != 2 {
		t.Errorf("aliases %v, %v", got, err)
	}
	_, err = d.Aliases(ctx, "example.net")
	wantErr(t, "aliases of an unknown domain", err, ErrNotFound)
}

func TestAddAliasRefuses(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "bob@example.org")
	addAlias(t, d, "one@example.org", "alice@example.org")
	addAlias(t, d, "two@example.org", "one@example.org")
	addAlias(t, d, "three@example.org", "two@example.org")
	before, err := d.Aliases(ctx, "")
	must(t, err)
	for _, tt := range []struct {
		alias   string
		targets []string
		want    error
	}{
		{"x@example.org", nil, ErrBadAddress},
		{"x@example.org", []string{"nonsense"}, ErrBadAddress},
		{"x@example.org", []string{"@example.org"}, ErrBadAddress},
		{"@", []string{"alice@example.org"}, ErrBadAddress},
		{strings.Repeat("a", 65) + "@example.org", []string{"alice@example.org"}, ErrBadAddress},
		{"x@example.net", []string{"alice@example.org"}, ErrNotFound},
		{"x@example.org", []string{"alice@example.net"}, ErrNotFound},
		{"x@example.org", []string{"alice@example.org", "carol@example.org"}, ErrNotFound},
		{"x@example.org", []string{"alice+detail@example.org"}, ErrNotFound},
		{"alice@example.org", []string{"bob@example.org"}, ErrExists},
		{"x@example.org", []string{"x@example.org"}, ErrAliasLoop},
		{"one@example.org", []string{"ONE@example.org"}, ErrAliasLoop},
		{"one@example.org", []string{"bob@example.org", "two@example.org"}, ErrAliasLoop},
		{"one@example.org", []string{"three@example.org"}, ErrAliasLoop},
	} {
		wantErr(t, fmt.Sprint(tt.alias, tt.targets), d.AddAlias(ctx, tt.alias, tt.targets), tt.want)
	}
	// All or nothing: what stood before a bad target was not kept.
	after, err := d.Aliases(ctx, "")
	must(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}

func TestRemoveAlias(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org", "bob@example.org")
	addAlias(t, d, "one@example.org", "alice@example.org", "bob@example.org")
	addAlias(t, d, "two@example.org", "one@example.org")
	addAlias(t, d, "@example.org", "two@example.org", "bob@example.org")
	must(t, d.AddDomain(ctx, "example.com", "two@example.org"))

	for _, tt := range []struct {
		alias   string
		targets []string
		want    error
	}{
		{"alice@example.org", nil, ErrNotFound},
		{"x@example.org", nil, ErrNotFound},
		{"x@example.net", nil, ErrNotFound},
		{"x", nil, ErrBadAddress},
		{"one@example.org", []string{"two@example.org"}, ErrNotFound},
		{"one@example.org", []string{"x@example.org"}, ErrNotFound},
		{"one@example.org", []string{"alice@example.org", "two@example.org"}, ErrNotFound},
		{"two@example.org", []string{"alice@example.org"}, ErrNotFound}, // only through one@
	} {
		_, err := d.RemoveAlias(ctx, tt.alias, tt.targets...)
		wantErr(t, fmt.Sprint(tt.alias, tt.targets), err, tt.want)
	}
	gone, err := d.RemoveAlias(ctx, "one@example.org", "Alice@example.org")
	if err != nil || gone.Aliases != nil {
		t.Errorf("one of two targets: %v, %v", gone, err)
	}
	gone, err = d.RemoveAlias(ctx, "one@example.org")
	must(t, err)
	if diff := cmp.Diff(Removal{Aliases: []string{"one@example.org", "two@example.org"}}, gone); diff != "" {
		t.Error(diff)
	}
	if domains, err := d.Domains(ctx); err != nil || domains[1].Postmaster != "" {
		t.Errorf("domains %v, %v", domains, err)
	}
	gone, err = d.RemoveAlias(ctx, "@example.org", "bob@example.org")
	must(t, err)
	if diff := cmp.Diff(Removal{Aliases: []string{"@example.org"}}, gone); diff != "" {
		t.Error(diff)
	}
}

func TestAliasReach(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	addUsers(t, d, "alice@example.org")
	name := func(i int) string { return fmt.Sprintf("a%d@example.org", i) }
	addAlias(t, d, name(1), "alice@example.org")
	// Built with one statement: a thousand synchronous commits take long.
	_, err := d.db.Exec(`
		WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
		INSERT INTO addresses (id, domain, local) SELECT 100 + i, 1, 'a' || i FROM n`)
	must(t, err)
	_, err = d.db.Exec(`
		INSERT INTO targets SELECT a.id, b.id FROM addresses a JOIN addresses b ON b.local = 'a' || (substr(a.local, 2) - 1)
		WHERE a.id > 100`)
	must(t, err)
	must(t, d.AddAlias(ctx, name(1000), []string{name(999)}))
	wantErr(t, "too deep", d.AddAlias(ctx, "top@example.org", []string{name(1000)}), ErrBadAddress)
	r, err := d.Resolve(ctx, "a1000", "example.org")
	if err != nil || !slices.Equal(r.Mailboxes, []string{"alice@example.org"}) {
		t.Errorf("the deepest nest: %v, %v", r, err)
	}
	addUsers(t, d, "bob@example.org")
	wantErr(t, "too many above", d.AddAlias(ctx, name(500), []string{"bob@example.org"}), ErrBadAddress)
}

// Whatever is added and removed, in any order: no loops, no alias without a
// user behind it, and Resolve agrees with a model.
func TestAliasModel(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org")
	names := []string{"a@example.org", "b@example.org", "c@example.org", "d@example.org", "e@example.org", "f@example.org"}
	users := names[:2]
	rapid.Check(t, func(rt *rapid.T) {
		must(t, ignore(d.RemoveDomain(ctx, "example.org", RemoveOptions{WithUsers: true})))
		must(t, d.AddDomain(ctx, "example.org", ""))
		addUsers(t, d, users...)
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			from, to := rapid.SampledFrom(names).Draw(rt, "from"), rapid.SampledFrom(names).Draw(rt, "to")
			var err error
			if rapid.IntRange(0, 3).Draw(rt, "remove") == 0 {
				_, err = d.RemoveAlias(ctx, from, to)
			} else {
				err = d.AddAlias(ctx, from, []string{to})
			}
			if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrAliasLoop) {
				rt.Fatal(err)
			}
			checkModel(rt, d, users)
		}
	})
}

func ignore(_ Removal, err error) error { return err }

func checkModel(rt *rapid.T, d *Directory, users []string) {
	ctx := context.Background()
	aliases, err := d.Aliases(ctx, "")
	if err != nil {
		rt.Fatal(err)
	}
	targets := make(map[string][]string)
	for _, a := range aliases {
		targets[a.Address] = a.Targets
	}
	var reach func(name string, way []string) []string
	reach = func(name string, way []string) []string {
		if slices.Contains(way, name) {
			rt.Fatalf("loop at %s in %v", name, aliases)
		}
		if slices.Contains(users, name) {
			return []string{name}
		}
		var all []string
		for _, t := range targets[name] {
			all = append(all, reach(t, append(way, name))...)
		}
		return all
	}
	for name := range targets {
		want := slices.Compact(slices.Sorted(slices.Values(reach(name, nil))))
		r, err := d.Resolve(ctx, strings.TrimSuffix(name, "@example.org"), "example.org")
		if err != nil || !slices.Equal(slices.Sorted(slices.Values(r.Mailboxes)), want) || len(want) == 0 {
			rt.Fatalf("%s leads to %v, %v; want %v", name, r.Mailboxes, err, want)
		}
	}
}
