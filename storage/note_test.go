package storage

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// removedUnseen is a server with a mailbox that the disk cannot read while blind is set,
// from which a message was removed before a crash. old is the mailbox with that message.
func removedUnseen(t *testing.T) (v *server, old string, blind *bool) {
	t.Helper()
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	deliver(t, before.Store, 2, otherMessage, alice)
	before.checkpoint(context.Background())
	full := crashed(t, before.data)
	if n, err := openDrop(t, before.Store, alice).Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	data := crashed(t, before.data)
	removeAll(t, boxDir(data, alice))
	rename(t, boxDir(crashed(t, full), alice), boxDir(data, alice))
	v = newServer(t, data)
	blind = new(bool)
	*blind = true
	v.hooks.beforeOpenDir = func(names []string) error {
		if *blind {
			return noMailbox(alice)(names)
		}
		return nil
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	return v, boxDir(full, alice), blind
}

// TestNoteUntilSynced: what is noted of a removal stays until that is on stable storage,
// whether a start does it or a rewrite of the living server.
func TestNoteUntilSynced(t *testing.T) {
	for _, living := range []bool{false, true} {
		v, old, blind := removedUnseen(t)
		*blind = false
		noSync := func() error { return unix.EIO }
		if living {
			v.hooks.beforeSyncFS = noSync
			deliver(t, v.Store, 3, otherMessage, threeBoxes[1])
			if err := v.checkpoint(context.Background()); !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
		} else {
			v.end(t)
			again := newServer(t, v.data)
			again.hooks.beforeSyncFS = noSync
			if err := again.start(); !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
		}
		data := crashed(t, v.data)
		removeAll(t, boxDir(data, alice))
		rename(t, old, boxDir(data, alice)) // the unlink has not come to the disk
		startServer(t, data)
		holds(t, "removed", data, alice, otherMessage)
		v.hooks.beforeSyncFS = nil
	}
}

// TestNotedOnce: as long as a mailbox cannot be read its note stays, and needs no room;
// the log does not tell of a crash.
func TestNotedOnce(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	r := newServer(t, v.data)
	r.hooks.beforeOpenDir = noMailbox(alice)
	r.steps.before = func(_ int, st step) error {
		if st.op == "sync" && strings.Contains(st.file, notesDir) {
			return unix.ENOSPC
		}
		return nil
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	if log := r.log.String(); strings.Contains(log, "had not ended in order") || !strings.Contains(log, "may be back") {
		t.Errorf("the log says %s", log)
	}
}

// notesOf are the files of the notes of a server.
func notesOf(t *testing.T, v *server) []string {
	t.Helper()
	return filesIn(t, filepath.Join(v.data, notesDir))
}

// blindStart starts a server on data that cannot read the mailbox of alice.
func blindStart(t *testing.T, data string, before func(n int, s step) error) (*server, error) {
	t.Helper()
	r := newServer(t, data)
	r.hooks.beforeOpenDir = noMailbox(alice)
	r.steps.before = before
	return r, r.start()
}

// refuseUnseen has the journal of a server say that one more message was removed from
// the mailbox of alice.
func refuseUnseen(t *testing.T, v *server) {
	t.Helper()
	to, err := distinct([]string{alice})
	if err == nil {
		err = v.refuse(v.Store.journal.Load(), v.keepRefusal(0, "1.other", to))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoteIsSynced: a start believes no note that it has not synced: an earlier one may
// have ended before that.
func TestNoteIsSynced(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	synced := false
	var fault error
	before := func(_ int, s step) error {
		if s.op == "syncFS" && strings.HasSuffix(s.file, notesDir) {
			synced = true
			return fault
		}
		return nil
	}
	r, err := blindStart(t, v.data, before)
	if err != nil || !synced {
		t.Errorf("%v; synced: %t", err, synced)
	}
	r.end(t)
	fault = unix.EIO
	if _, err := blindStart(t, v.data, before); !errors.Is(err, unix.EIO) {
		t.Errorf("the start says %v", err)
	}
}

// TestNoteOfCommand: a command that removes a message beside the server has its note on
// stable storage before the message goes.
func TestNoteOfCommand(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	command := openStoreAt(t, v.data)
	steps := newTestDisk(t, command)
	m := openDrop(t, command, alice)
	defer m.Close()
	if n, err := m.Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	var order []string
	for _, s := range steps.steps {
		if strings.Contains(s.file, v.data+"/"+journalDir) || s.op == "unlink" {
			order = append(order, s.op)
		}
	}
	if got := strings.Join(order, " "); got != "sync syncDir syncDir unlink" {
		t.Errorf("its steps are %s", got)
	}
}

// TestNotesAdd: what is removed while there is a note already is noted beside it, and
// all of that is done, and forgotten, once the mailbox can be read.
func TestNotesAdd(t *testing.T) {
	v, old, _ := removedUnseen(t)
	removeAll(t, old)
	refuseUnseen(t, v)
	data := crashed(t, v.data)
	for range 3 {
		r, err := blindStart(t, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := notesOf(t, r); len(n) != 2 {
			t.Errorf("notes: %q", n)
		}
		r.end(t)
	}
	put(t, filepath.Join(boxDir(data, alice), "cur", "1.other:2,S"), smallMessage)
	r := newServer(t, data)
	unsynced := false
	r.steps.before = func(_ int, s step) error {
		unsynced = s.op == "unlink" || unsynced && s.op != "syncFS"
		return nil
	}
	if err := r.start(); err != nil || unsynced {
		t.Errorf("%v; removed without a sync: %t", err, unsynced)
	}
	holds(t, "removed", data, alice, otherMessage)
	if n := notesOf(t, r); len(n) != 0 {
		t.Errorf("notes are left: %q", n)
	}
}

// TestNotesDoNotPile: starts that cannot sync a note leave none.
func TestNotesDoNotPile(t *testing.T) {
	v, _, _ := removedUnseen(t)
	refuseUnseen(t, v)
	data := crashed(t, v.data)
	for range 3 {
		r, err := blindStart(t, data, func(_ int, s step) error {
			if s.op == "syncDir" && strings.HasSuffix(s.file, notesDir) {
				return unix.EIO
			}
			return nil
		})
		if n := notesOf(t, r); !errors.Is(err, unix.EIO) || len(n) != 1 {
			t.Errorf("%v; notes: %q", err, n)
		}
	}
}

// TestNoteTwice: two notes of the same thing, as earlier versions could leave them, ask
// for no third one.
func TestNoteTwice(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	dir := filepath.Join(v.data, notesDir)
	b, err := os.ReadFile(filepath.Join(dir, only(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "A"), string(b))
	r, err := blindStart(t, v.data, nil)
	if n := notesOf(t, r); err != nil || len(n) != 2 {
		t.Errorf("%v; notes: %q", err, n)
	}
}

// TestNoteAndUnreadableDomain: what is noted keeps no server from starting.
func TestNoteAndUnreadableDomain(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	for _, fault := range []error{unix.EIO, unix.EROFS} {
		r := newServer(t, v.data)
		r.hooks.beforeOpenDir = func(names []string) error {
			if len(names) > 0 && names[0] == "example.org" {
				return fault
			}
			return nil
		}
		if err := r.start(); err != nil {
			t.Errorf("%v: %v", fault, err)
		}
		if n := notesOf(t, r); len(n) != 1 {
			t.Errorf("%v: notes: %q", fault, n)
		}
		r.end(t)
	}
}

// TestNotesOfLivingServer: notes of removals that could not be done stay at a checkpoint,
// and go when a rewrite has done them.
func TestNotesOfLivingServer(t *testing.T) {
	v, _, blind := removedUnseen(t)
	deliver(t, v.Store, 3, otherMessage, threeBoxes[1])
	if err := v.checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := notesOf(t, v); len(n) != 1 {
		t.Errorf("after a checkpoint: notes %q", n)
	}
	*blind = false
	fails := true
	v.hooks.beforeSyncFS = func() error {
		if fails {
			fails = false
			return unix.EIO
		}
		return nil
	}
	deliver(t, v.Store, 4, otherMessage, threeBoxes[1])
	if err := v.checkpoint(context.Background()); err != nil || fails {
		t.Fatal(err, fails)
	}
	if n := notesOf(t, v); len(n) != 0 {
		t.Errorf("after a rewrite: notes %q", n)
	}
	holds(t, "after a rewrite", v.data, alice, otherMessage)
}

// TestNoteOfMailboxGone: nothing has to be removed from a mailbox that is not there.
func TestNoteOfMailboxGone(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	removeAll(t, boxDir(v.data, alice))
	if n := notesOf(t, startServer(t, v.data)); len(n) != 0 {
		t.Errorf("notes are left: %q", n)
	}
}

// TestMailboxWithoutNew: one that has lost new/ still has what is in cur/. It is not
// delivered again, and can be removed, as the journal or a note says.
func TestMailboxWithoutNew(t *testing.T) {
	for _, c := range []struct{ noted, more bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		before := freshServer(t)
		deliver(t, before.Store, 1, smallMessage, alice)
		seen(t, fileOf(t, before.data, alice))
		before.checkpoint(context.Background())
		full := filepath.Join(boxDir(crashed(t, before.data), alice), "cur")
		if n, err := openDrop(t, before.Store, alice).Remove(context.Background(), []int{0}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		want := 0
		if c.more {
			deliver(t, before.Store, 2, otherMessage, alice)
			kept := seen(t, fileOf(t, before.data, alice))
			if err := os.Link(kept, filepath.Join(full, filepath.Base(kept))); err != nil {
				t.Fatal(err)
			}
			want++
		}
		data := crashed(t, before.data)
		cur := filepath.Join(boxDir(data, alice), "cur")
		removeAll(t, cur)
		rename(t, full, cur) // the removal has not come to the disk
		if c.noted {
			r, err := blindStart(t, data, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.end(t)
		}
		removeAll(t, filepath.Join(boxDir(data, alice), "new"))
		m := openDrop(t, startServer(t, data).Store, alice)
		if got := contents(t, m); len(got) != want || want > 0 && got[0] != wireForm(otherMessage) || len(filesIn(t, boxDir(data, alice))) != want {
			t.Errorf("%+v: it has %q", c, got)
		}
		m.Close()
	}
}

// TestUnreadableNote: it does not keep the server from starting, is told once at each
// start, and is done by the first one that can read it.
func TestUnreadableNote(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	dir := filepath.Join(v.data, notesDir)
	note := filepath.Join(dir, only(t, dir))
	aside := filepath.Join(t.TempDir(), "note")
	rename(t, note, aside)
	if err := os.Symlink("/proc/self/mem", note); err != nil { // whose first octets are EIO
		t.Fatal(err)
	}
	for range 2 {
		r := startServer(t, v.data)
		for n := range 3 {
			deliver(t, r.Store, 10+n, smallMessage, threeBoxes[1])
			r.checkpoint(context.Background())
		}
		if n := strings.Count(r.log.String(), "what it removed may come back"); n != 1 {
			t.Errorf("told %d times: %s", n, r.log)
		}
		r.end(t)
		removeAll(t, boxDir(v.data, threeBoxes[1]))
	}
	remove(t, note)
	rename(t, aside, note)
	startServer(t, v.data)
	holds(t, "removed", v.data, alice, otherMessage)
}

// TestNoteCutOff: the file of a note that was not written to its end goes when nobody
// can be writing it any more.
func TestNoteCutOff(t *testing.T) {
	v := freshServer(t)
	v.end(t)
	dir := filepath.Join(v.data, notesDir)
	put(t, filepath.Join(dir, ".young"), "x")
	put(t, filepath.Join(dir, ".old"), "x")
	long := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(filepath.Join(dir, ".old"), long, long); err != nil {
		t.Fatal(err)
	}
	startServer(t, v.data)
	if left := only(t, dir); left != ".young" {
		t.Errorf("%s is left", left)
	}
}

// TestLaterRefusalStays: a checkpoint forgets refusals of the records it is about.
func TestLaterRefusalStays(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	v.keepRefusal(math.MaxUint64, "1.other", nil)
	if err := v.checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(v.undoneRefusals()); n != 1 {
		t.Errorf("%d refusals are kept", n)
	}
}
