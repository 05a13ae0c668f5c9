package journal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// blind fails to read the headers of some segments, so many times each.
type blind struct {
	names []string // none: of all
	times int
	both  bool // the copies too
	tries map[string]int
}

func (b *blind) read(f *os.File, p []byte, off int64) (int, error) {
	name := filepath.Base(f.Name())
	if (off == 0 || off == block && b.both) && (len(b.names) == 0 || slices.Contains(b.names, name)) {
		if b.tries[name]++; b.tries[name] <= b.times {
			return 0, unix.EIO
		}
	}
	return f.ReadAt(p, off)
}

// TestUnreadableHeaders: when headers cannot be read for a while, no record is lost:
// the journal does not open, or nothing was there, or a second try helps.
func TestUnreadableHeaders(t *testing.T) {
	const ever = 1000
	for _, c := range []struct {
		name  string
		blind blind
		opens bool
	}{
		{"all", blind{times: ever, both: true}, false},
		{"the only one that has records", blind{names: []string{"segment-1"}, times: ever, both: true}, false},
		{"two", blind{names: []string{"segment-0", "segment-2"}, times: ever, both: true}, false},
		{"one that has no records", blind{names: []string{"segment-2"}, times: ever, both: true}, true},
		{"all, but the copies can be", blind{times: ever}, true},
		{"all, once", blind{times: 1, both: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Options{})
			j.free = append(j.free[1:], j.free[0]) // begin with segment-1
			for _, r := range []string{"one", "two"} {
				add(t, j, r)
			}
			shut(t, j)
			before := files(t, dir)
			c.blind.tries = make(map[string]int)
			j, err := Open(dir, Options{SegmentSize: small, Read: c.blind.read})
			if opens := err == nil; opens != c.opens || !opens && (!errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "move the files away")) {
				t.Errorf("Open = %v", err)
			}
			if err == nil {
				wantReplay(t, j, "1 one", "2 two")
				shut(t, j)
			} else if after := files(t, dir); !slices.Equal(before, after) {
				t.Errorf("%q before, %q after", before, after)
			}
			j = open(t, dir, Options{})
			wantReplay(t, j, "1 one", "2 two")
			shut(t, j)
		})
	}
}

// TestUnreadableIsKept: a segment that could not be read is not used, and not removed
// either, by whatever name.
func TestUnreadableIsKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "unreadable-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, Options{})
	add(t, j, "one")
	j.chain[0].stuck = true
	add(t, j, "two")
	shut(t, j)
	lost, err := os.ReadFile(filepath.Join(dir, "segment-1"))
	if err != nil {
		t.Fatal(err)
	}
	b := blind{names: []string{"segment-1"}, times: 3, both: true, tries: make(map[string]int)}
	var reports []string
	j = open(t, dir, Options{Read: b.read, Damaged: func(err error) { reports = append(reports, err.Error()) }})
	wantReplay(t, j, "1 one")
	if len(reports) != 1 || !strings.Contains(reports[0], "segment-1 has no valid header, and is now unreadable-2: ") {
		t.Errorf("reports %q", reports)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "unreadable-2"))
	if err != nil || !slices.Equal(kept, lost) {
		t.Errorf("kept %d octets of %d: %v", len(kept), len(lost), err)
	}
	shut(t, j)
	j = open(t, dir, Options{})
	wantReplay(t, j, "1 one")
	shut(t, j)
}
