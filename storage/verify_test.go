package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func verify(t *testing.T, s *Store, repair bool) Check {
	t.Helper()
	c, err := s.Verify(context.Background(), alice, repair)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(c.Findings, func(a, b Finding) int { return strings.Compare(a.File, b.File) })
	return c
}

func TestVerify(t *testing.T) {
	s, data := openStore(t)
	box := boxDir(data, alice)
	deliver(t, s, 1, "Subject: a\r\n\r\nb\r\n", alice)
	put(t, filepath.Join(box, "cur", "2.foreign:2,S"), "Subject: c\n\nd\n")
	openDrop(t, s, alice).Close() // makes the index
	fine := Check{Messages: 2, Foreign: 1, Octets: 28}
	if d := cmp.Diff(fine, verify(t, s, false), cmpopts.EquateEmpty(), cmp.AllowUnexported(Finding{})); d != "" {
		t.Fatalf("a good mailbox: %s", d)
	}

	// What is odd, wrong, or in the way.
	ours, err := filepath.Glob(filepath.Join(box, "new", "*"))
	if err != nil || len(ours) != 1 {
		t.Fatal(ours, err)
	}
	put(t, ours[0], "another text\n")
	rewriteInPlace(t, filepath.Join(box, "cur", "2.foreign:2,S"), "longer than before\n")
	put(t, filepath.Join(box, "cur", "2.foreign:2,RS"), "a copy\n")
	put(t, filepath.Join(box, "new", ".hidden"), "x")
	for _, err := range []error{
		os.Mkdir(filepath.Join(box, "new", "3.directory"), 0o700),
		syscall.Mkfifo(filepath.Join(box, "new", "4.fifo"), 0o600),
		os.Symlink(ours[0], filepath.Join(box, "cur", "5.link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(ours[0])
	want := []Finding{
		{File: "cur/2.foreign:2,S", Problem: "another file is of the same message and is served in its place"},
		{File: "cur/5.link", Problem: "it is not a regular file, so it is not served"},
		{File: "new/.hidden", Problem: "the name begins with a dot, so it is not served"},
		{File: "new/" + name, wrong: true, Problem: "its name says 14 octets, 17 on the wire, but it has 13, and 14 on the wire"},
		{File: "new/3.directory", Problem: "it is not a regular file, so it is not served"},
		{File: "new/4.fifo", Problem: "it is not a regular file, so it is not served"},
	}
	if d := cmp.Diff(want, verify(t, s, false).Findings, cmp.AllowUnexported(Finding{})); d != "" {
		t.Fatal(d)
	}

	// Repaired, the messages can be fetched, and nothing else has changed.
	for i := range want {
		want[i].Repaired = want[i].wrong
	}
	if d := cmp.Diff(want, verify(t, s, true).Findings, cmp.AllowUnexported(Finding{})); d != "" {
		t.Fatal(d)
	}
	if n := len(verify(t, s, false).Findings); n != len(want)-1 {
		t.Errorf("%d findings after the repair", n)
	}
	got := contents(t, openDrop(t, s, alice))
	if d := cmp.Diff([]string{"a copy\r\n", "another text\r\n"}, got); d != "" {
		t.Error(d)
	}
}

// TestVerifyIndex: an index that lies about a file, and one that is damaged.
func TestVerifyIndex(t *testing.T) {
	s, data := openStore(t)
	file := filepath.Join(boxDir(data, alice), "new", "1.foreign")
	put(t, file, "short\n")
	openDrop(t, s, alice).Close()
	rewriteInPlace(t, file, "longer than before\n")
	want := []Finding{{File: "new/1.foreign", wrong: true,
		Problem: "the index says 6 octets, 7 on the wire, but it has 19, and 20 on the wire"}}
	if d := cmp.Diff(want, verify(t, s, false).Findings, cmp.AllowUnexported(Finding{})); d != "" {
		t.Fatal(d)
	}
	verify(t, s, true)
	if c := verify(t, s, false); len(c.Findings) > 0 {
		t.Errorf("after the repair: %+v", c.Findings)
	}
	index := filepath.Join(data, "index", "example.org", "alice")
	put(t, index, "no index")
	c := verify(t, s, false)
	if len(c.Findings) != 1 || c.Findings[0].File != "" || !strings.HasPrefix(c.Findings[0].Problem, "the index is damaged") {
		t.Errorf("a damaged index: %+v", c.Findings)
	}
	verify(t, s, true)
	if c := verify(t, s, false); len(c.Findings) > 0 {
		t.Errorf("after the repair: %+v", c.Findings)
	}
}

func TestVerifyErrors(t *testing.T) {
	s, _ := openStore(t)
	if _, err := s.Verify(context.Background(), alice, false); !errors.Is(err, ErrNoMailbox) {
		t.Errorf("no mailbox: %v", err)
	}
	deliver(t, s, 1, "x", alice)
	drop := openDrop(t, s, alice)
	if _, err := s.Verify(context.Background(), alice, true); !errors.Is(err, ErrInUse) {
		t.Errorf("repair beside a session: %v", err)
	}
	if _, err := s.Verify(context.Background(), alice, false); err != nil {
		t.Errorf("a look beside a session: %v", err)
	}
	drop.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Verify(ctx, alice, false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// rewriteInPlace changes a file as no Maildir program does.
func rewriteInPlace(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
