package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// entry is a record on its way.
type entry struct {
	kind  byte
	keeps int // free segments that it leaves to more urgent records
	parts [][]byte
	size  int
	seq   uint64
	round *round
	err   error
	done  bool          // written, or err
	wake  chan struct{} // has a value when done, or when the entry is to lead; nil for one that leads at once
}

func (j *Journal) append(e *entry) error {
	for _, p := range e.parts {
		e.size += len(p)
	}
	e.size += maxRecordHeader
	if int64(e.size) > j.options.SegmentSize-block-int64(frameOverhead) {
		return fmt.Errorf("%w: %d octets", ErrTooLarge, e.size)
	}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.queue = append(j.queue, e)
	if e.keeps < keptByMost {
		j.space.Broadcast() // for it there is room where a leader waits for some
	}
	follow := j.leading
	if follow {
		e.wake = make(chan struct{}, 1)
	}
	j.leading = true
	j.mu.Unlock()
	if follow {
		<-e.wake
		if e.done {
			return e.err
		}
	}
	j.lead(e)
	return e.err
}

// lead writes batches until own is done, then has the next one in the queue lead
// on.
func (j *Journal) lead(own *entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for !own.done {
		err := j.next()
		if err == nil {
			err = j.write(j.batch)
		}
		for _, e := range j.batch {
			e.err, e.done, e.parts = err, true, nil
			if err != nil && e.round != nil {
				e.round.close()
			}
			if e != own {
				e.wake <- struct{}{}
			}
		}
		clear(j.batch)
	}
	j.leading = len(j.queue) > 0
	if j.leading {
		j.queue[0].wake <- struct{}{}
	}
	j.space.Broadcast() // Close waits for the end of leading
}

// next moves the next batch out of the queue when there is room for it. Checkpoints
// go first and alone: they make room. So do urgent records when there is no room for
// others. When there will be none, the batch is all that waits.
func (j *Journal) next() error {
	for {
		if i := j.waiting(keptByNone); i >= 0 {
			j.take(i, i+1)
			return nil
		}
		n, octets, keeps := j.ready()
		if j.within(octets, keeps) {
			if keeps == keptByMost {
				j.relax()
			}
			j.take(0, n)
			return nil
		}
		if i := j.waiting(keptByUrgent); i >= 0 && j.within(frameOverhead+j.queue[i].size, keptByUrgent) {
			j.take(i, i+1)
			return nil
		}
		if j.closed || j.stalled != nil {
			j.take(0, len(j.queue))
			if j.closed {
				return ErrClosed
			}
			return fmt.Errorf("%w: %w", ErrFull, j.stalled)
		}
		if j.overdue == nil {
			j.hurry()
		}
		j.press()
		j.space.Wait()
	}
}

// hurry has records refused when ordinary ones find no room for long, whatever
// urgent ones may do meanwhile.
func (j *Journal) hurry() {
	var overdue *time.Timer
	overdue = time.AfterFunc(j.options.Patience, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.overdue == overdue {
			j.stalled = fmt.Errorf("no checkpoint in %v", j.options.Patience)
			j.space.Broadcast()
		}
	})
	j.overdue = overdue
}

// relax ends what hurry began: there is room, or a checkpoint has succeeded.
func (j *Journal) relax() {
	if j.overdue != nil {
		j.overdue.Stop()
		j.overdue = nil
	}
}

// waiting is where the first record of a kind waits in the queue, -1 if there is none.
func (j *Journal) waiting(keeps int) int {
	return slices.IndexFunc(j.queue, func(e *entry) bool { return e.keeps == keeps })
}

// within is whether the limit of segments lets records have a frame of so many octets.
func (j *Journal) within(octets, keeps int) bool {
	n, most := len(j.chain), j.options.MaxSegments
	if keeps < keptByMost {
		most++
	}
	return n < most || n == most && j.fits(octets)
}

// take moves some entries of the queue to batch.
func (j *Journal) take(from, to int) {
	j.batch = append(j.batch[:0], j.queue[from:to]...)
	j.queue = slices.Delete(j.queue, from, to)
}

// ready is how many records of the queue the next frame takes, the octets of that
// frame at most, and how many free segments it leaves to others.
func (j *Journal) ready() (n, octets, keeps int) {
	most := int(min(maxBatch, j.options.SegmentSize-block))
	octets = frameOverhead
	for n < len(j.queue) && (n == 0 || octets+j.queue[n].size <= most) {
		if j.queue[n].keeps != j.queue[0].keeps && !j.plenty(octets+j.queue[n].size) {
			break // a full disk may take one and not the other
		}
		octets += j.queue[n].size
		keeps = max(keeps, j.queue[n].keeps)
		n++
	}
	return n, octets, keeps
}

// fits is whether the segment in use takes a frame of so many octets.
func (j *Journal) fits(octets int) bool {
	n := len(j.chain)
	return n > 0 && !j.chain[n-1].stuck && j.chain[n-1].end+int64(roundUp(octets)) <= j.options.SegmentSize
}

