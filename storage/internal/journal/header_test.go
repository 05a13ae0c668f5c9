package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// aged makes a journal whose segments 1 to 3 are in use, each with what the others lack:
// a checkpoint, a record and one that was refused, a fence and a record. Segment 0 is
// not in use any more, and the next one to be.
func aged(t *testing.T, dir string) (j *Journal, want []string) {
	t.Helper()
	fails := false
	j = open(t, dir, Options{Sync: func(*os.File) error {
		if fails {
			return errFault
		}
		return nil
	}})
	checkpoint := func(seq uint64) {
		t.Helper()
		if err := j.Checkpoint(seq); err != nil {
			t.Fatal(err)
		}
		j.chain[len(j.chain)-1].stuck = true
	}
	checkpoint(add(t, j, "one"))
	checkpoint(add(t, j, "two"))
	want = append(want, fmt.Sprintf("%d three", add(t, j, "three")))
	fails = true
	if _, _, err := j.Append([]byte("refused")); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	fails = false
	if err := j.Fence(); err != nil {
		t.Fatal(err)
	}
	want = append(want, fmt.Sprintf("%d four", add(t, j, "four")))
	slots := func(of []*segment) (slots []int) {
		for _, s := range of {
			slots = append(slots, s.slot)
		}
		return slots
	}
	if used, free := slots(j.chain), slots(j.free); !slices.Equal(used, []int{1, 2, 3}) || free[0] != 0 {
		t.Fatalf("segments %d are in use, %d are free", used, free)
	}
	return j, want
}

func segmentFile(dir string, slot int) string {
	return filepath.Join(dir, fmt.Sprint(segmentPrefix, slot))
}

// change changes the octets of a file.
func change(t *testing.T, file string, fn func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fn(b)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// withoutCopy makes a segment as they were once written.
func withoutCopy(b []byte) {
	salt := binary.LittleEndian.Uint64(b[block+24:])
	f, _ := decodeFrame(b[block:], salt)
	old := append(beginFrame(nil), f.payload[:len(f.payload)-headerOctets]...)
	clear(b[block : block+f.octets])
	copy(b[block:], endFrame(old, 0, salt, f.first, int(f.count)))
}

// TestLostHeader: whichever segment loses its header, the journal has all records,
// knows what is not needed and what was refused, and tells of it.
func TestLostHeader(t *testing.T) {
	for how, lose := range map[string]func(b []byte){
		"rot":   func(b []byte) { b[30] ^= 1 },
		"zeros": func(b []byte) { clear(b[:block]) },
		"EIO":   nil,
	} {
		for slot := range 4 {
			t.Run(fmt.Sprint(how, " in segment ", slot), func(t *testing.T) {
				dir := t.TempDir()
				j, want := aged(t, dir)
				shut(t, j)
				o := Options{}
				if lose != nil {
					change(t, segmentFile(dir, slot), lose)
				} else {
					o.Read = badBlocks{fmt.Sprint(segmentPrefix, slot): {0}}.read
				}
				var mended []string
				o.Mended = func(err error) { mended = append(mended, err.Error()) }
				j = open(t, dir, o)
				wantReplay(t, j, want...)
				if len(mended) != 1 || !strings.Contains(mended[0], fmt.Sprintf("segment-%d has no valid header", slot)) {
					t.Errorf("it told of %q", mended)
				}
				last := add(t, j, "five")
				wantReplay(t, j, append(want, fmt.Sprintf("%d five", last))...)
				if err := j.Checkpoint(last); err != nil {
					t.Fatal(err)
				}
				shut(t, j)
				mended = nil
				j = open(t, dir, o)
				wantReplay(t, j)
				if j.Last() < last || len(mended) > 0 {
					t.Errorf("Last() = %d, want at least %d; it told of %q", j.Last(), last, mended)
				}
				shut(t, j)
			})
		}
	}
}

// TestLostHeaderIsKept: a segment that has lost the copy of its header too, or never
// had one, is neither used nor removed, and the others are read.
func TestLostHeaderIsKept(t *testing.T) {
	for name, lose := range map[string]func(b []byte){
		"both lost": func(b []byte) { b[30] ^= 1; b[block+40] ^= 1 },
		"no copy":   func(b []byte) { withoutCopy(b); b[30] ^= 1 },
	} {
		for _, slot := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " in segment ", slot), func(t *testing.T) {
				dir := t.TempDir()
				j, want := aged(t, dir)
				shut(t, j)
				var lost []byte
				change(t, segmentFile(dir, slot), func(b []byte) { lose(b); lost = b })
				if _, err := LastOf(dir); !errors.Is(err, errHeader) {
					t.Errorf("LastOf = %v, want %v", err, errHeader)
				}
				if slot == 3 { // what it fenced off is back, and its record is in the file that is kept
					want[1] = "6 refused"
				}
				var reports []string
				o := Options{Damaged: func(err error) { reports = append(reports, err.Error()) }}
				j = open(t, dir, o)
				wantReplay(t, j, want...)
				if len(reports) != 1 || !strings.Contains(reports[0], fmt.Sprintf("segment-%d has no valid header, and is now unreadable-%d", slot, slot)) {
					t.Errorf("reports %q", reports)
				}
				if err := j.Checkpoint(add(t, j, "five")); err != nil {
					t.Fatal(err)
				}
				shut(t, j)
				kept, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(unreadablePrefix, slot)))
				if err != nil || !bytes.Equal(kept, lost) {
					t.Errorf("kept %d octets of %d: %v", len(kept), len(lost), err)
				}
			})
		}
	}
}

