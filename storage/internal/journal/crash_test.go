package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// ledger is what a user of the journal knows about the records.
type ledger struct {
	mu       sync.Mutex
	ids      uint64
	acked    map[uint64]uint64 // number of a record to its id
	maybe    map[uint64]bool   // ids that Append returned an error for, or nothing
	refused  []uint64          // the same, in the order of the errors
	never    map[uint64]bool   // ids that must not be replayed
	covered  uint64            // by checkpoints that succeeded
	intended uint64            // by any
}

// content is a record of an id: it tells from its octets that it is whole.
func content(id uint64) []byte {
	rnd := rand.New(rand.NewPCG(id, 7))
	b := make([]byte, 8+rnd.IntN(9000))
	binary.BigEndian.PutUint64(b, id)
	for i := 8; i < len(b); i++ {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// append appends a record, and notes what came of it.
func (l *ledger) append(t *testing.T, j *Journal) bool {
	l.mu.Lock()
	l.ids++
	id, refused := l.ids, len(l.refused)
	l.maybe[id] = true
	l.mu.Unlock()
	b := content(id)
	appendTo := j.Append
	if id%3 == 0 {
		appendTo = j.AppendUrgent
	}
	seq, applied, err := appendTo(b[:4], b[4:])
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if !errors.Is(err, errCrashed) {
			l.refused = append(l.refused, id)
		}
		return !errors.Is(err, errCrashed)
	}
	applied()
	delete(l.maybe, id)
	if l.acked[seq] != 0 {
		t.Errorf("the number %d was given twice", seq)
	}
	l.acked[seq] = id
	l.forbid(refused)
	return true
}

// forbid notes that the first so many records that were refused must not be replayed.
func (l *ledger) forbid(refused int) {
	for _, id := range l.refused[:refused] {
		l.never[id] = true
	}
}

// fence fences off what was refused, and notes that.
func (l *ledger) fence(j *Journal) {
	l.mu.Lock()
	refused := len(l.refused)
	l.mu.Unlock()
	if j.Fence() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forbid(refused)
}

func (l *ledger) checkpoint(j *Journal) bool {
	seq, err := j.Settled(context.Background())
	if err != nil {
		return false
	}
	l.mu.Lock()
	l.intended = max(l.intended, seq)
	l.mu.Unlock()
	if err = j.Checkpoint(seq); err != nil {
		j.Stall(err)
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.covered = max(l.covered, seq)
	return true
}

// check compares what is replayed with what must be and with what may be, and goes
// on from there. certain is false when the disk has once failed to sync: records
// that were not acknowledged may then be read now and be gone later.
func (l *ledger) check(t *testing.T, j *Journal, certain bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[uint64]uint64)
	maybe := make(map[uint64]bool)
	var last uint64
	err := j.Replay(func(seq uint64, record []byte) error {
		if seq <= last || seq <= l.covered {
			t.Errorf("record %d came after %d, the checkpoint is %d", seq, last, l.covered)
		}
		last = seq
		if len(record) < 8 {
			return fmt.Errorf("record %d has %d octets", seq, len(record))
		}
		id := binary.BigEndian.Uint64(record)
		if !bytes.Equal(record, content(id)) {
			t.Errorf("record %d is not what was appended", seq)
		}
		switch {
		case l.never[id]:
			t.Errorf("record %d was refused, and that was made durable", seq)
		case l.acked[seq] == id:
		case !l.maybe[id]:
			t.Errorf("record %d should not be there", seq)
		case !certain:
			maybe[id] = true
			return nil
		}
		found[seq] = id
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for seq, id := range l.acked {
		if found[seq] == id {
			continue
		}
		if seq > l.intended {
			t.Errorf("acknowledged record %d is lost, replay ended at %d", seq, last)
		} else if seq > l.covered && !certain {
			maybe[id] = true // a checkpoint that failed is read now, and may be gone later
		}
	}
	if got := j.Last(); got < last {
		t.Errorf("Last() = %d, want at least %d", got, last)
	}
	l.acked, l.maybe, l.refused, l.intended = found, maybe, nil, l.covered
}

// A journal is cut off at random calls of the disk, by power cuts and by kills of
// the process, with a disk that fails now and then or becomes full, and opened again,
// now and then without the header of one segment, for several generations.
func TestCrashes(t *testing.T) {
	lives := 24
	if testing.Short() {
		lives = 8
	}
	for seed := range lives {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			faults := []float64{0, 0, 0.02, 0.1, 0.3}[rnd.IntN(5)]
			disk := newSimDisk(rnd, t.TempDir())
			l := &ledger{acked: make(map[uint64]uint64), maybe: make(map[uint64]bool), never: make(map[uint64]bool)}
			for range 8 {
				disk = live(t, l, disk, faults)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// live is one generation: from opening the journal to a crash.
func live(t *testing.T, l *ledger, disk *simDisk, faults float64) *simDisk {
	t.Helper()
	rnd := disk.rnd
	disk.plan(t, -1, false, 0)
	if rnd.IntN(3) == 0 {
		disk.rot(t)
	}
	o := disk.options()
	o.Damaged = func(err error) {
		if !disk.lied() && !disk.excuses(err) {
			t.Errorf("damage was reported: %v (kill %t, faults %v, checkpoint %d, generation %s)", err, disk.byKill, faults, l.covered, disk.dir)
		}
	}
	j, err := Open(disk.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	l.check(t, j, !disk.lied())
	disk.plan(t, rnd.IntN([]int{10, 40, 300}[rnd.IntN(3)]), rnd.IntN(3) == 0, faults)
	disk.limit(rnd.IntN(3) > 0, rnd.Int64N(1<<20))
	var wg sync.WaitGroup
	fences := rnd.IntN(2) == 0 // from all sides, not only after a checkpoint that failed
	for range 1 + rnd.IntN(6) {
		wg.Go(func() {
			for l.append(t, j) && disk.crashed() == nil {
				if fences {
					l.fence(j)
				}
			}
		})
	}
	ended := make(chan struct{})
	checkpoints := make(chan struct{})
	go func() {
		defer close(checkpoints)
		for {
			select {
			case <-ended:
				return
			case <-j.Pressure():
			}
			for !l.checkpoint(j) {
				l.fence(j)
				if disk.crashed() != nil {
					return
				}
			}
		}
	}()
	wg.Wait()
	close(ended)
	<-checkpoints
	if n := len(j.chain); n > o.MaxSegments+3 { // one more for urgent records, a checkpoint, a fence
		t.Errorf("%d segments are in use, of %d", n, o.MaxSegments)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if disk.crashed() == nil {
		t.Fatal("there was no crash")
	}
	return disk.crashed()
}
