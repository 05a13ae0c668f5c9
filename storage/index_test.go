package storage

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var indexExamples = []index{
	{},
	{"a": {ino: 1, size: 2, mtime: 3, octets: 4}},
	{"": {}, "b\n\x00é": {ino: math.MaxUint64, size: -1, mtime: math.MinInt64, octets: math.MaxInt64}},
}

func TestIndexCoding(t *testing.T) {
	for _, x := range indexExamples {
		b := encodeIndex(x)
		if got := decodeIndex(b); got == nil || !maps.Equal(got, x) {
			t.Errorf("%v came back as %v", x, got)
		}
		for i := range b {
			damaged := slices.Clone(b)
			damaged[i] ^= 0x10
			if got := decodeIndex(damaged); got != nil {
				t.Errorf("damage at %d of %q unseen: %v", i, b, got)
			}
			if got := decodeIndex(b[:i]); got != nil {
				t.Errorf("cut at %d of %q unseen: %v", i, b, got)
			}
		}
	}
}

func FuzzIndex(f *testing.F) {
	for _, x := range indexExamples {
		f.Add(encodeIndex(x)[len(indexMagic):])
	}
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum is made right, so that what is behind it is tried.
		b := append([]byte(indexMagic), body...)
		x := decodeIndex(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
		if x != nil && !maps.Equal(decodeIndex(encodeIndex(x)), x) {
			t.Errorf("%q is %v, which comes back as something else", body, x)
		}
	})
}

// countMeasured opens the maildrop and returns how many foreign files were read to
// measure them, with the contents of all messages.
func countMeasured(t *testing.T, s *Store) (measured int, got []string) {
	t.Helper()
	var log strings.Builder
	s.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := openDrop(t, s, alice)
	defer m.Close()
	return strings.Count(log.String(), "file measured"), contents(t, m)
}

func TestIndexSavesReading(t *testing.T) {
	s, data := openStore(t)
	cur := filepath.Join(boxDir(data, alice), "cur")
	put(t, filepath.Join(boxDir(data, alice), "new", "2.x"), "two\n")
	put(t, filepath.Join(cur, "1.x"), "one\n")
	indexFile := filepath.Join(data, "index", "example.org", "alice")
	old := time.Unix(1_600_000_000, 0)
	steps := []struct {
		what     string
		do       func() error
		measured int
		first    string
	}{
		{"first time", func() error { return nil }, 2, "one\r\n"},
		{"again", func() error { return nil }, 0, "one\r\n"},
		{"flags", func() error { return os.Rename(cur+"/1.x", cur+"/1.x:2,S") }, 0, "one\r\n"},
		{"other time", func() error { return os.Chtimes(cur+"/1.x:2,S", old, old) }, 1, "one\r\n"},
		{"other size", func() error {
			put(t, cur+"/1.x:2,S", "one more\n")
			return os.Chtimes(cur+"/1.x:2,S", old, old)
		}, 1, "one more\r\n"},
		{"replaced", func() error {
			put(t, cur+"/replacement", "\n\n\n\n\n\n\n\n\n")
			if err := os.Chtimes(cur+"/replacement", old, old); err != nil {
				return err
			}
			return os.Rename(cur+"/replacement", cur+"/1.x:2,S")
		}, 1, strings.Repeat("\r\n", 9)},
	}
	for _, c := range steps {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		n, got := countMeasured(t, s)
		if n != c.measured || !slices.Equal(got, []string{c.first, "two\r\n"}) {
			t.Errorf("%s: %d measured, want %d: %q", c.what, n, c.measured, got)
		}
	}
	for what, damage := range map[string]func() error{
		"deleted": func() error { return os.Remove(indexFile) },
		"empty":   func() error { return os.Truncate(indexFile, 0) },
		"cut":     func() error { return os.Truncate(indexFile, 30) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{2, 0} {
			if n, got := countMeasured(t, s); n != want || len(got) != 2 {
				t.Errorf("index %s: %d measured, want %d: %q", what, n, want, got)
			}
		}
	}
	if err := os.RemoveAll(cur); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(boxDir(data, alice), "new", "2.x")); err != nil {
		t.Fatal(err)
	}
	if n, got := countMeasured(t, s); n != 0 || len(got) != 0 {
		t.Errorf("mailbox emptied: %d measured, %q", n, got)
	}
	if left := filesIn(t, filepath.Join(data, "index")); len(left) > 0 {
		t.Errorf("index of an empty mailbox: %q", left)
	}
}

// TestIndexCannotBeWritten: the index is a help, no need.
func TestIndexCannotBeWritten(t *testing.T) {
	s, data := openStore(t)
	put(t, filepath.Join(data, "index", "example.org"), "a file where a directory should be")
	put(t, filepath.Join(boxDir(data, alice), "new", "2.x"), "two\n")
	for range 2 {
		if n, got := countMeasured(t, s); n != 1 || !slices.Equal(got, []string{"two\r\n"}) {
			t.Errorf("%d measured, %q", n, got)
		}
	}
}

func TestStat(t *testing.T) {
	s, data := openStore(t)
	ctx := context.Background()
	cur := filepath.Join(boxDir(data, alice), "cur")
	put(t, filepath.Join(boxDir(data, alice), "new", "1500000000."+messageID(1)+".mx,S=1000,W=1100"), "trusted\n")
	put(t, filepath.Join(cur, "x,S=99:2,"), "12345\n")
	then := time.Unix(1_600_000_000, 0)
	if err := os.Chtimes(filepath.Join(cur, "x,S=99:2,"), then, then); err != nil {
		t.Fatal(err)
	}
	info, err := s.Stat(ctx, alice)
	want := MailboxInfo{Path: boxDir(data, alice), Messages: 2, Octets: 1006, Unseen: 1, Oldest: time.Unix(1_500_000_000, 0), Newest: then}
	if err != nil || info != want {
		t.Errorf("%+v, %v, want %+v", info, err, want)
	}
}
