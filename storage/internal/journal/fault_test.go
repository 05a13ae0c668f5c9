package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// faulty lets some calls of the disk fail: those from number first on, as many as
// count. It sees to that nothing is tried twice.
type faulty struct {
	t            *testing.T
	writes       bool // it is writes that fail, not syncs
	first, count int
	calls        int
	refused      map[*os.File]bool
}

func (d *faulty) fails(f *os.File, write bool) error {
	if write != d.writes {
		return nil
	}
	d.calls++
	if d.calls-1 < d.first || d.calls-1 >= d.first+d.count {
		return nil
	}
	d.refused[f] = true
	return errFault
}

func (d *faulty) write(f *os.File, p []byte, off int64) error {
	if d.refused[f] && !(off == 0 && strings.HasPrefix(string(p), segmentMagic)) {
		d.t.Errorf("a write to %s at %d after one that failed", f.Name(), off)
	}
	delete(d.refused, f)
	err := d.fails(f, true)
	if err != nil {
		p = p[:len(p)/2]
	}
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return err
}

func (d *faulty) sync(f *os.File) error {
	if d.refused[f] {
		d.t.Errorf("a sync of %s after a call that failed", f.Name())
	}
	return d.fails(f, false)
}

// script is a run of a journal with checkpoints and segments of all ages. It
// returns what replay must give, and what it may give at the end of that.
func script(t *testing.T, j *Journal) (want, maybe []string) {
	t.Helper()
	for i := range 40 {
		record := fmt.Sprintf("%d,%s", i, strings.Repeat("x", i*37%11*1000))
		seq, applied, err := j.Append([]byte(record))
		line := fmt.Sprintf("%.20s", record)
		if err != nil {
			if !errors.Is(err, errFault) {
				t.Fatalf("Append = %v, want %v", err, errFault)
			}
			maybe = append(maybe, line)
		} else {
			applied()
			want, maybe = append(want, line), nil
		}
		if i%9 != 8 {
			continue
		}
		switch err := j.Checkpoint(seq); {
		case err == nil && seq > 0:
			want, maybe = nil, nil
		case err != nil && !errors.Is(err, errFault):
			t.Fatalf("Checkpoint = %v, want %v", err, errFault)
		}
	}
	return want, maybe
}

// Each call of the disk fails once, alone or with those that follow. Nothing that
// was acknowledged is lost, nothing that was refused comes back once another
// record was accepted, and the journal goes on.
func TestFaults(t *testing.T) {
	o := func(d *faulty) Options {
		return Options{MaxSegments: 4, Write: d.write, Sync: d.sync}
	}
	for _, writes := range []bool{true, false} {
		all := &faulty{t: t, writes: writes, refused: make(map[*os.File]bool)}
		j := open(t, t.TempDir(), o(all))
		script(t, j)
		shut(t, j)
		for first := range all.calls {
			for _, count := range []int{1, 4} {
				t.Run(fmt.Sprintf("writes=%t/%d-%d", writes, first, first+count-1), func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					d := &faulty{t: t, writes: writes, first: first, count: count, refused: make(map[*os.File]bool)}
					j := open(t, dir, o(d))
					want, maybe := script(t, j)
					shut(t, j)
					check := func(want, maybe []string) *Journal {
						j := open(t, dir, Options{MaxSegments: 4})
						got := replayed(t, j)
						for i := range got {
							_, got[i], _ = strings.Cut(got[i], " ")
						}
						n := min(len(want), len(got))
						if !slices.Equal(got[:n], want) || len(got[n:]) > 0 && !slices.Equal(got[n:], maybe[:min(len(maybe), len(got)-n)]) {
							t.Errorf("replayed %q, want %q and at most %q", got, want, maybe)
						}
						return j
					}
					j = check(want, maybe)
					want = append(want, maybe[:len(replayed(t, j))-len(want)]...)
					add(t, j, "more")
					shut(t, j)
					shut(t, check(append(want, "more"), nil))
				})
			}
		}
	}
}

// After a failure of a first frame, which may be on the disk all the same, the
// segment before it must not take more: its end is in that header.
func TestFirstFrameFails(t *testing.T) {
	dir := t.TempDir()
	var seen string // the segment whose sync failed, as the disk has it
	var content []byte
	fails := false
	j := open(t, dir, Options{Sync: func(f *os.File) (err error) {
		if fails {
			seen = f.Name()
			content, err = os.ReadFile(seen)
			return errors.Join(errFault, err)
		}
		return nil
	}})
	add(t, j, "one")
	fails = true
	if _, _, err := j.Append(make([]byte, small-2*block)); !errors.Is(err, errFault) {
		t.Fatalf("Append = %v, want %v", err, errFault)
	}
	fails = false
	if _, err := os.Stat(seen); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new segment is still there: %v", err)
	}
	two := add(t, j, "two") // has room in the first segment
	shut(t, j)
	if err := os.WriteFile(seen, content, 0o600); err != nil { // the crash has lost the removal
		t.Fatal(err)
	}
	j = open(t, dir, Options{})
	wantReplay(t, j, "1 one", fmt.Sprintf("%d two", two))
	shut(t, j)
}