// plenty is whether a frame of so many octets, of whatever records, can be written
// without more room on the disk.
func (j *Journal) plenty(octets int) bool {
	if len(j.free) > keptByMost {
		return true
	}
	n := len(j.chain)
	return len(j.free) == keptByMost && j.fits(octets) && j.chain[n-1].end+int64(roundUp(octets)) <= j.chain[n-1].size
}

// write makes a batch durable as one frame. It is called with mu, which it gives
// up for the time of the system calls. The sequence numbers are used up even when
// it fails: somebody may have read them from the file.
func (j *Journal) write(batch []*entry) error {
	octets, before, keeps := frameOverhead, j.last, 0
	for i, e := range batch {
		octets += e.size
		keeps = max(keeps, e.keeps)
		e.seq = before + uint64(i) + 1
		if e.kind == kindRecord {
			e.round = j.round
			e.round.open++
		}
	}
	seg, fresh, err := j.roomy(octets, keeps)
	if err != nil {
		return err
	}
	j.mu.Unlock()
	j.encode(seg, fresh, batch)
	err = j.put(seg)
	j.mu.Lock()
	j.last = before + uint64(len(batch))
	j.unfenced = err != nil
	if err != nil {
		seg.stuck, seg.bad = true, true
		if fresh {
			// Its header may be on the disk and say where the segment before it ends.
			j.remove(seg)
			if n := len(j.chain); n > 0 {
				j.chain[n-1].stuck = true
			}
		}
		return fmt.Errorf("writing the journal: %w", err)
	}
	if fresh {
		j.chain = append(j.chain, seg)
	}
	seg.end += int64(len(j.buf))
	seg.last = j.last
	if batch[0].kind == kindRecord {
		j.record = j.last
	}
	if cap(j.buf) > keptBuffer {
		j.buf = nil
	}
	return nil
}

// roomy gives a segment with all the blocks that a frame of so many octets takes.
// One that the disk has no more blocks for is not used any more.
func (j *Journal) roomy(octets, keeps int) (seg *segment, fresh bool, err error) {
	for {
		seg, fresh, err = j.segment(octets, keeps)
		if err != nil {
			return nil, false, err
		}
		end := seg.end + int64(roundUp(octets))
		if fresh {
			end += block
		}
		if end <= seg.size {
			return seg, fresh, nil
		}
		j.mu.Unlock()
		err = j.lengthen(seg, max(end, min(seg.size+growth, j.options.SegmentSize)))
		j.mu.Lock()
		switch {
		case err == nil:
			return seg, fresh, nil
		case fresh:
			j.remove(seg)
			return nil, false, fmt.Errorf("making a segment of the journal longer: %w", err)
		}
		seg.stuck = true
	}
}

// segment gives the segment that takes a frame of so many octets, when there are as
// many free besides as keeps says. A fresh one becomes part of the chain when the
// frame is written.
func (j *Journal) segment(octets, keeps int) (seg *segment, fresh bool, err error) {
	fresh = !j.fits(octets)
	if fresh {
		keeps++
		if len(j.chain) >= j.options.MaxSegments/2 {
			j.press()
		}
	}
	for len(j.free) < keeps {
		j.mu.Unlock()
		made, err := j.create()
		j.mu.Lock()
		if err != nil {
			return nil, false, fmt.Errorf("making a segment of the journal: %w", err)
		}
		j.free = append(j.free, made)
	}
	if !fresh {
		return j.chain[len(j.chain)-1], false, nil
	}
	seg = j.free[0]
	j.free = slices.Delete(j.free, 0, 1)
	j.number++
	h := segmentHeader{number: j.number, salt: rand.Uint64() | 1, first: j.last + 1}
	if n := len(j.chain); n > 0 {
		prev := j.chain[n-1]
		h.prevSalt, h.prevEnd, h.prevLast = prev.salt, uint64(prev.end), prev.last
	}
	seg.segmentHeader, seg.end, seg.last, seg.stuck = h, 0, j.last, false
	return seg, true, nil
}

// encode puts the frame of a batch into buf. If the segment has no header yet, that
// comes before it, and once more behind the records.
func (j *Journal) encode(seg *segment, fresh bool, batch []*entry) {
	j.buf = j.buf[:0]
	if fresh {
		j.buf = append(j.buf, zeros...)
		seg.encode(j.buf)
	}
	start := len(j.buf)
	j.buf = beginFrame(j.buf)
	for _, e := range batch {
		j.buf = appendRecord(j.buf, e.kind, e.parts)
	}
	if fresh {
		j.buf = append(j.buf, j.buf[:copyOctets]...)
	}
	j.buf = endFrame(j.buf, start, seg.salt, batch[0].seq, len(batch))
}

// put writes buf to the end of a segment and syncs it.
func (j *Journal) put(seg *segment) error {
	if err := j.options.Write(seg.file, j.buf, seg.end); err != nil {
		return err
	}
	if err := j.options.Sync(seg.file); err != nil {
		return err
	}
	return linked(seg.file)
}

// linked is an error for a file that somebody has removed: what is written there
// will not be found.
func linked(f *os.File) error {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Nlink == 0 {
		err = errors.New("it has been removed")
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return nil
}
