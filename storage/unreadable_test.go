package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// noMailbox has the disk not open the directories of a mailbox.
func noMailbox(name string) func(names []string) error {
	local, domain, _ := strings.Cut(name, "@")
	return func(names []string) error {
		if len(names) > 1 && names[0] == domain && names[1] == local {
			return unix.EIO
		}
		return nil
	}
}

// TestUnreadableFileIsReplaced: what the disk cannot open is written again, where it was.
func TestUnreadableFileIsReplaced(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	data := crashed(t, before.data)
	file := fileOf(t, data, alice)
	truncate(t, file, 0)
	broken := stat(t, file)
	r := newServer(t, data)
	r.hooks.beforeOpen = func(name string) error {
		if name == filepath.Base(file) && os.SameFile(stat(t, file), broken) {
			return unix.EIO
		}
		return nil
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	holds(t, "replaced", data, alice, smallMessage)
	if _, err := os.Stat(filepath.Join(data, unplacedDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was put aside: %v", err)
	}
}

// TestUnreadableDomain: where nothing of a domain can be opened it is the disk that has
// failed, and the journal keeps what it knows; so it is when it takes no change.
func TestUnreadableDomain(t *testing.T) {
	for name, fail := range map[string]func(r *server){
		"not opened": func(r *server) {
			r.hooks.beforeOpenDir = func(names []string) error {
				if len(names) > 0 && names[0] == "example.org" {
					return unix.EIO
				}
				return nil
			}
		},
		"not synced": func(r *server) {
			r.hooks.beforeOpenDir = noMailbox(alice)
			r.steps.before = func(_ int, st step) error {
				if st.op == "syncFS" {
					return unix.EIO
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := freshServer(t)
			deliver(t, before.Store, 1, smallMessage, alice)
			deliver(t, before.Store, 2, otherMessage, alice)
			if n, err := openDrop(t, before.Store, alice).Remove(context.Background(), []int{1}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			data := crashed(t, before.data)
			r := newServer(t, data)
			fail(r)
			if err := r.start(); !errors.Is(err, unix.EIO) {
				t.Errorf("the start says %v", err)
			}
			loseMailboxes(t, data)
			startServer(t, data)
			holds(t, "after that", data, alice, smallMessage)
		})
	}
}

// TestMailboxWithoutCur: mail is delivered to a mailbox that has only new/, so what is
// refused is looked for there as well, at once and after a crash.
func TestMailboxWithoutCur(t *testing.T) {
	v := freshServer(t)
	dir := filepath.Join(boxDir(v.data, threeBoxes[0]), "new")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v.steps.before = func(_ int, st step) error {
		if st.op == "rename" && strings.Contains(st.file, messageID(2)) {
			return unix.EIO
		}
		return nil
	}
	if _, err := v.Deliver(context.Background(), messageID(2), threeBoxes, strings.NewReader(otherMessage)); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	v.steps.before = nil
	for _, box := range threeBoxes {
		holds(t, "refused", v.data, box)
	}
	deliver(t, v.Store, 3, smallMessage, threeBoxes[0])
	to, err := distinct(threeBoxes[:1])
	if err != nil {
		t.Fatal(err)
	}
	if err := v.refuse(v.Store.journal.Load(), v.keepRefusal(0, only(t, dir), to)); err != nil {
		t.Fatal(err)
	}
	data := crashed(t, v.data)
	startServer(t, data)
	holds(t, "refused before a crash", data, threeBoxes[0])
}

// TestRemovalFromUnreadableMailbox: what was removed from a mailbox that the disk cannot
// read at the next start is removed by the first start that can, and not before.
func TestRemovalFromUnreadableMailbox(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	deliver(t, before.Store, 2, otherMessage, alice)
	before.checkpoint(context.Background())
	data, _ := unlinkLost(t, before)
	notes := func() int { return len(filesIn(t, filepath.Join(data, notesDir))) }
	for range 2 {
		r := newServer(t, data)
		r.hooks.beforeOpenDir = noMailbox(alice)
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
		if log := r.log.String(); !strings.Contains(log, "removed messages may be back") || notes() != 1 {
			t.Errorf("%d notes, the log says %s", notes(), log)
		}
		r.end(t)
	}
	startServer(t, data).end(t)
	holds(t, "removed", data, alice, otherMessage)
	if n := notes(); n != 0 {
		t.Errorf("%d notes are left", n)
	}
	startServer(t, data)
}

// TestRemovalThatFails is for a directory that can be opened, and not be changed.
func TestRemovalThatFails(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	data, _ := unlinkLost(t, before)
	r := newServer(t, data)
	r.steps.before = func(_ int, st step) error {
		if st.op == "unlink" && strings.Contains(st.file, boxDir(data, alice)) {
			return unix.EIO
		}
		return nil
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	r.steps.before = nil
	r.end(t)
	startServer(t, data)
	holds(t, "removed", data, alice)
}