// A number that was given to a record that failed may have been read by LastOf,
// so no other record gets it; and a gap is no loss.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	dir := t.TempDir()
	fails := false
	j := open(t, dir, Options{Sync: func(*os.File) error {
		if fails {
			return errFault
		}
		return nil
	}})
	one := add(t, j, "one")
	fails = true
	if _, _, err := j.Append([]byte("two")); !errors.Is(err, errFault) {
		t.Fatalf("Append = %v, want %v", err, errFault)
	}
	last, err := LastOf(dir)
	if err != nil || last < one {
		t.Errorf("LastOf = %d, %v, want at least %d", last, err, one)
	}
	fails = false
	three := add(t, j, "three")
	if three <= last {
		t.Errorf("a record has number %d, LastOf was %d before", three, last)
	}
	if err := j.Checkpoint(one); err != nil {
		t.Fatal(err)
	}
	shut(t, j)
	j = open(t, dir, Options{}) // reports no damage, though the segment of one and two is gone
	wantReplay(t, j, fmt.Sprintf("%d three", three))
	shut(t, j)
}

// What a process has written and not synced, because it was killed, is synced
// before it counts, and the segment is left as it is.
func TestOpenSyncs(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	add(t, j, "one")
	shut(t, j)
	var synced []string
	j = open(t, dir, Options{Sync: func(f *os.File) error {
		synced = append(synced, f.Name())
		return nil
	}})
	if left := files(t, dir); len(synced) == 0 || synced[0] != left[0] {
		t.Fatalf("synced %q, and %q has a record", synced, left[0])
	}
	before, err := os.ReadFile(synced[0])
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, "two")
	if after, err := os.ReadFile(synced[0]); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the segment of the process before was changed, error %v", err)
	}
	wantReplay(t, j, "1 one", "2 two")
	shut(t, j)
	_, err = Open(dir, Options{Sync: func(*os.File) error { return errFault }})
	if !errors.Is(err, errFault) {
		t.Errorf("Open = %v, want %v", err, errFault)
	}
}

// TestBadSegmentsAreDropped: where the disk has failed once, nothing is written
// again.
func TestBadSegmentsAreDropped(t *testing.T) {
	dir := t.TempDir()
	broken := false
	var bad string
	j := open(t, dir, Options{Sync: func(f *os.File) error {
		if broken {
			bad = f.Name()
			return errFault
		}
		return nil
	}})
	add(t, j, "one")
	broken = true
	if _, _, err := j.Append([]byte("two")); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	broken = false
	last := add(t, j, "three")
	if !slices.Contains(files(t, dir), bad) {
		t.Fatal("the segment is gone, with records that are needed")
	}
	if err := j.Checkpoint(last); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(files(t, dir), bad) {
		t.Errorf("%s is kept for another use", bad)
	}
	shut(t, j)
}

// TestRemovedSegment: what is written to a file that somebody has removed is not
// taken for safe, and the journal goes on in another.
func TestRemovedSegment(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	one := add(t, j, "one")
	if err := os.Remove(j.chain[0].file.Name()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := j.Append([]byte("two")); err == nil {
		t.Error("a record was taken that nobody will find")
	}
	three := add(t, j, "three")
	shut(t, j)
	var reports []error
	j = open(t, dir, Options{Damaged: func(err error) { reports = append(reports, err) }})
	wantReplay(t, j, fmt.Sprintf("%d three", three))
	if len(reports) != 1 || !strings.Contains(reports[0].Error(), fmt.Sprintf("lost records 1 to %d", one)) {
		t.Errorf("reports %q", reports)
	}
	shut(t, j)
}

// TestFailedFrameIsFenced: what a failed write has left on the disk is no record of
// the next process, if a checkpoint succeeds in between. One is asked for.
func TestFailedFrameIsFenced(t *testing.T) {
	for _, last := range []string{"", "two"} { // also when there is nothing else to do
		dir := t.TempDir()
		fails := false
		j := open(t, dir, Options{Sync: func(*os.File) error {
			if fails {
				return errFault
			}
			return nil
		}})
		if err := j.Checkpoint(add(t, j, "one")); err != nil {
			t.Fatal(err)
		}
		want := []string(nil)
		if last != "" {
			want = []string{fmt.Sprintf("%d %s", add(t, j, last), last)}
		}
		fails = true
		if _, _, err := j.Append([]byte("refused")); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		fails = false
		if !j.Needed() {
			t.Error("no checkpoint is needed")
		}
		covered := uint64(1)
		if last == "" {
			covered = j.Last()
		}
		if err := j.Checkpoint(covered); err != nil {
			t.Fatal(err)
		}
		if j.Needed() != (last != "") {
			t.Errorf("a checkpoint is needed: %t", j.Needed())
		}
		shut(t, j)
		j = open(t, dir, Options{})
		wantReplay(t, j, want...)
		shut(t, j)
	}
}

// TestMovedDirectory: a journal whose directory was moved away does nothing to one
// that is in its place.
func TestMovedDirectory(t *testing.T) {
	dir := t.TempDir()
	path, away := filepath.Join(dir, "journal"), filepath.Join(dir, "away")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	j := open(t, path, Options{})
	if err := errors.Join(os.Rename(path, away), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	other := open(t, path, Options{})
	before := files(t, path)
	var last uint64
	for range 40 {
		last = add(t, j, strings.Repeat("x", 5000))
	}
	if err := j.Checkpoint(last); err != nil { // gives segments back, and removes some
		t.Fatal(err)
	}
	if after := files(t, path); !slices.Equal(before, after) {
		t.Errorf("the files were %q and are %q", before, after)
	}
	shut(t, j)
	shut(t, other)
	j = open(t, away, Options{})
	wantReplay(t, j)
	if j.Last() < last {
		t.Errorf("Last() = %d, want %d", j.Last(), last)
	}
	shut(t, j)
}
