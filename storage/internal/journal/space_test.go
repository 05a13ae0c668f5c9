package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// smallDisk has room for some octets, which are counted when they are first
// written.
type smallDisk struct {
	room  int64
	sizes map[string]int64
}

func (d *smallDisk) write(f *os.File, p []byte, off int64) error {
	more := off + int64(len(p)) - d.sizes[f.Name()]
	if more > d.room {
		return unix.ENOSPC
	}
	if more > 0 {
		d.room -= more
		d.sizes[f.Name()] += more
	}
	_, err := f.WriteAt(p, off)
	return err
}

// TestFullDisk: when most records are refused for want of room, those that make
// room are taken, and the checkpoint that gives it.
func TestFullDisk(t *testing.T) {
	disk := &smallDisk{room: 1 << 30, sizes: make(map[string]int64)}
	dir := t.TempDir()
	o := Options{SegmentSize: 4 << 20, Write: disk.write}
	j := open(t, dir, o)
	disk.room = 0
	text := strings.Repeat("x", 60000)
	taken := 0
	for {
		_, applied, err := j.Append([]byte(text))
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil || taken > 1000 {
			t.Fatalf("record %d: %v", taken, err)
		}
		applied()
		taken++
	}
	for range 1000 { // who is refused does not use up what is kept
		if _, _, err := j.Append([]byte(text)); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("Append = %v, want no space", err)
		}
	}
	var last uint64
	for i := range 50 {
		seq, applied, err := j.AppendUrgent([]byte("removed"))
		if err != nil {
			t.Fatalf("urgent record %d: %v", i, err)
		}
		applied()
		last = seq
	}
	shut(t, j)
	j = open(t, dir, o)
	if n := len(replayed(t, j)); n != taken+50 {
		t.Errorf("%d records, want %d", n, taken+50)
	}
	if err := j.Checkpoint(last); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	for range 3 { // what it gave back is used again
		add(t, j, text)
	}
	shut(t, j)
}

// TestUrgentIsUsedUp: what is kept for urgent records is not for ever, and leaves
// the checkpoint its own.
func TestUrgentIsUsedUp(t *testing.T) {
	disk := &smallDisk{room: 1 << 30, sizes: make(map[string]int64)}
	j := open(t, t.TempDir(), Options{SegmentSize: 2 << 20, MaxSegments: 20, Write: disk.write})
	defer shut(t, j)
	disk.room = 0
	var err error
	var last uint64
	for n := 0; err == nil; n++ {
		if n > 1000 {
			t.Fatal("a full disk takes everything")
		}
		var seq uint64
		var applied Applied
		if seq, applied, err = j.AppendUrgent(make([]byte, 60000)); err == nil {
			applied()
			last = seq
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("AppendUrgent = %v, want no space", err)
	}
	if err := j.Checkpoint(last); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
	if _, applied, err := j.AppendUrgent(make([]byte, 60000)); err != nil {
		t.Errorf("after the checkpoint: %v", err)
	} else {
		applied()
	}
}

// TestFullDiskAtOpen: the journal can be opened, and takes what it has room for.
func TestFullDiskAtOpen(t *testing.T) {
	disk := &smallDisk{room: 3 << 20, sizes: make(map[string]int64)}
	dir := t.TempDir()
	o := Options{SegmentSize: 4 << 20, Write: disk.write}
	j := open(t, dir, o)
	add(t, j, "one")
	shut(t, j)
	disk.room = 0
	for range 3 {
		j = open(t, dir, o)
		if _, _, err := j.Append([]byte("two")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Append = %v, want no space", err)
		}
		wantReplay(t, j, "1 one")
		shut(t, j)
	}
	j = open(t, dir, o)
	_, applied, err := j.AppendUrgent([]byte("removed"))
	if err != nil {
		t.Fatal(err)
	}
	applied()
	disk.room = 100 << 20
	add(t, j, "three")
	if got := replayed(t, j); len(got) != 3 {
		t.Errorf("%q", got)
	}
	shut(t, j)
}

// fillBlocks appends records until the segment in use has fewer blocks than a
// record of 60,000 octets takes, but some. The disk is full then, with as
// many segments free as most records must leave.
func fillBlocks(t *testing.T, disk *smallDisk) (j *Journal, dir string) {
	t.Helper()
	dir = t.TempDir()
	disk.room, disk.sizes = 3<<20, make(map[string]int64) // the first segments
	j = open(t, dir, Options{SegmentSize: 4 << 20, Write: disk.write})
	disk.room = 0
	for range 16 {
		add(t, j, strings.Repeat("x", 60000))
	}
	add(t, j, "one block")
	if last := j.chain[0]; len(j.chain) != 1 || len(j.free) != keptByMost || last.end+60000 <= last.size || last.end+3*block > last.size {
		t.Fatalf("%d segments in use, %d free, %d of %d octets used", len(j.chain), len(j.free), last.end, last.size)
	}
	return j, dir
}

// TestMostStayOutOfWhatIsKept: a segment that urgent records have begun to use has
// much room, but not for others.
func TestMostStayOutOfWhatIsKept(t *testing.T) {
	j, _ := fillBlocks(t, &smallDisk{})
	defer shut(t, j)
	for i := range 100 {
		if _, _, err := j.Append(make([]byte, 60000)); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("Append %d = %v, want no space", i, err)
		}
		_, applied, err := j.AppendUrgent([]byte("removed"))
		if err != nil {
			t.Fatalf("urgent record %d: %v", i, err)
		}
		applied()
	}
}

