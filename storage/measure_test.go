package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// brief is a context that ends when it was asked so many times.
type brief struct {
	context.Context
	left atomic.Int64
}

func (b *brief) Err() error {
	if b.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestMeasuringCutOff: each login of a large mailbox of another program gets
// further than the one before, when none has the time for all of it.
func TestMeasuringCutOff(t *testing.T) {
	const many = 1000
	s, data := openStore(t)
	for i := range many {
		put(t, filepath.Join(boxDir(data, alice), "cur", fmt.Sprintf("%d.x", i+10)), "one\n")
	}
	// It has our form, but is not what it says, and was found out.
	lie := "9." + messageID(1) + ".mx,S=1,W=2"
	put(t, filepath.Join(boxDir(data, alice), "new", lie), "longer\n")
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	s.distrust(a, lie)
	before := many + 1
	for _, questions := range []int64{1, 4, 8} {
		ctx := &brief{Context: context.Background()}
		ctx.left.Store(questions)
		if _, err := s.OpenMaildrop(ctx, alice); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("asked %d times: %v", questions, err)
		}
		if questions == 1 {
			continue // nothing was measured
		}
		records, err := s.readRecords(a)
		if err != nil {
			t.Fatal(err)
		}
		known := 0
		for c := startIndex(records); c.ok; c.next() {
			if c.ino != 0 {
				known++
			}
		}
		if left := many + 1 - known; left >= before {
			t.Errorf("asked %d times: %d files are left to measure, %d were before", questions, left, before)
		} else {
			before = left
		}
	}
	n, m := openMeasured(t, s)
	defer m.Close()
	if n != before || m.Len() != many+1 || m.Octets(0) != int64(len("longer\r\n")) {
		t.Errorf("%d files were measured at last, want %d; %d messages, the first of %d octets", n, before, m.Len(), m.Octets(0))
	}
}

// TestMarksStay: what was cut off, or could not be read, keeps the marks of what is not
// to be believed.
func TestMarksStay(t *testing.T) {
	s, _ := openStore(t)
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	var entries []entry
	for i, state := range []entryState{sized, unsized, gone, unfit} {
		e := newEntry(fmt.Sprintf("%d.%s.mx,S=1,W=2", i, messageID(i)), true, 7)
		e.own, e.state = false, state
		entries = append(entries, e, newEntry(fmt.Sprintf("%d.x", i), true, 8))
	}
	s.saveIndex(a, entries)
	var got []string
	for c := startIndex(s.loadIndex(a)); c.ok; c.next() {
		got = append(got, fmt.Sprintf("%s %d", strings.Split(string(c.base), ".")[0], c.ino))
	}
	if want := []string{"0 7", "1 0", "2 0", "3 0"}; !slices.Equal(got, want) {
		t.Errorf("index has %q, want %q", got, want)
	}
}

// TestVerifyRemembers: what a repair has read, the next login does not read again.
func TestVerifyRemembers(t *testing.T) {
	s, data := openStore(t)
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, filepath.Join(boxDir(data, alice), "new", fmt.Sprintf("%d.x", i)), "one\n")
	}
	if c := verify(t, s, true); len(c.Findings) > 0 {
		t.Fatalf("%+v", c.Findings)
	}
	if n, got := countMeasured(t, s); n != 0 || len(got) != 10 {
		t.Errorf("%d measured of %d", n, len(got))
	}
}

// TestMarkOutlivesBadReading: a file is not what its name says, and a repair, or a
// login, cannot read it for once. Nobody believes its name after that.
func TestMarkOutlivesBadReading(t *testing.T) {
	for name, read := range map[string]func(s *Store){
		"repair": func(s *Store) { verify(t, s, true) },
		"login":  func(s *Store) { openDrop(t, s, alice).Close() },
	} {
		s, data := openStore(t)
		deliver(t, s, 1, "one\n", alice)
		file := filepath.Join(boxDir(data, alice), "new", only(t, filepath.Join(boxDir(data, alice), "new")))
		rewriteInPlace(t, file, "longer\n")
		verify(t, s, true)
		put(t, filepath.Join(data, "another"), "longer\n") // another inode: it has to be read again
		rename(t, filepath.Join(data, "another"), file)
		asMortal(t, data, []string{file}, func() { read(s) })
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		m := openDrop(t, s, alice)
		if m.Octets(0) != int64(len("longer\r\n")) {
			t.Errorf("%s: the name is believed: %d octets", name, m.Octets(0))
		}
		m.Close()
	}
}
