package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type testRecord struct {
	base         string
	ino          uint64
	size, octets int64
}

var indexExamples = [][]testRecord{
	{},
	{{"a", 1, 2, 3}},
	{{"", 0, 0, 0}, {"b\n\x00é", math.MaxUint64, math.MaxInt64, math.MaxInt64}, {"1.c", 4, 5, 6}},
}

func writeRecords(records []testRecord) []byte {
	b := beginIndex(len(records))
	for _, r := range records {
		b = appendRecord(b, r.base, r.ino, r.size, r.octets)
	}
	return endIndex(b)
}

func readRecords(b []byte) (records []testRecord, ok bool) {
	body, ok := openIndex(b)
	for c := startIndex(body); c.ok; c.next() {
		records = append(records, testRecord{string(c.base), c.ino, c.size, c.octets})
	}
	return records, ok
}

func TestIndexCoding(t *testing.T) {
	for _, x := range indexExamples {
		b := writeRecords(x)
		if got, ok := readRecords(b); !ok || !slices.Equal(got, x) {
			t.Errorf("%v came back as %v", x, got)
		}
		for i := range b {
			damaged := slices.Clone(b)
			damaged[i] ^= 0x10
			if got, ok := readRecords(damaged); ok || got != nil {
				t.Errorf("damage at %d of %q unseen: %v", i, b, got)
			}
			if got, ok := readRecords(b[:i]); ok || got != nil {
				t.Errorf("cut at %d of %q unseen: %v", i, b, got)
			}
		}
	}
}

func FuzzIndex(f *testing.F) {
	for _, x := range indexExamples {
		f.Add(writeRecords(x)[len(indexMagic):], "1.c:2,S")
	}
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "a")
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		// The checksum is made right, so that what is behind it is tried.
		b := endIndex(append([]byte(indexMagic), body...))
		x, _ := readRecords(b)
		if again, ok := readRecords(writeRecords(x)); !ok || !slices.Equal(again, x) {
			t.Errorf("%q is %v, which comes back as %v", body, x, again)
		}
		for _, r := range x {
			if r.size < 0 || r.octets < 0 {
				t.Errorf("%q has negative sizes: %v", body, r)
			}
		}
		entries := []entry{newEntry(name, true, 1)}
		if stale := recall(body, entries); stale < 0 || stale > len(x) {
			t.Errorf("%d of %d records stale", stale, len(x))
		}
	})
}

// TestRecall compares the merging of index and maildrop with a look-up of each.
func TestRecall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := rapid.SliceOfDistinct(rapid.SampledFrom(recallNames), func(s string) string { return s })
		var indexed, found []entry
		known := make(map[string]uint64)
		for _, name := range files.Draw(t, "indexed") {
			e := newEntry(name, true, rapid.Uint64Range(0, 2).Draw(t, "inode"))
			known[name] = e.ino
			indexed = append(indexed, e)
		}
		for _, name := range files.Draw(t, "found") {
			found = append(found, newEntry(name+":2,S", true, rapid.Uint64Range(1, 2).Draw(t, "inode")))
		}
		found = arrange(found)
		var records []byte
		for _, e := range arrange(indexed) {
			records = appendRecord(records, e.name, e.ino, 5, 6)
		}
		stale := len(known)
		want := slices.Clone(found)
		for i := range want {
			e := &want[i]
			ino, listed := known[baseName(e.name)]
			if !listed {
				continue
			}
			e.own, e.state = false, unsized
			if ino == e.ino {
				e.size, e.octets, e.state = 5, 6, sized
				stale--
			}
		}
		if got := recall(records, found); got != stale || !slices.Equal(found, want) {
			t.Errorf("%d stale, want %d\n%v\n%v", got, stale, found, want)
		}
	})
}

var recallNames = []string{
	"1.a", "1.a,S=1", "1.a,S=2", "1.b", "01.a", "2.a", "10.a", "x", "",
	"1." + messageID(1) + ".mx,S=1,W=2", "2." + messageID(1) + ".mx,S=1,W=2", "2." + messageID(1) + ".mx,S=2,W=3",
}

var measuredPattern = regexp.MustCompile(`files of other programs measured.* files=(\d+)`)

