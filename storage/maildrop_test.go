package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMaildropOfNobody(t *testing.T) {
	s, data := openStore(t)
	if _, err := s.Stat(context.Background(), alice); !errors.Is(err, ErrNoMailbox) {
		t.Errorf("Stat before there is a mailbox: %v", err)
	}
	m := openDrop(t, s, alice)
	if m.Len() != 0 {
		t.Errorf("%d messages", m.Len())
	}
	if _, err := os.Stat(filepath.Join(boxDir(data, alice), "new")); err != nil {
		t.Error(err)
	}
}

func TestMaildropIsASnapshot(t *testing.T) {
	s, _ := openStore(t)
	deliver(t, s, 1, "one\n", alice)
	m := openDrop(t, s, alice)
	deliver(t, s, 2, "two\n", alice)
	if got := contents(t, m); !slices.Equal(got, []string{"one\r\n"}) {
		t.Errorf("maildrop has %q", got)
	}
	if n, err := m.Remove(context.Background(), []int{0}); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	m.Close()
	if got := contents(t, openDrop(t, s, alice)); !slices.Equal(got, []string{"two\r\n"}) {
		t.Errorf("after removal %q", got)
	}
}

// readerMoves are what other programs do to a message in a session.
var readerMoves = map[string]func(t *testing.T, box, name string){
	"nothing":      func(*testing.T, string, string) {},
	"moved to cur": func(t *testing.T, box, name string) { rename(t, box+"/new/"+name, box+"/cur/"+name+":2,") },
	"flagged":      func(t *testing.T, box, name string) { rename(t, box+"/new/"+name, box+"/cur/"+name+":2,FS") },
	"no flags":     func(t *testing.T, box, name string) { rename(t, box+"/new/"+name, box+"/cur/"+name) },
	"copied": func(t *testing.T, box, name string) {
		if err := os.Link(box+"/new/"+name, box+"/cur/"+name+":2,S"); err != nil {
			t.Fatal(err)
		}
	},
}

func TestReadersInASession(t *testing.T) {
	for what, move := range readerMoves {
		t.Run(what, func(t *testing.T) {
			s, data := openStore(t)
			deliver(t, s, 1, "one\n", alice)
			deliver(t, s, 2, "two\n", alice)
			box := boxDir(data, alice)
			m := openDrop(t, s, alice)
			ids := uidls(m)
			for _, name := range filesIn(t, box+"/new") {
				move(t, box, name)
			}
			if got := contents(t, m); !slices.Equal(got, []string{"one\r\n", "two\r\n"}) {
				t.Errorf("maildrop has %q", got)
			}
			m.Close()
			m = openDrop(t, s, alice)
			if got := uidls(m); !slices.Equal(got, ids) {
				t.Errorf("unique-ids were %q, now %q", ids, got)
			}
			if n, err := m.Remove(context.Background(), []int{0}); n != 1 || err != nil {
				t.Errorf("removed %d, %v", n, err)
			}
			m.Close()
			if got := contents(t, openDrop(t, s, alice)); !slices.Equal(got, []string{"two\r\n"}) {
				t.Errorf("after removal %q", got)
			}
		})
	}
}

func TestRemoveFollowsReaders(t *testing.T) {
	for what, move := range readerMoves {
		s, data := openStore(t)
		deliver(t, s, 1, "one\n", alice)
		m := openDrop(t, s, alice)
		box := boxDir(data, alice)
		d := newTestDisk(t, s)
		moved := false
		d.before = func(_ int, st step) error {
			if !moved && st.op == "unlink" { // after Remove has looked where the file is
				moved = true
				move(t, box, filepath.Base(st.file))
			}
			return nil
		}
		n, err := m.Remove(context.Background(), []int{0})
		left := filesIn(t, box)
		if n != 1 || err != nil || len(left) > 0 && what != "copied" {
			t.Errorf("%s: removed %d, %v, left %q", what, n, err, left)
		}
		if got := d.count("syncDir", box+"/new") + d.count("syncDir", box+"/cur"); got != 1 {
			t.Errorf("%s: %d syncs", what, got)
		}
	}
}

func TestVanishedMessage(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "one\n", alice)
	deliver(t, s, 2, "two\n", alice)
	m := openDrop(t, s, alice)
	dir := filepath.Join(boxDir(data, alice), "new")
	if err := os.Remove(filepath.Join(dir, filesIn(t, dir)[0])); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.Message(0); !errors.Is(err, ErrGone) {
			t.Errorf("vanished message: %v", err)
		}
	}
	if got := content(t, m, 1); got != "two\r\n" {
		t.Errorf("the other is %q", got)
	}
	if m.Len() != 2 || m.Octets(0) != 5 {
		t.Error("what was announced changed in the session")
	}
	if n, err := m.Remove(context.Background(), []int{0, 1}); n != 2 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
}

