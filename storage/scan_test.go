package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWhileStill: a directory that changes while it is read is read again, but
// not for ever.
func TestWhileStill(t *testing.T) {
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for changes, want := range []int{1, 2, scanTries, scanTries} {
		reads := 0
		err := whileStill(dir, func() error {
			reads++
			if reads > changes {
				return nil
			}
			at := time.Unix(int64(1000*changes+reads), 0)
			return os.Chtimes(path, at, at)
		})
		if err != nil || reads != want {
			t.Errorf("%d changes: read %d times, %v, want %d", changes, reads, err, want)
		}
	}
}

// TestScanFollowsReaders: a file that a reader moves after it was listed and
// before it is measured is still in the maildrop.
func TestScanFollowsReaders(t *testing.T) {
	s, data := openStore(t)
	box := boxDir(data, alice)
	put(t, filepath.Join(box, "new", "1.a"), "a\n")
	put(t, filepath.Join(box, "new", "2.b"), "b\n")
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.openMailbox(a)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	tries := 0
	got, err := m.scan(context.Background(), func(entries []entry) error {
		if tries++; tries == 1 {
			rename(t, filepath.Join(box, "new", "1.a"), filepath.Join(box, "cur", "1.a:2,S"))
		}
		_, err := s.measureUnsized(context.Background(), m, entries)
		return err
	})
	if err != nil || tries != 2 || len(got) != 2 || got[0].name != "1.a:2,S" || got[0].octets != 3 {
		t.Errorf("found %v, %v, at try %d", got, err, tries)
	}
}

// TestScanManyFiles: more than one reading of a directory, and more than one
// goroutine that measures.
func TestScanManyFiles(t *testing.T) {
	const n = 2000
	s, data := openStore(t)
	for i := range n {
		put(t, filepath.Join(boxDir(data, alice), "cur", fmt.Sprintf("%d.%s:2,S", i+1, strings.Repeat("x", i%100))), strings.Repeat("\n", i))
	}
	for range 2 { // measured, and from the index
		m := openDrop(t, s, alice)
		if m.Len() != n {
			t.Fatalf("%d messages, want %d", m.Len(), n)
		}
		for i := range n {
			if m.Octets(i) != int64(2*i) {
				t.Errorf("message %d has %d octets", i, m.Octets(i))
			}
		}
		m.Close()
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.OpenMaildrop(canceled, alice); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// direntOf is a directory entry as the kernel lays it out.
func direntOf(ino uint64, kind byte, name string) []byte {
	length := (direntHeader + len(name) + 1 + 7) / 8 * 8
	b := make([]byte, length)
	binary.NativeEndian.PutUint64(b, ino)
	binary.NativeEndian.PutUint16(b[16:], uint16(length))
	b[18] = kind
	copy(b[direntHeader:], name)
	return b
}

func FuzzDirent(f *testing.F) {
	f.Add(direntOf(7, unix.DT_REG, "1.a:2,S"))
	f.Add(append(direntOf(1, unix.DT_DIR, "."), direntOf(2, unix.DT_REG, strings.Repeat("x", 255))...))
	f.Add(direntOf(7, unix.DT_REG, "a")[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		for left := b; len(left) > 0; {
			ino, kind, name, rest, ok := cutDirent(left)
			if !ok {
				return
			}
			if len(rest) > len(left)-direntHeader || bytes.IndexByte(name, 0) >= 0 {
				t.Fatalf("%q: name %q, rest %q", left, name, rest)
			}
			if again, kindAgain, nameAgain, _, ok := cutDirent(direntOf(ino, kind, string(name))); !ok ||
				again != ino || kindAgain != kind || !bytes.Equal(name, nameAgain) {
				t.Fatalf("%q: inode %d, type %d, name %q come back as others", left, ino, kind, name)
			}
			left = rest
		}
	})
}

// TestDirectoryEntries compares the reading of a directory with that of the
// standard library. A file system that tells no types is asked for each.
func TestDirectoryEntries(t *testing.T) {
	path := t.TempDir()
	for i := range 300 {
		put(t, filepath.Join(path, strings.Repeat("n", 1+i%250)+strconv.Itoa(i)), "")
	}
	put(t, filepath.Join(path, ".hidden"), "")
	put(t, filepath.Join(path, "directory", "file"), "")
	makeFIFO(t, filepath.Join(path, "fifo"))
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	want := make(map[string]uint64)
	all, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		regular := f.Type().IsRegular()
		if asked := isFile(dir, unix.DT_UNKNOWN, []byte(f.Name())); asked != regular {
			t.Errorf("%s, asked: regular %t", f.Name(), asked)
		}
		if st, err := statAt(dir, f.Name()); err == nil && regular && f.Name() != ".hidden" {
			want[f.Name()] = st.Ino
		}
	}
	var r direntReader
	for range 2 {
		entries, err := r.readEntries(nil, dir, true)
		got := make(map[string]uint64)
		for _, e := range entries {
			got[e.name] = e.ino
		}
		if err != nil || len(entries) != 300 || !maps.Equal(got, want) {
			t.Errorf("found %d, %v: %v, want %v", len(entries), err, got, want)
		}
	}
}

// TestSettled: of a file system that keeps whole seconds more distance is asked.
func TestSettled(t *testing.T) {
	const second = int64(time.Second)
	for _, c := range []struct {
		changed, now int64
		want         bool
	}{
		{100*second + 1, 100*second + 2, false},
		{100*second + 1, 101 * second, true},
		{100 * second, 101 * second, false},
		{100 * second, 102 * second, false},
		{100 * second, 103 * second, true},
		{0, 100 * second, true},
		{101*second + 1, 100 * second, false},
	} {
		if got := settled(c.changed, c.now); got != c.want {
			t.Errorf("changed at %d, now %d: %t", c.changed, c.now, got)
		}
	}
}
