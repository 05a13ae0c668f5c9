package storage

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
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
	m, err := s.openMailbox(a, false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	moved := false
	got, err := m.scan(context.Background(), func(dir *os.File, e *entry) error {
		if !moved {
			moved = true
			rename(t, filepath.Join(box, "new", "1.a"), filepath.Join(box, "cur", "1.a:2,S"))
		}
		return s.measure(nil, make(index), dir, e)
	})
	if err != nil || len(got) != 2 || got[0].name != "1.a:2,S" {
		t.Errorf("found %v, %v", got, err)
	}
}
