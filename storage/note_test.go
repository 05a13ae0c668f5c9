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

// TestDamagedLastingNote: it is told, also when the server had ended in order.
func TestDamagedLastingNote(t *testing.T) {
	v, _, _ := removedUnseen(t)
	v.end(t)
	dir := filepath.Join(v.data, notesDir)
	overwrite(t, filepath.Join(dir, only(t, dir)), func(b []byte) { b[10] ^= 1 })
	r := startServer(t, v.data)
	if log := r.log.String(); !strings.Contains(log, "what it removed may come back") || len(notesOf(t, r)) != 0 {
		t.Errorf("notes: %q, the log says %s", notesOf(t, r), log)
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
	put(t, filepath.Join(dir, "directory", "x"), "x") // is nothing to us
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

// TestNoteUnreadAtStart: what a start could not read stays for the next one to tell, even if
// it can be read meanwhile.
func TestNoteUnreadAtStart(t *testing.T) {
	v := freshServer(t)
	v.end(t)
	file := filepath.Join(v.data, notesDir, "A")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/mem", file); err != nil {
		t.Fatal(err)
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	remove(t, file)
	n := note{record: record{kind: recordRemoved, to: []address{{"alice", "example.org"}}, names: []string{"1.x"}}, after: 1}
	put(t, file, string(n.encode()))
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, smallMessage, alice)
	v.checkpoint(context.Background())
	if n := notesOf(t, v); len(n) != 1 {
		t.Errorf("notes: %q", n)
	}
}
