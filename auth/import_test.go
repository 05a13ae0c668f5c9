package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseImport(t *testing.T) {
	hash := phc("m=64,t=1,p=1", salt16, key32)
	in := "\ufeff# comment: with colon\r\n" +
		"\n" +
		"  \t# indented\n" +
		"Alice@Example.org:{PLAIN}a:b #c \r\n" +
		" bob@example.org :" + hash + " \n" +
		"carol@bücher.example:{PLAIN}{PLAIN}"
	got, err := ParseImport(strings.NewReader(in))
	must(t, err)
	want := []ImportEntry{
		{Line: 4, Address: "alice@example.org", Secret: Secret{password: "a:b #c "}},
		{Line: 5, Address: "bob@example.org", Secret: Secret{hash: hash}},
		{Line: 6, Address: "carol@xn--bcher-kva.example", Secret: Secret{password: "{PLAIN}"}},
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries", len(got))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: %+v %q %q", i, got[i], got[i].Secret.password, got[i].Secret.hash)
		}
	}
	if got, err := ParseImport(strings.NewReader("#\n\n")); got != nil || err != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func TestParseImportErrors(t *testing.T) {
	lines := []string{
		"alice@example.org:{PLAIN}opensesame",
		"alice@example.org",
		"nonsense:{PLAIN}opensesame",
		"a/b@example.org:{PLAIN}opensesame",
		"bob@example.org:{PLAIN}",
		"bob@example.org:opensesame",
		"bob@example.org:{SSHA}opensesame",
		"bob@example.org:$2y$10$opensesame",
		"bob@example.org:{PLAIN}opensesame\x00",
		"ALICE@example.org.:{PLAIN}opensesame",
		"@example.org:{PLAIN}opensesame",
		"bob@example.org:{PLAIN}" + strings.Repeat("opensesame", 103),
	}
	entries, err := ParseImport(strings.NewReader(strings.Join(lines, "\n")))
	if entries != nil || err == nil {
		t.Fatalf("%v, %v", entries, err)
	}
	if strings.Contains(err.Error(), "opensesame") {
		t.Errorf("a secret shows: %v", err)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != len(lines)-1 {
		t.Fatalf("errors: %v", err)
	}
	for i, err := range joined.Unwrap() {
		var bad *ImportError
		if !errors.As(err, &bad) || bad.Line != i+2 || !strings.HasPrefix(err.Error(), fmt.Sprintf("line %d: ", i+2)) {
			t.Errorf("error %d: %v", i, err)
		}
	}
	_, err = ParseImport(strings.NewReader("a@b:{PLAIN}x\nb@b:{PLAIN}" + strings.Repeat("x", 10_000) + "\n"))
	var bad *ImportError
	if !errors.As(err, &bad) || bad.Line != 2 {
		t.Errorf("long line: %v", err)
	}
	_, err = ParseImport(iotest.ErrReader(io.ErrUnexpectedEOF))
	wantErr(t, "reader", err, io.ErrUnexpectedEOF)
}

func FuzzParseImport(f *testing.F) {
	f.Add("a@b.c:{PLAIN}x\n#\nd@e:" + phc("m=64,t=1,p=1", salt16, key32) + "\r\n")
	f.Add("\ufeffa@b:{PLAIN}x\na@b:{PLAIN}y")
	f.Add(":\n::\n@:{PLAIN}\n")
	f.Fuzz(func(t *testing.T, s string) {
		entries, err := ParseImport(strings.NewReader(s))
		if err != nil && entries != nil {
			t.Fatal("entries in spite of an error")
		}
		lines, seen := strings.Split(s, "\n"), make(map[string]bool)
		for _, e := range entries {
			a, err := ParseUser(e.Address)
			if err != nil || a.String() != e.Address || seen[e.Address] {
				t.Fatalf("address %q: %v", e.Address, err)
			}
			seen[e.Address] = true
			if (e.Secret.password == "") == (e.Secret.hash == "") {
				t.Fatalf("line %d has no one secret", e.Line)
			}
			if e.Line < 1 || e.Line > len(lines) || !strings.Contains(lines[e.Line-1], ":") {
				t.Fatalf("line %d of %d", e.Line, len(lines))
			}
		}
	})
}

func TestImportUsers(t *testing.T) {
	ctx := context.Background()
	d := hosting(t, "example.org", "example.com")
	addUsers(t, d, "alice@example.org")
	addAlias(t, d, "info@example.org", "alice@example.org")
	parse := func(lines ...string) []ImportEntry {
		t.Helper()
		entries, err := ParseImport(strings.NewReader(strings.Join(lines, "\n")))
		must(t, err)
		return entries
	}
	var w work
	w.watch(d)
	err := d.ImportUsers(ctx, parse("bob@example.org:{PLAIN}b", "alice@example.org:{PLAIN}a", "info@example.org:{PLAIN}i", "carol@example.net:{PLAIN}c"))
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Fatalf("errors: %v", err)
	}
	for i, kind := range []error{ErrExists, ErrExists, ErrNotFound} {
		var bad *ImportError
		if err := joined.Unwrap()[i]; !errors.As(err, &bad) || bad.Line != i+2 || !errors.Is(err, kind) {
			t.Errorf("error %d: %v", i, err)
		}
	}
	if got := w.take(); got != "" {
		t.Errorf("hashed %q for an import that fails", got)
	}
	if users, err := d.Users(ctx, ""); err != nil || len(users) != 1 {
		t.Errorf("users after a failed import: %v, %v", users, err)
	}

	must(t, d.ImportUsers(ctx, parse("bob@example.org:{PLAIN}b", "carol@example.com:"+mustHash(t, d, "c"))))
	for addr, password := range map[string]string{"bob@example.org": "b", "carol@example.com": "c"} {
		if _, err := d.Authenticate(ctx, as(addr, password)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if r, err := d.Resolve(ctx, "postmaster", "example.com"); err != nil || r.Mailboxes[0] != "carol@example.com" {
		t.Errorf("postmaster: %v, %v", r, err)
	}
	// What ParseImport would have refused is refused here, too.
	err = d.ImportUsers(ctx, []ImportEntry{{1, "x@example.org", plain(t, "x")}, {2, "X@example.org", plain(t, "x")}})
	wantErr(t, "twice", err, ErrExists)
	wantErr(t, "no secret", d.ImportUsers(ctx, []ImportEntry{{Line: 7, Address: "x@example.org"}}), ErrBadSecret)
	wantErr(t, "no address", d.ImportUsers(ctx, []ImportEntry{{Line: 7, Secret: plain(t, "x")}}), ErrBadAddress)
	must(t, d.ImportUsers(ctx, nil))
}
