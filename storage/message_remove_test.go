package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// syncedDirs is a disk that remembers which directories were synced.
type syncedDirs struct {
	osDisk
	dirs []string
}

func (d *syncedDirs) syncDir(dir *os.File) error {
	d.dirs = append(d.dirs, filepath.Clean(dir.Name()))
	return d.osDisk.syncDir(dir)
}

// TestNamesAreSynced: that of a new data directory, of what is in it, and of what is noted
// for a start that comes after a crash.
func TestNamesAreSynced(t *testing.T) {
	top := t.TempDir()
	data := filepath.Join(top, "data")
	d := &syncedDirs{}
	s, err := openOn(d, data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, dir := range []string{top, data} {
		if !slices.Contains(d.dirs, dir) {
			t.Errorf("%s is not synced after a name came into it, but %q", dir, d.dirs)
		}
	}
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	d = &syncedDirs{}
	other, err := openOn(d, v.data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	d.dirs = nil
	if n, err := openDrop(t, other, alice).Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for _, dir := range []string{notesDir, journalDir} {
		if !slices.Contains(d.dirs, filepath.Join(v.data, dir)) {
			t.Errorf("%s is not synced after a note, but %q", dir, d.dirs)
		}
	}
}

// openSettledDrop opens a maildrop when any change of the mailbox from now on can be
// told from what it was.
func openSettledDrop(t *testing.T, s *Store) *Maildrop {
	t.Helper()
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	box, err := s.openMailbox(a)
	if err != nil {
		t.Fatal(err)
	}
	defer box.close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		v, err := box.version()
		if err != nil {
			t.Fatal(err)
		}
		if v.settled {
			return openDrop(t, s, alice)
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the mailbox does not settle")
	return nil
}

// rewind makes listed tell whether new/ has been read since.
func rewind(t *testing.T, m *Maildrop) (listed func() bool) {
	t.Helper()
	if _, err := m.box.new.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		at, err := m.box.new.Seek(0, io.SeekCurrent)
		if err != nil {
			t.Fatal(err)
		}
		return at > 0
	}
}

// TestRemoveWithoutListing: a mailbox that nobody has changed since the login is not
// read again at QUIT. Whatever readers do, before or in between, is found.
func TestRemoveWithoutListing(t *testing.T) {
	for what, move := range readerMoves {
		for _, when := range []string{"before", "meanwhile"} {
			t.Run(what+" "+when, func(t *testing.T) {
				s, data := openStore(t)
				deliver(t, s, 1, "one\n", alice)
				deliver(t, s, 2, "two\n", alice)
				box := boxDir(data, alice)
				m := openSettledDrop(t, s)
				first := filesIn(t, box+"/new")[0]
				d := newTestDisk(t, s)
				if when == "before" {
					move(t, box, first)
				} else {
					moved := false
					d.before = func(_ int, st step) error {
						if !moved && st.op == "unlink" {
							moved = true
							move(t, box, first)
						}
						return nil
					}
				}
				listed := rewind(t, m)
				n, err := m.Remove(context.Background(), []int{0})
				if n != 1 || err != nil {
					t.Errorf("removed %d, %v", n, err)
				}
				found := what == "nothing" || what == "copied" && when == "meanwhile"
				if listed() == found {
					t.Errorf("read new/ again: %t", listed())
				}
				left := len(filesIn(t, box))
				if copied := what == "copied" && when == "meanwhile"; left != 1 && !copied {
					t.Errorf("%d files left, want 1", left)
				}
			})
		}
	}
}

// TestRemoveAllFiles: a message of which there were two files at the login loses
// both, changed since or not; and new mail stays.
func TestRemoveAllFiles(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "one\n", alice)
	box := boxDir(data, alice)
	readerMoves["copied"](t, box, only(t, box+"/new"))
	m := openSettledDrop(t, s)
	if n, err := m.Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if left := filesIn(t, box); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	m.Close()
	deliver(t, s, 2, "two\n", alice)
	m = openSettledDrop(t, s)
	deliver(t, s, 3, "three\n", alice)
	if n, err := m.Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	m.Close()
	if got := contents(t, openDrop(t, s, alice)); !slices.Equal(got, []string{"three\r\n"}) {
		t.Errorf("left %q", got)
	}
}

// TestDescriptorsOfASession: thousands of sessions must get by with the descriptors
// that a process may have.
func TestDescriptorsOfASession(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "one\n", alice)
	deliver(t, s, 2, "two\n", alice)
	box := boxDir(data, alice)
	m := openDrop(t, s, alice)
	if got := descriptors(t, box); !slices.Equal(got, []string{box + "/new"}) {
		t.Errorf("without mail in cur/ open are %q", got)
	}
	name := filesIn(t, box+"/new")[0]
	readerMoves["flagged"](t, box, name)
	if got := contents(t, m); !slices.Equal(got, []string{"one\r\n", "two\r\n"}) {
		t.Errorf("maildrop has %q", got)
	}
	m.Close()
	if got := descriptors(t, box); len(got) > 0 {
		t.Errorf("after the session open are %q", got)
	}
}

// TestSessionWithoutCur: that cur/ is gone, or no directory any more, hurts no
// message in new/.
func TestSessionWithoutCur(t *testing.T) {
	for what, odd := range map[string]bool{"gone": false, "odd": true} {
		t.Run(what, func(t *testing.T) {
			s, data := openStore(t)
			deliver(t, s, 1, "one\n", alice)
			deliver(t, s, 2, "two\n", alice)
			box := boxDir(data, alice)
			m := openDrop(t, s, alice)
			if err := os.Remove(box + "/cur"); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(box, "new", filesIn(t, box+"/new")[1])); err != nil {
				t.Fatal(err)
			}
			if odd {
				put(t, box+"/cur", "")
			}
			if got := content(t, m, 0); got != "one\r\n" {
				t.Errorf("message is %q", got)
			}
			if _, err := m.Message(1); err == nil || errors.Is(err, ErrGone) == odd {
				t.Errorf("vanished message: %v", err)
			}
			n, err := m.Remove(context.Background(), []int{0, 1})
			if odd {
				if n != 0 || err == nil {
					t.Errorf("removed %d, %v", n, err)
				}
			} else if n != 2 || err != nil || len(filesIn(t, box)) > 0 {
				t.Errorf("removed %d, %v, left %q", n, err, filesIn(t, box))
			}
		})
	}
}