// TestChangedMessage: a file that is not what its name says fails in this
// session, and is served as it is in the next.
func TestChangedMessage(t *testing.T) {
	for _, now := range []string{"", "a", "abcdefghijkl\nlonger\n", "abc\nefg\nij\n", "abcdefghij\r"} {
		s, data := openStore(t)
		deliver(t, s, 1, "abcdefghij\n", alice)
		dir := filepath.Join(boxDir(data, alice), "new")
		put(t, filepath.Join(dir, only(t, dir)), now)
		m := openDrop(t, s, alice)
		ids := uidls(m)
		if r, err := m.Message(0); err == nil {
			if len(now) != len("abcdefghij\n") {
				t.Errorf("%q of another size was opened", now)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if !errors.Is(err, errChanged) && wireForm(now) != "abcdefghij\r\n" {
				t.Errorf("%q passes for the message: %q, %v", now, got, err)
			}
			if int64(len(got)) > m.Octets(0) {
				t.Errorf("%q: %d octets sent, %d announced", now, len(got), m.Octets(0))
			}
		} else if !errors.Is(err, errChanged) {
			t.Errorf("%q: %v", now, err)
		}
		m.Close()
		for range 2 {
			m = openDrop(t, s, alice)
			if got := contents(t, m); !slices.Equal(got, []string{wireForm(now)}) {
				t.Errorf("%q: next session has %q", now, got)
			}
			if !slices.Equal(uidls(m), ids) {
				t.Errorf("%q: unique-id changed", now)
			}
			m.Close()
		}
	}
}

func TestMessageThatChangesWhileSent(t *testing.T) {
	long := strings.Repeat("0123456789\n", 20_000)
	for what, change := range map[string]func(path string) error{
		"grows":   func(path string) error { return os.Truncate(path, int64(len(long)+1)) },
		"shrinks": func(path string) error { return os.Truncate(path, int64(len(long)-2)) },
	} {
		s, data := openStore(t)
		deliver(t, s, 1, long, alice)
		m := openDrop(t, s, alice)
		r := open(t, m, 0)
		var first [1]byte
		if _, err := r.Read(first[:]); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(boxDir(data, alice), "new")
		if err := change(filepath.Join(dir, only(t, dir))); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(r)
		if !errors.Is(err, errChanged) || int64(len(rest)+1) > m.Octets(0) {
			t.Errorf("%s: %d of %d octets, %v", what, len(rest)+1, m.Octets(0), err)
		}
	}
}

// TestReadersCloseTheirFiles: nothing else would, if they did not.
func TestReadersCloseTheirFiles(t *testing.T) {
	s, data := openStore(t)
	for n, text := range []string{"small\n", strings.Repeat("0123456789\n", 20_000), "changed\n", "special\n", "gone\n"} {
		deliver(t, s, n, text, alice)
	}
	dir := filepath.Join(boxDir(data, alice), "new")
	m := openDrop(t, s, alice)
	names := filesIn(t, dir)
	put(t, filepath.Join(dir, names[2]), "of another size\n")
	for _, i := range []int{3, 4} {
		if err := os.Remove(filepath.Join(dir, names[i])); err != nil {
			t.Fatal(err)
		}
	}
	makeFIFO(t, filepath.Join(dir, names[3]))
	for i := range m.Len() {
		r, err := m.Message(i)
		if opened := err == nil; opened != (i < 2) {
			t.Errorf("message %d: %v", i, err)
		}
		if err != nil {
			continue
		}
		if open := descriptors(t, dir+"/"); len(open) != i {
			t.Errorf("message %d: open are %q; a small one is read at once", i, open)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if open := descriptors(t, dir+"/"); len(open) > 0 {
		t.Errorf("files still open: %q", open)
	}
}

// TestShortReads: a file system that gives less than was asked for has not come
// to the end of the file yet. A pipe does so too.
func TestShortReads(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	f := messageFile{fd: int(from.Fd()), size: 6}
	var buf [10]byte
	for i, want := range []error{nil, io.EOF} {
		if _, err := to.WriteString("abc"); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Read(buf[:]); n != 3 || err != want {
			t.Errorf("read %d: %d octets, %v", i, n, err)
		}
	}
}

// descriptors lists what this process has open with this prefix.
func descriptors(t *testing.T, prefix string) (open []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && strings.HasPrefix(path, prefix) {
			open = append(open, path)
		}
	}
	return open
}

func TestRemoveErrors(t *testing.T) {
	s, data := openStore(t)
	for n := range 4 {
		deliver(t, s, n, "x\n", alice)
	}
	m := openDrop(t, s, alice)
	box := boxDir(data, alice)
	moved := filesIn(t, box+"/new")[3]
	rename(t, box+"/new/"+moved, box+"/cur/"+moved+":2,")
	d := newTestDisk(t, s)
	fail := func(op, part string) {
		d.before = func(_ int, st step) error {
			if st.op == op && strings.Contains(st.file, part) {
				return unix.EIO
			}
			return nil
		}
	}
	fail("unlink", messageID(1))
	if n, err := m.Remove(context.Background(), []int{0, 1}); n != 1 || !errors.Is(err, unix.EIO) {
		t.Errorf("unlink fails once: removed %d, %v", n, err)
	}
	fail("syncDir", "/new")
	if n, err := m.Remove(context.Background(), []int{2, 3}); n != 1 || !errors.Is(err, unix.EIO) {
		t.Errorf("sync fails: removed %d, %v", n, err)
	}
	d.before = nil
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := m.Remove(canceled, []int{1}); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: removed %d, %v", n, err)
	}
	for _, i := range []int{-1, 4} {
		if n, err := m.Remove(context.Background(), []int{1, i}); n != 0 || err == nil {
			t.Errorf("no such message: removed %d, %v", n, err)
		}
	}
	if got := len(filesIn(t, box)); got != 1 {
		t.Errorf("%d files left, want 1", got)
	}
}

func TestClosedMaildrop(t *testing.T) {
	s, _ := openStore(t)
	deliver(t, s, 1, message, alice)
	m := openDrop(t, s, alice)
	r := open(t, m, 0)
	for range 2 {
		if err := errors.Join(m.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Message(0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Message: %v", err)
	}
	if n, err := m.Remove(context.Background(), []int{0}); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("Remove: %d, %v", n, err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}
