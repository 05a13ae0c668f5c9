package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unlinkLost removes the first message of alice and has a crash forget that outside of
// the journal. It returns the data directory after that, and her mailbox from before it.
func unlinkLost(t *testing.T, v *server) (data, old string) {
	t.Helper()
	full := crashed(t, v.data)
	if n, err := openDrop(t, v.Store, alice).Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	data = crashed(t, v.data)
	removeAll(t, boxDir(data, alice))
	rename(t, boxDir(crashed(t, full), alice), boxDir(data, alice))
	return data, boxDir(full, alice)
}

// removedUnseen is a server with a mailbox that the disk cannot read while blind is set,
// from which a message was removed before a crash. old is the mailbox with that message.
func removedUnseen(t *testing.T) (v *server, old string, blind *bool) {
	t.Helper()
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	deliver(t, before.Store, 2, otherMessage, alice)
	before.checkpoint(context.Background())
	data, old := unlinkLost(t, before)
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
	return v, old, blind
}

// TestNoteUntilSynced: what is noted of a removal stays until that is on stable storage,
// whether a start does it or a session.
func TestNoteUntilSynced(t *testing.T) {
	for _, session := range []bool{false, true} {
		v, old, blind := removedUnseen(t)
		*blind = false
		noSync := func() error { return unix.EIO }
		if session {
			v.hooks.beforeSyncFS = noSync
			openDrop(t, v.Store, alice).Close()
		} else {
			v.end(t)
			v.hooks.beforeSyncFS = noSync
			if err := v.start(); err != nil {
				t.Fatal(err)
			}
		}
		if log := v.log.String(); !strings.Contains(log, "may be back") {
			t.Errorf("the log says %s", log)
		}
		v.hooks.beforeSyncFS = nil
		data := crashed(t, v.data)
		removeAll(t, boxDir(data, alice))
		rename(t, old, boxDir(data, alice)) // the unlink has not come to the disk
		startServer(t, data)
		holds(t, "removed", data, alice, otherMessage)
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
		if st.op == "sync" && strings.Contains(st.file, notesDir) || st.op == "writeJournal" {
			return unix.ENOSPC
		}
		return nil
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	r.steps.before = nil
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

// TestNoteIsSynced: a start that believes an earlier note syncs it before the journal
// forgets: who wrote that may have ended before.
func TestNoteIsSynced(t *testing.T) {
	v, _, _ := removedUnseen(t)
	refuseUnseen(t, v)
	data := crashed(t, v.data)
	var order []string
	record := func(_ int, s step) error {
		if s.op == "syncFS" && strings.HasSuffix(s.file, notesDir) || s.op == "sync" {
			order = append(order, s.op)
		}
		return nil
	}
	noCheckpoint := func(n int, s step) error {
		if s.op == "writeJournal" {
			return unix.EIO
		}
		return record(n, s)
	}
	if _, err := blindStart(t, data, noCheckpoint); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if r, err := blindStart(t, data, record); err != nil || len(notesOf(t, r)) != 2 {
		t.Fatal(err, notesOf(t, r))
	}
	if got := strings.Join(order, " "); got != "sync syncFS syncFS" {
		t.Errorf("the note is made and synced: %s", got)
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
	r := startServer(t, data)
	holds(t, "removed", data, alice, otherMessage)
	if n := notesOf(t, r); len(n) != 0 {
		t.Errorf("notes are left: %q", n)
	}
}

// TestNoteAndUnreadableDomain: what is noted keeps no server from starting, also when the
// journal still knows of it.
func TestNoteAndUnreadableDomain(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	data, _ := unlinkLost(t, before)
	noCheckpoint := func(_ int, s step) error {
		if s.op == "writeJournal" {
			return unix.EIO
		}
		return nil
	}
	if _, err := blindStart(t, data, noCheckpoint); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	for _, fault := range []error{unix.EIO, unix.EROFS} { // after the first one the journal is empty
		r := newServer(t, data)
		r.hooks.beforeOpenDir = func(names []string) error {
			if len(names) > 0 && names[0] == "example.org" {
				return fault
			}
			return nil
		}
		if err := r.start(); err != nil || len(notesOf(t, r)) != 1 {
			t.Errorf("%v: %v, notes %q", fault, err, notesOf(t, r))
		}
		r.end(t)
	}
	startServer(t, data)
	holds(t, "in the end", data, alice)
}

// TestNotesOfLivingServer: notes of what could not be removed stay at a checkpoint and at
// a rewrite. A session that can open the mailbox does not see those messages.
func TestNotesOfLivingServer(t *testing.T) {
	v, _, blind := removedUnseen(t)
	fails := false
	v.hooks.beforeSyncFS = func() error {
		if fails {
			fails = false
			return unix.EIO
		}
		return nil
	}
	for n, rewrites := range []bool{false, true} {
		fails = rewrites
		deliver(t, v.Store, 3+n, otherMessage, threeBoxes[1])
		if err := v.checkpoint(context.Background()); err != nil || fails {
			t.Fatal(err, fails)
		}
		if n := notesOf(t, v); len(n) != 1 {
			t.Errorf("rewrites %t: notes %q", rewrites, n)
		}
	}
	*blind = false
	m := openDrop(t, v.Store, alice)
	if got := contents(t, m); len(got) != 1 || got[0] != wireForm(otherMessage) {
		t.Errorf("it has %q", got)
	}
	m.Close()
	openDrop(t, v.Store, alice).Close()
	if n := notesOf(t, v); len(n) != 0 || strings.Count(v.log.String(), "at last") != 1 {
		t.Errorf("after two sessions: notes %q, the log says %s", n, v.log)
	}
}

// TestNoteWhileInUse: a start takes nothing away from a session of a command.
func TestNoteWhileInUse(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	m := openDrop(t, openStoreAt(t, v.data), alice)
	r := startServer(t, v.data)
	if got := contents(t, m); len(got) != 2 || len(notesOf(t, r)) != 1 {
		t.Errorf("notes: %q; it has %q", notesOf(t, r), got)
	}
	m.Close()
	openDrop(t, r.Store, alice).Close()
	holds(t, "after that", v.data, alice, otherMessage)
}

// TestNoteOfMailboxGone: a mailbox that is not there may come with a disk that is not
// mounted. When it is removed, nothing has to be removed from it any more.
func TestNoteOfMailboxGone(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	aside := filepath.Join(t.TempDir(), "box")
	rename(t, boxDir(v.data, alice), aside)
	r := startServer(t, v.data)
	if log := r.log.String(); !strings.Contains(log, "may be back") || len(notesOf(t, r)) != 1 {
		t.Errorf("notes: %q, the log says %s", notesOf(t, r), log)
	}
	r.end(t)
	rename(t, aside, boxDir(v.data, alice))
	removed := crashed(t, v.data)
	startServer(t, v.data)
	holds(t, "mounted", v.data, alice, otherMessage)
	r, err := blindStart(t, removed, nil)
	if err != nil {
		t.Fatal(err)
	}
	backup := boxDir(crashed(t, removed), alice)
	command := openStoreAt(t, removed)
	noted := only(t, filepath.Join(removed, notesDir))
	for _, name := range []string{threeBoxes[1], alice} {
		if err := command.RemoveMailbox(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		if n := notesOf(t, r); slices.Contains(n, noted) == (name == alice) {
			t.Errorf("after %s is removed: notes %q", name, n)
		}
	}
	if err := os.MkdirAll(filepath.Dir(boxDir(removed, alice)), 0o700); err != nil {
		t.Fatal(err)
	}
	rename(t, backup, boxDir(removed, alice)) // somebody wants it back
	r.hooks.beforeOpenDir = nil
	m := openDrop(t, r.Store, alice)
	defer m.Close()
	if got := contents(t, m); len(got) != 2 {
		t.Errorf("after a restore it has %q", got)
	}
}

// TestNoteAndReadOnlyDisk: what is noted about a mailbox whose file system takes no change
// keeps no server from starting, and fails no checkpoint.
func TestNoteAndReadOnlyDisk(t *testing.T) {
	v, _, blind := removedUnseen(t)
	*blind = false
	v.end(t)
	v.steps.before = func(_ int, s step) error {
		if strings.Contains(s.file, boxDir(v.data, alice)) {
			return unix.EROFS
		}
		return nil
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	m := openDrop(t, v.Store, alice)
	if got := contents(t, m); len(got) != 1 || got[0] != wireForm(otherMessage) {
		t.Errorf("a session has %q", got)
	}
	m.Close()
	deliver(t, v.Store, 3, otherMessage, threeBoxes[1])
	if err := v.checkpoint(context.Background()); err != nil {
		t.Error(err)
	}
	if n := notesOf(t, v); len(n) != 1 {
		t.Errorf("notes: %q", n)
	}
	v.steps.before = nil
}

// TestNoteAndPartsMissing: a note stays as long as new/ or cur/ may come back.
func TestNoteAndPartsMissing(t *testing.T) {
	for _, part := range []string{"new", "cur"} {
		v, _, _ := removedUnseen(t)
		v.end(t)
		dir, aside := filepath.Join(boxDir(v.data, alice), part), filepath.Join(t.TempDir(), part)
		rename(t, dir, aside)
		r := startServer(t, v.data)
		if log := r.log.String(); !strings.Contains(log, "may be back") || len(notesOf(t, r)) != 1 {
			t.Errorf("%s: notes %q, the log says %s", part, notesOf(t, r), log)
		}
		r.end(t)
		rename(t, aside, dir)
		startServer(t, v.data)
		holds(t, part, v.data, alice, otherMessage)
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