// TestRefusedDoNotTakeOthersAlong: an urgent record that waits together with
// others, for which there is no room, is taken all the same.
func TestRefusedDoNotTakeOthersAlong(t *testing.T) {
	for name, urgentFirst := range map[string]bool{"urgent first": true, "urgent last": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, _ := fillBlocks(t, &smallDisk{})
				g := newGate()
				j.options.Sync = g.sync
				var wg sync.WaitGroup
				wg.Go(func() { add(t, j, "small") })
				<-g.entered
				urgent := func() {
					if _, applied, err := j.AppendUrgent([]byte("removed")); err != nil {
						t.Errorf("urgent record: %v", err)
					} else {
						applied()
					}
				}
				other := func() {
					if _, _, err := j.Append(make([]byte, 60000)); !errors.Is(err, unix.ENOSPC) {
						t.Errorf("Append = %v, want no space", err)
					}
				}
				waiting := []func(){other, urgent}
				if urgentFirst {
					waiting = []func(){urgent, other}
				}
				for _, w := range waiting {
					wg.Go(w)
					synctest.Wait()
				}
				close(g.leave)
				go func() {
					for range g.entered {
					}
				}()
				wg.Wait()
				close(g.entered)
				shut(t, j)
			})
		})
	}
}

// TestCheckpointsAreNeverShutOut: also one that gives nothing back, because records
// of all segments are still needed, leaves the next one its room.
func TestCheckpointsAreNeverShutOut(t *testing.T) {
	j, _ := fillBlocks(t, &smallDisk{})
	defer shut(t, j)
	urgent := func() (last uint64, err error) {
		for range 2000 {
			seq, applied, err := j.AppendUrgent(make([]byte, 9000))
			if err != nil {
				return last, err
			}
			applied()
			last = seq
		}
		return last, nil
	}
	for range 3 {
		last, err := urgent()
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("AppendUrgent = %v, want no space", err)
		}
		if err := j.Checkpoint(1); err != nil {
			t.Fatalf("checkpoint of one record: %v", err)
		}
		if more, _ := urgent(); more != 0 {
			t.Error("an urgent record was taken where the next checkpoint must go")
		}
		if err := j.Checkpoint(last); err != nil {
			t.Fatalf("checkpoint: %v", err)
		}
	}
}

// TestKeptSegmentsAreMadeAgain: when the disk has room again, what was used up on
// a full disk is replaced, and a second full disk is borne as well.
func TestKeptSegmentsAreMadeAgain(t *testing.T) {
	disk := &smallDisk{}
	j, dir := fillBlocks(t, disk)
	for range 3 {
		disk.room = 0
		last := uint64(0)
		for {
			seq, applied, err := j.AppendUrgent(make([]byte, 60000))
			if err != nil {
				break
			}
			applied()
			last = seq
		}
		if last == 0 {
			t.Error("no urgent record was taken")
		}
		disk.room = 100 << 20
		add(t, j, "there is room")
		if len(j.free) < keptByMost {
			t.Errorf("%d free segments", len(j.free))
		}
	}
	want := replayed(t, j)
	shut(t, j)
	j = open(t, dir, Options{SegmentSize: 4 << 20})
	wantReplay(t, j, want...)
	shut(t, j)
}

// TestUnfinishedSegments: files that a process was making when it ended do not
// pass for segments that are kept.
func TestUnfinishedSegments(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int{0, block, 1 << 19} {
		name := filepath.Join(dir, fmt.Sprint(segmentPrefix, i))
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk := &smallDisk{room: 3 << 20, sizes: make(map[string]int64)}
	j := open(t, dir, Options{SegmentSize: 4 << 20, Write: disk.write})
	defer shut(t, j)
	disk.room = 0
	if len(j.free) != keptByMost+1 {
		t.Errorf("%d free segments", len(j.free))
	}
	for _, s := range j.free {
		if st, err := s.file.Stat(); err != nil || st.Size() < growth {
			t.Errorf("%s is kept with %d octets, %v", s.file.Name(), st.Size(), err)
		}
	}
	for i := range 20 { // more than the first segment takes
		_, applied, err := j.AppendUrgent(make([]byte, 60000))
		if err != nil {
			t.Fatalf("urgent record %d: %v", i, err)
		}
		applied()
	}
}

// TestNoDiskAtOpen: without any room the journal opens, and works when there is
// some.
func TestNoDiskAtOpen(t *testing.T) {
	disk := &smallDisk{sizes: make(map[string]int64)}
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentSize: 4 << 20, Write: disk.write})
	for name, appendTo := range map[string]func(...[]byte) (uint64, Applied, error){"Append": j.Append, "AppendUrgent": j.AppendUrgent} {
		if _, _, err := appendTo([]byte("x")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s = %v, want no space", name, err)
		}
	}
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left of segments that could not be made: %q", left)
	}
	disk.room = 100 << 20
	add(t, j, "one")
	wantReplay(t, j, "1 one")
	shut(t, j)
}
