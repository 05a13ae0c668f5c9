package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRemoveMailbox(t *testing.T) {
	s, data := openStore(t)
	ctx := context.Background()
	deliver(t, s, 1, message, threeBoxes...)
	put(t, filepath.Join(boxDir(data, alice), "cur", "foreign"), "x\n")
	put(t, filepath.Join(boxDir(data, alice), ".Sent", "cur", "foreign"), "x\n")
	outside := filepath.Join(data, "outside")
	put(t, filepath.Join(outside, "file"), "x")
	if err := os.Symlink(outside, filepath.Join(boxDir(data, alice), "link")); err != nil {
		t.Fatal(err)
	}
	openDrop(t, s, alice).Close()
	for _, name := range []string{alice, alice, "bob@example.org", "nobody@example.com"} {
		if err := s.RemoveMailbox(ctx, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var left []string
	for _, dir := range []string{"mail", "index", "locks"} {
		for _, domain := range []string{"example.org", "example.com"} {
			if _, err := os.Lstat(filepath.Join(data, dir, domain)); !errors.Is(err, os.ErrNotExist) {
				left = append(left, dir+"/"+domain)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if got, err := s.List(ctx); err != nil || !slices.Equal(got, []string{"carol@example.net"}) {
		t.Errorf("left: %q, %v", got, err)
	}
	only(t, outside)
	deliver(t, s, 2, message, alice)
	if got := contents(t, openDrop(t, s, alice)); len(got) != 1 {
		t.Errorf("mailbox made anew has %q", got)
	}
}

func TestMailboxExistsAndList(t *testing.T) {
	s, data := openStore(t)
	ctx := context.Background()
	check := func(what string, exists, hasMail bool) {
		t.Helper()
		e, h, err := s.MailboxExists(alice)
		if err != nil || e != exists || h != hasMail {
			t.Errorf("%s: exists %t, has mail %t, %v", what, e, h, err)
		}
	}
	check("nothing", false, false)
	if err := os.MkdirAll(filepath.Join(boxDir(data, alice), "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	check("unfinished", true, false)
	for range 2 {
		if err := s.CreateMailbox(ctx, alice); err != nil {
			t.Fatal(err)
		}
	}
	check("made", true, false)
	put(t, filepath.Join(boxDir(data, alice), "tmp", "draft"), "x")
	check("draft of others", true, false)
	put(t, filepath.Join(boxDir(data, alice), "cur", "foreign"), "x\n")
	check("with mail", true, true)
	put(t, filepath.Join(boxDir(data, "bob@a.example"), ".Sent", "cur", "foreign"), "x\n")
	if e, h, err := s.MailboxExists("bob@a.example"); !e || !h || err != nil {
		t.Errorf("folders: %t, %t, %v", e, h, err)
	}
	put(t, filepath.Join(data, "mail", "README"), "not a domain")
	if got, err := s.List(ctx); err != nil || !slices.Equal(got, []string{"bob@a.example", alice}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMailboxNames(t *testing.T) {
	s, data := openStore(t)
	for _, name := range []string{
		"", "@", "a@", "@b", "a", "../a@b", "a@..", "a@../b", ".a@b", "a@.tmp", "a/b@c", "a\x00@b",
		strings.Repeat("x", 256) + "@b", "a@" + strings.Repeat("x", 256),
	} {
		if err := s.CreateMailbox(context.Background(), name); err == nil {
			t.Errorf("%q accepted", name)
		}
	}
	for _, name := range []string{"a@b@c", "x y@d", "é@d", strings.Repeat("x", 255) + "@d", "-@-"} {
		deliver(t, s, len(name), message, name)
		if got := contents(t, openDrop(t, s, name)); len(got) != 1 {
			t.Errorf("%q: %q", name, got)
		}
	}
	if got := only(t, filepath.Join(data, "mail", "c", "a@b", "new")); !strings.HasSuffix(got, ",S=60,W=64") {
		t.Errorf("file is called %s", got)
	}
}

func TestSweep(t *testing.T) {
	s, data := openStore(t)
	drafts := filepath.Join(data, "mail", draftsDir)
	alive := &draft{store: s, id: messageID(1)}
	if err := alive.create(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(drafts, messageID(2)), "cut off")
	put(t, filepath.Join(drafts, removedPrefix+"x", "new", "file"), "x")
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(boxDir(data, alice), "tmp")
	put(t, filepath.Join(tmp, "fresh"), "x")
	put(t, filepath.Join(tmp, "stale"), "x")
	makeFIFO(t, filepath.Join(tmp, "fifo"))
	old := time.Now().Add(-staleAfter - time.Hour)
	if err := os.Chtimes(filepath.Join(tmp, "stale"), old, old); err != nil {
		t.Fatal(err)
	}
	starting := openStoreAt(t, data)
	release, err := starting.LockServer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	}()
	if err := starting.Sweep(context.Background()); err != nil {
		t.Error(err)
	}
	if got := filesIn(t, drafts); !slices.Equal(got, []string{messageID(1)}) {
		t.Errorf("drafts: %q", got)
	}
	if got := filesIn(t, tmp); !slices.Equal(got, []string{"fifo", "fresh"}) {
		t.Errorf("tmp: %q", got)
	}
	alive.discard()
	if got := filesIn(t, drafts); len(got) > 0 {
		t.Errorf("drafts: %q", got)
	}
}