// TestOnlyHeaderIsLost: a journal of which nothing else is left does not open, and is
// not touched, when there may be records behind it.
func TestOnlyHeaderIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		lose  func(b []byte)
		opens bool
	}{
		"a frame":      {func(b []byte) { withoutCopy(b); b[30] ^= 1 }, false},
		"a torn frame": {func(b []byte) { b[30] ^= 1; b[block+40] ^= 1 }, true},
	} {
		dir := t.TempDir()
		j := open(t, dir, Options{})
		add(t, j, "one")
		shut(t, j)
		change(t, segmentFile(dir, 0), c.lose)
		before := files(t, dir)
		j, err := Open(dir, Options{SegmentSize: small})
		if (err == nil) != c.opens || err != nil && (!errors.Is(err, errHeader) || !strings.Contains(err.Error(), "move the files away")) {
			t.Errorf("%s: Open = %v", name, err)
		}
		if err == nil {
			shut(t, j)
		} else if after := files(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: %q before, %q after", name, before, after)
		}
	}
}

// TestJournalWithoutCopies: a journal as they were once written is read.
func TestJournalWithoutCopies(t *testing.T) {
	dir := t.TempDir()
	j, want := aged(t, dir)
	shut(t, j)
	for slot := range 4 {
		change(t, segmentFile(dir, slot), withoutCopy)
	}
	j = open(t, dir, Options{Mended: func(err error) { t.Error(err) }})
	wantReplay(t, j, want...)
	shut(t, j)
}

// TestTornReuse: a power cut has torn the write that gave an old segment its new
// header and first frame. Nothing that is left of its earlier use counts, and what is
// new may only be there as a whole.
func TestTornReuse(t *testing.T) {
	for _, c := range []struct {
		name           string
		header, frame  int // octets that are new
		there, damaged bool
	}{
		{"header in pieces", 30, 0, false, false},
		{"header in pieces, new frame", 30, block, true, false},
		{"old header, new frame", 0, block, false, false},
		{"new header, old frame", block, 0, false, false},
		{"header in pieces, frame too", 30, 70, false, true},
		{"new header, frame in pieces", block, 70, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j, want := aged(t, dir)
			old, err := os.ReadFile(segmentFile(dir, 0))
			if err != nil {
				t.Fatal(err)
			}
			j.chain[len(j.chain)-1].stuck = true
			next := fmt.Sprintf("%d next", add(t, j, "next"))
			if c.there {
				want = append(want, next)
			}
			shut(t, j)
			change(t, segmentFile(dir, 0), func(b []byte) {
				copy(b[c.header:block], old[c.header:])
				copy(b[block+c.frame:], old[block+c.frame:])
			})
			damaged := false
			j = open(t, dir, Options{Damaged: func(error) { damaged = true }})
			wantReplay(t, j, want...)
			if damaged != c.damaged {
				t.Errorf("damage was reported: %t", damaged)
			}
			shut(t, j)
		})
	}
}

// TestTornTwice: a frame that came without its header is not there, and stays so if
// that of the earlier use is lost too: the file is not used again, and has a lower
// number than what was acknowledged since, should it come back.
func TestTornTwice(t *testing.T) {
	dir := t.TempDir()
	j, want := aged(t, dir)
	file := segmentFile(dir, 0)
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	j.chain[len(j.chain)-1].stuck = true
	add(t, j, "next")
	shut(t, j)
	var torn []byte
	change(t, file, func(b []byte) { copy(b[:block], old); torn = b })
	j = open(t, dir, Options{})
	wantReplay(t, j, want...)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is used again: %v", err)
	}
	want = append(want, fmt.Sprintf("%d more", add(t, j, "more")))
	shut(t, j)
	torn[30] ^= 1
	if err := os.WriteFile(file, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, Options{})
	wantReplay(t, j, want...)
	shut(t, j)
}

// TestFrameCannotPassForFirst: what looks like a header behind the records of a first
// frame counts with the salt of that frame only.
func TestFrameCannotPassForFirst(t *testing.T) {
	h := segmentHeader{number: 9, salt: 5, first: 3}
	forged := make([]byte, block)
	h.encode(forged)
	for _, c := range []struct {
		salt, first uint64
		ok          bool
	}{{5, 3, true}, {4, 3, false}, {5, 2, false}} {
		b := appendRecord(beginFrame(nil), kindRecord, [][]byte{forged[:headerOctets]})
		f, _ := decodeFrame(endFrame(b, 0, c.salt, c.first, 1), c.salt)
		if got, ok := f.header(c.salt); ok != c.ok || ok && got != h {
			t.Errorf("salt %d, number %d: header %+v, %t", c.salt, c.first, got, ok)
		}
	}
}
