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

const small = 64 << 10 // octets of a segment

func open(t *testing.T, dir string, o Options) *Journal {
	t.Helper()
	if o.SegmentSize == 0 {
		o.SegmentSize = small
	}
	if o.Damaged == nil {
		o.Damaged = func(err error) { t.Errorf("damage was reported: %v", err) }
	}
	if o.Sync == nil {
		o.Sync = func(*os.File) error { return nil }
	}
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func shut(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// add appends a record that is applied at once.
func add(t *testing.T, j *Journal, record string) uint64 {
	t.Helper()
	seq, applied, err := j.Append([]byte(record))
	if err != nil {
		t.Fatal(err)
	}
	applied()
	return seq
}

// replayed lists records as number and the first octets.
func replayed(t *testing.T, j *Journal) (got []string) {
	t.Helper()
	err := j.Replay(func(seq uint64, record []byte) error {
		got = append(got, fmt.Sprintf("%d %.20s", seq, record))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantReplay(t *testing.T, j *Journal, want ...string) {
	t.Helper()
	if got := replayed(t, j); !slices.Equal(got, want) {
		t.Errorf("replayed %q, want %q", got, want)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	got, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	if j.Needed() || j.Last() != 0 {
		t.Errorf("a new journal: Needed() = %t, Last() = %d", j.Needed(), j.Last())
	}
	add(t, j, "one")
	add(t, j, "")
	if _, applied, err := j.Append([]byte("th"), nil, []byte("ree")); err != nil {
		t.Fatal(err)
	} else {
		applied()
	}
	wantReplay(t, j, "1 one", "2 ", "3 three")
	for range 3 { // opening it alone changes nothing
		shut(t, j)
		j = open(t, dir, Options{})
		wantReplay(t, j, "1 one", "2 ", "3 three")
	}
	if err := j.Checkpoint(2); err != nil {
		t.Fatal(err)
	}
	wantReplay(t, j, "3 three")
	add(t, j, "five")
	shut(t, j)
	j = open(t, dir, Options{})
	wantReplay(t, j, "3 three", "5 five")
	if !j.Needed() || j.Last() != 5 {
		t.Errorf("Needed() = %t, Last() = %d, want true, 5", j.Needed(), j.Last())
	}
	if err := j.Checkpoint(j.Last()); err != nil {
		t.Fatal(err)
	}
	shut(t, j)
	j = open(t, dir, Options{})
	wantReplay(t, j)
	if j.Needed() {
		t.Error("Needed() = true after a checkpoint of everything")
	}
	shut(t, j)
}

func TestReplayEndsWithError(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	defer shut(t, j)
	add(t, j, "one")
	add(t, j, "two")
	stop, calls := errors.New("stop"), 0
	err := j.Replay(func(uint64, []byte) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Replay = %v after %d calls, want %v after 1", err, calls, stop)
	}
}

func TestRecordSizes(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	most := small - block - frameOverhead - maxRecordHeader
	var want []string
	for i, size := range []int{0, 1, block - 40, block - frameHeader - 3, block, 3*block + 1, most} {
		want = append(want, fmt.Sprintf("%d %.20s", i+1, strings.Repeat("x", size)))
		add(t, j, strings.Repeat("x", size))
	}
	if _, _, err := j.Append(make([]byte, most+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Append of one octet too many = %v, want %v", err, ErrTooLarge)
	}
	wantReplay(t, j, want...)
	shut(t, j)
	j = open(t, dir, Options{})
	defer shut(t, j)
	wantReplay(t, j, want...)
	for _, name := range files(t, dir) {
		if st, err := os.Stat(name); err != nil || st.Size() != small {
			t.Errorf("%s: size %v, error %v, want %d", name, st.Size(), err, small)
		}
	}
}

func TestSegmentsAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{MaxSegments: 4})
	record := strings.Repeat("x", 5000)
	for i := range 600 {
		seq := add(t, j, record)
		if i%20 == 19 {
			if err := j.Checkpoint(seq); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(files(t, dir)); n > 4+2 {
			t.Fatalf("%d files after %d records", n, i+1)
		}
	}
	want := replayed(t, j)
	last := j.Last()
	shut(t, j)
	j = open(t, dir, Options{MaxSegments: 4})
	defer shut(t, j)
	wantReplay(t, j, want...)
	if j.Last() != last {
		t.Errorf("Last() = %d, want %d", j.Last(), last)
	}
}

// What is overwritten needs no metadata, so a segment has all its blocks before
// they are used.
func TestSegmentsGrowByZeros(t *testing.T) {
	var writes []string
	j := open(t, t.TempDir(), Options{SegmentSize: 3 << 20, Write: func(f *os.File, p []byte, off int64) error {
		kind := "frame"
		if len(bytes.Trim(p, "\x00")) == 0 {
			kind = "zeros"
		}
		writes = append(writes, fmt.Sprintf("%s %d+%d", kind, off, len(p)))
		_, err := f.WriteAt(p, off)
		return err
	}})
	defer shut(t, j)
	want := []string{"zeros 0+1048576", "zeros 0+1048576", "zeros 0+1048576", "zeros 1048576+1048576", "zeros 2097152+1048576"}
	if !slices.Equal(writes, want) {
		t.Errorf("writes of a new journal %q, want %q", writes, want)
	}
	writes = nil
	add(t, j, "one")
	add(t, j, "two")
	for range 3 {
		add(t, j, strings.Repeat("x", 1<<20))
	}
	want = []string{"frame 0+8192", "frame 8192+4096", "frame 12288+1052672", "frame 1064960+1052672",
		"zeros 0+1048576", "zeros 1048576+1048576", "frame 0+1056768"}
	if !slices.Equal(writes, want) {
		t.Errorf("writes %q, want %q", writes, want)
	}
}

func TestClosed(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	shut(t, j)
	if _, _, err := j.Append([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Append = %v, want %v", err, ErrClosed)
	}
	if err := j.Checkpoint(1); !errors.Is(err, ErrClosed) {
		t.Errorf("Checkpoint = %v, want %v", err, ErrClosed)
	}
}

func TestOpenNothing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := Open(missing, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open = %v, want %v", err, os.ErrNotExist)
	}
	if _, err := LastOf(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LastOf = %v, want %v", err, os.ErrNotExist)
	}
	if n, err := LastOf(t.TempDir()); n != 0 || err != nil {
		t.Errorf("LastOf an empty directory = %d, %v", n, err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	names := []string{"removed", "segment-", "segment--1", "segment-x", "segment-99999999999999999999"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := open(t, dir, Options{})
	add(t, j, "one")
	shut(t, j)
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() != 0 {
			t.Errorf("%s was touched: %v", name, err)
		}
	}
}

// LastOf is what a command beside the server calls.
func TestLastOfBesideAppends(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{MaxSegments: 4})
	defer shut(t, j)
	enough, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		record := []byte(strings.Repeat("x", 9000))
		for n, more := 0, true; more || n < 500; n++ {
			select {
			case <-enough:
				more = false
			default:
			}
			seq, applied, err := j.Append(record)
			if err != nil {
				t.Error(err)
				return
			}
			applied()
			if err := j.Checkpoint(seq); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 50 {
		before := j.Last()
		got, err := LastOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got < before {
			t.Fatalf("LastOf = %d when %d was acknowledged before", got, before)
		}
	}
	close(enough)
	<-ended
	if got, err := LastOf(dir); got != j.Last() || err != nil {
		t.Errorf("LastOf = %d, %v, want %d", got, err, j.Last())
	}
}
