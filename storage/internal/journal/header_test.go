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
	old := append(beginFrame(nil), f.payload[:len(f.payload)-copyOctets]...)
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
// had one, is neither used nor removed, and the others are read. One of which nothing is
// needed may be used, if its header is zeros.
func TestLostHeaderIsKept(t *testing.T) {
	rot, zero := func(b []byte) { b[30] ^= 1; b[block+40] ^= 1 }, func(b []byte) { clear(b[:2*block]) }
	for _, c := range []struct {
		name string
		lose func(b []byte)
		slot int
		kept string
	}{
		{"both lost", rot, 0, tornName},
		{"both lost", rot, 3, "unreadable-3"},
		{"both zeros", zero, 0, ""},
		{"both zeros", zero, 3, "unreadable-3"},
		{"no copy", func(b []byte) { withoutCopy(b); b[30] ^= 1 }, 0, "unreadable-0"},
		{"no copy", func(b []byte) { withoutCopy(b); b[30] ^= 1 }, 3, "unreadable-3"},
		{"no copy, zeros", func(b []byte) { withoutCopy(b); clear(b[:block]) }, 3, "unreadable-3"},
	} {
		t.Run(fmt.Sprint(c.name, " in segment ", c.slot), func(t *testing.T) {
			dir := t.TempDir()
			j, want := aged(t, dir)
			last := j.Last()
			shut(t, j)
			var lost []byte
			change(t, segmentFile(dir, c.slot), func(b []byte) { c.lose(b); lost = b })
			if _, err := LastOf(dir); c.kept != "" && c.kept != tornName {
				if !errors.Is(err, errHeader) || !strings.Contains(err.Error(), "start the server first") {
					t.Errorf("LastOf = %v, want %v", err, errHeader)
				}
			} else if err != nil {
				t.Errorf("LastOf = %v", err)
			}
			if c.slot == 3 { // what it fenced off is back, and its record is in the file that is kept
				want[1] = "6 refused"
			}
			var reports []string
			j = open(t, dir, Options{Damaged: func(err error) { reports = append(reports, err.Error()) }})
			wantReplay(t, j, want...)
			if got := j.Last(); got < last {
				t.Errorf("Last() = %d, and %d was given before", got, last)
			}
			if c.kept != "" && (len(reports) != 1 || !strings.Contains(reports[0], fmt.Sprintf("segment-%d has no valid header, and is now %s", c.slot, c.kept))) || c.kept == "" && len(reports) > 0 {
				t.Errorf("reports %q", reports)
			}
			if err := j.Checkpoint(add(t, j, "five")); err != nil {
				t.Fatal(err)
			}
			shut(t, j)
			if c.kept == "" {
				return
			}
			kept, err := os.ReadFile(filepath.Join(dir, c.kept))
			if err != nil || !bytes.Equal(kept, lost) {
				t.Errorf("kept %d octets of %d: %v", len(kept), len(lost), err)
			}
		})
	}
}

// TestMissingSegmentIsKept: when the others name one that is not there, a file without
// a header may be it, though it has no other frame than the first.
func TestMissingSegmentIsKept(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	for _, r := range []string{"one", "two", "three"} {
		add(t, j, strings.Repeat(r, block))
		j.chain[len(j.chain)-1].stuck = true
	}
	shut(t, j)
	change(t, segmentFile(dir, 1), func(b []byte) { clear(b[:2*block]) })
	var reports []string
	j = open(t, dir, Options{Damaged: func(err error) { reports = append(reports, err.Error()) }})
	if len(reports) != 2 || !strings.Contains(reports[0], "segment-1 has no valid header, and is now unreadable-1") {
		t.Errorf("reports %q", reports)
	}
	shut(t, j)
}

// TestOnlyHeaderIsLost: a journal of which nothing else is left does not open, and is
// not touched, when there are records behind it.
func TestOnlyHeaderIsLost(t *testing.T) {
	rot, zero := func(b []byte) { b[30] ^= 1 }, func(b []byte) { clear(b[:block]) }
	for _, c := range []struct {
		name          string
		lose          func(b []byte)
		copied, whole bool // of the first frame
		records       int
		opens         bool
	}{
		{"a frame without a copy", rot, false, true, 1, false},
		{"a frame without a copy, zeros", zero, false, true, 1, false},
		{"a torn frame", rot, true, false, 1, true},
		{"a torn frame, zeros", zero, true, false, 1, true},
		{"a lost frame", rot, true, false, 2, false},
		{"a lost frame, zeros", zero, true, false, 2, false},
	} {
		dir := t.TempDir()
		j := open(t, dir, Options{})
		for range c.records {
			add(t, j, "one")
		}
		shut(t, j)
		change(t, segmentFile(dir, 0), func(b []byte) {
			if !c.copied {
				withoutCopy(b)
			}
			if !c.whole {
				b[block+40] ^= 1
			}
			c.lose(b)
		})
		before := files(t, dir)
		j, err := Open(dir, Options{SegmentSize: small})
		if (err == nil) != c.opens || err != nil && (!errors.Is(err, errHeader) || !strings.Contains(err.Error(), "move the files away")) {
			t.Errorf("%s: Open = %v", c.name, err)
		}
		if err == nil {
			shut(t, j)
		} else if after := files(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: %q before, %q after", c.name, before, after)
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
			if last, err := LastOf(dir); last < 7 || err != nil { // that of "four"
				t.Errorf("LastOf = %d, %v", last, err)
			}
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

// TestTornFilesDoNotPileUp: of those that seem to be torn one is kept.
func TestTornFilesDoNotPileUp(t *testing.T) {
	dir := t.TempDir()
	for n := range 3 {
		j := open(t, dir, Options{Damaged: func(error) {}})
		add(t, j, fmt.Sprint(n))
		j.chain[len(j.chain)-1].stuck = true
		add(t, j, "torn")
		torn := j.chain[len(j.chain)-1].slot
		shut(t, j)
		change(t, segmentFile(dir, torn), func(b []byte) { clear(b[30:block]); clear(b[block+70 : 2*block]) })
	}
	j := open(t, dir, Options{Damaged: func(error) {}})
	wantReplay(t, j, "1 0", "2 1", "3 2")
	shut(t, j)
	kept, err := filepath.Glob(filepath.Join(dir, unreadablePrefix+"*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept %q, %v", kept, err)
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
		b := appendRecord(beginFrame(nil), kindRecord, [][]byte{forged[:copyOctets]})
		f, _ := decodeFrame(endFrame(b, 0, c.salt, c.first, 1), c.salt)
		if got, ok := f.header(c.salt); ok != c.ok || ok && got != h {
			t.Errorf("salt %d, number %d: header %+v, %t", c.salt, c.first, got, ok)
		}
	}
}

// TestSumCoversCopy: no other header passes in a frame for the one that was written.
func TestSumCoversCopy(t *testing.T) {
	var sums []uint32
	for number := range uint64(2) {
		j := &Journal{}
		s := &segment{segmentHeader: segmentHeader{number: number, salt: 5, first: 3}}
		j.encode(s, true, []*entry{{seq: 3, kind: kindRecord, parts: [][]byte{[]byte("x")}}})
		sums = append(sums, binary.LittleEndian.Uint32(j.buf[block+4:]))
	}
	if sums[0] == sums[1] {
		t.Error("frames with different headers have the same checksum")
	}
}
