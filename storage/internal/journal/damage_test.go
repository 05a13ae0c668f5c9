package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A damaged disk is told of; what can be read is.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name    string
		offset  int64
		reports int
		want    []string
	}{
		{"frame in the middle", 2*block + 34, 1, []string{"1 one", "3 three"}},
		{"last frame, like a torn write", 3*block + 34, 0, []string{"1 one", "2 two"}},
		{"padding", 4*block - 1, 0, []string{"1 one", "2 two", "3 three"}},
		{"header", 20, 0, []string{"1 one", "2 two", "3 three"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Options{})
			for _, r := range []string{"one", "two", "three"} {
				add(t, j, r)
			}
			shut(t, j)
			f, err := os.OpenFile(files(t, dir)[0], os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte{0xff}, c.offset)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			reports := 0
			j = open(t, dir, Options{Damaged: func(error) { reports++ }})
			defer shut(t, j)
			wantReplay(t, j, c.want...)
			if reports != c.reports {
				t.Errorf("%d reports, want %d", reports, c.reports)
			}
		})
	}
}

func TestLostSegmentIsReported(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	for range 30 {
		add(t, j, strings.Repeat("x", 5000))
	}
	shut(t, j)
	if err := os.Remove(files(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	var reports []string
	j = open(t, dir, Options{Damaged: func(err error) { reports = append(reports, err.Error()) }})
	defer shut(t, j)
	if len(reports) != 1 || !strings.Contains(reports[0], "lost records 1 to ") {
		t.Errorf("reports %q", reports)
	}
}

// badBlocks fails to read some blocks, as offsets by the name of the file.
type badBlocks map[string][]int64

func (d badBlocks) read(f *os.File, p []byte, off int64) (int, error) {
	for _, at := range d[filepath.Base(f.Name())] {
		if off < at+block && at < off+int64(len(p)) {
			n, _ := f.ReadAt(p[:max(at-off, 0)], off)
			return n, unix.EIO
		}
	}
	return f.ReadAt(p, off)
}

// TestUnreadable: the journal opens though the disk cannot read some of it, tells of
// what it needs of that, and reads no more than it needs.
func TestUnreadable(t *testing.T) {
	for _, c := range []struct {
		name    string
		bad     badBlocks
		reports []string // parts of them
		want    []string
		kept    int // files
	}{
		{"frame in the middle", badBlocks{"segment-1": {3 * block}}, []string{"segment-1 is damaged"}, []string{"6 four", "8 six"}, 1},
		{"last frame", badBlocks{"segment-1": {4 * block}}, []string{"segment-1 is damaged"}, []string{"6 four", "7 five"}, 1},
		{"behind the last frame", badBlocks{"segment-1": {8 * block}}, []string{"segment-1 is damaged"}, []string{"6 four", "7 five", "8 six"}, 1},
		{"not needed any more", badBlocks{"segment-0": {block}}, nil, []string{"6 four", "7 five", "8 six"}, 0},
		{"header", badBlocks{"segment-1": {0}}, nil, []string{"6 four", "7 five", "8 six"}, 0},
		{"header that is not needed", badBlocks{"segment-0": {0}}, nil, []string{"6 four", "7 five", "8 six"}, 0},
		{"first frame", badBlocks{"segment-1": {block}}, []string{"segment-1 is damaged"}, []string{"1 one", "3 two", "4 three", "6 four", "7 five", "8 six"}, 1},
		{"header and first frame", badBlocks{"segment-1": {0, block}}, []string{"segment-1 has no valid header"}, []string{"1 one", "3 two", "4 three"}, 1},
		{"both that are not needed", badBlocks{"segment-0": {0, block}}, []string{"segment-0 has no valid header"}, []string{"6 four", "7 five", "8 six"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Options{})
			one := add(t, j, "one")
			if err := j.Checkpoint(one - 1); err != nil {
				t.Fatal(err)
			}
			add(t, j, "two")
			three := add(t, j, "three")
			j.chain[0].stuck = true
			if err := j.Checkpoint(three); err != nil {
				t.Fatal(err)
			}
			for _, r := range []string{"four", "five", "six"} {
				add(t, j, r)
			}
			shut(t, j)
			var reports []error
			o := Options{Read: c.bad.read, Damaged: func(err error) { reports = append(reports, err) }}
			j = open(t, dir, o)
			wantReplay(t, j, c.want...)
			for i, err := range reports {
				if i >= len(c.reports) || !strings.Contains(err.Error(), c.reports[i]) {
					t.Errorf("report %d: %v, want %q", i, err, c.reports)
				}
			}
			if len(reports) < len(c.reports) {
				t.Errorf("reports %q, want %q", reports, c.reports)
			}
			last := add(t, j, "more")
			if err := j.Checkpoint(last); err != nil {
				t.Fatal(err)
			}
			shut(t, j)
			kept, err := filepath.Glob(filepath.Join(dir, unreadablePrefix+"*"))
			if err != nil || len(kept) != c.kept {
				t.Errorf("kept %q, %v, want %d", kept, err, c.kept)
			}
			reports = nil
			j = open(t, dir, o) // a segment that could not be read is not used again
			wantReplay(t, j)
			if len(reports) > 0 {
				t.Errorf("reports of the next start %q", reports)
			}
			shut(t, j)
		})
	}
}

// TestUnreadableForGood: when the disk can read nothing, that is not taken for some
// damage.
func TestUnreadableForGood(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentSize: growth})
	add(t, j, "one")
	shut(t, j)
	bad := badBlocks{}
	for at := int64(block); at < growth; at += block {
		bad["segment-0"] = append(bad["segment-0"], at)
	}
	_, err := Open(dir, Options{SegmentSize: growth, Read: bad.read})
	if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "move the file away: reading "+dir+"/segment-0") {
		t.Errorf("Open = %v, want %v", err, unix.EIO)
	}
}

// TestReplaySeesDamage: records that are lost while the journal is open are not
// passed over.
func TestReplaySeesDamage(t *testing.T) {
	for name, damage := range map[string]func(j *Journal, file string) error{
		"changed": func(_ *Journal, file string) error {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0xff}, 3*block+34)
			return errors.Join(err, f.Close())
		},
		"unreadable": func(j *Journal, _ string) error {
			j.options.Read = badBlocks{"segment-0": {3 * block}}.read
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Options{})
			for _, r := range []string{"one", "two", "three"} {
				add(t, j, r)
			}
			if err := damage(j, files(t, dir)[0]); err != nil {
				t.Fatal(err)
			}
			err := j.Replay(func(uint64, []byte) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "segment-0 is damaged") {
				t.Errorf("Replay = %v of a damaged journal", err)
			}
			shut(t, j)
		})
	}
}