// openMeasured opens the maildrop and returns how many foreign files were read
// to measure them.
func openMeasured(t *testing.T, s *Store) (measured int, m *Maildrop) {
	t.Helper()
	var log strings.Builder
	s.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m = openDrop(t, s, alice)
	for _, match := range measuredPattern.FindAllStringSubmatch(log.String(), -1) {
		n, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		measured += n
	}
	return measured, m
}

// countMeasured does the same and returns also the contents of all messages.
func countMeasured(t *testing.T, s *Store) (measured int, got []string) {
	t.Helper()
	measured, m := openMeasured(t, s)
	defer m.Close()
	return measured, contents(t, m)
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
		{"other time", func() error { return os.Chtimes(cur+"/1.x:2,S", old, old) }, 0, "one\r\n"},
		{"replaced", func() error {
			put(t, cur+"/replacement", "\n\n\n\n") // as long as the other
			if err := os.Chtimes(cur+"/replacement", old, old); err != nil {
				return err
			}
			return os.Rename(cur+"/replacement", cur+"/1.x:2,S")
		}, 1, strings.Repeat("\r\n", 4)},
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

// TestIndexedFileChangesInPlace: a login looks at no file, so it announces what
// the index says. But nothing else passes for the message, and the next session
// has it right.
func TestIndexedFileChangesInPlace(t *testing.T) {
	for _, now := range []string{"", "one more\n", "o\n\n\n", "\n\n\n\n", "one\r", "ones"} {
		s, data := openStore(t)
		path := filepath.Join(boxDir(data, alice), "cur", "1.x:2,S")
		put(t, path, "one\n")
		put(t, filepath.Join(boxDir(data, alice), "new", "2.x"), "two\n")
		countMeasured(t, s)
		put(t, path, now)
		n, m := openMeasured(t, s)
		if n != 0 || m.Octets(0) != 5 {
			t.Errorf("%q: %d measured, %d octets announced", now, n, m.Octets(0))
		}
		var got []byte
		r, err := m.Message(0)
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if len(got) > 5 || err == nil && string(got) != wireForm(now) || err != nil && !errors.Is(err, errChanged) {
			t.Errorf("%q: got %q, %v", now, got, err)
		}
		if string(got) == wireForm(now) && len(got) == 5 {
			continue
		}
		m.Close()
		for _, want := range []int{1, 0} {
			if n, got := countMeasured(t, s); n != want || !slices.Equal(got, []string{wireForm(now), "two\r\n"}) {
				t.Errorf("%q: next session: %d measured, want %d: %q", now, n, want, got)
			}
		}
	}
}

// TestIndexNotWrittenForLittle: a new message in a large mailbox does not make
// each login write the index anew; many do.
func TestIndexNotWrittenForLittle(t *testing.T) {
	const many = 300
	s, data := openStore(t)
	cur := filepath.Join(boxDir(data, alice), "cur")
	for i := range many {
		put(t, filepath.Join(cur, fmt.Sprintf("%d.x", i)), "one\n")
	}
	for _, c := range []struct {
		name     string
		measured int
	}{{"", many}, {"", 0}, {"1000.x", 1}, {"", 1}, {"1001.x", 2}, {"1002.x", 3}, {"1003.x", 4}, {"1004.x", 5}, {"", 0}} {
		if c.name != "" {
			put(t, filepath.Join(cur, c.name), "new\n")
		}
		n, m := openMeasured(t, s)
		if n != c.measured {
			t.Errorf("%d messages, new %q: %d measured, want %d", m.Len(), c.name, n, c.measured)
		}
		m.Close()
	}
}

// TestDistrust puts a mark into the index wherever it belongs.
func TestDistrust(t *testing.T) {
	s, _ := openStore(t)
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"5.x", "3.x", "9.x", "5.x", "3.x,S=1"} {
		s.distrust(a, base)
	}
	var got []testRecord
	for c := startIndex(s.loadIndex(a)); c.ok; c.next() {
		got = append(got, testRecord{string(c.base), c.ino, c.size, c.octets})
	}
	want := []testRecord{{base: "3.x"}, {base: "3.x,S=1"}, {base: "5.x"}, {base: "9.x"}}
	if !slices.Equal(got, want) {
		t.Errorf("index has %v, want %v", got, want)
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
