package journal

import (
	"context"
	"encoding/binary"
)

// Pressure has a value when a checkpoint would make room.
func (j *Journal) Pressure() <-chan struct{} { return j.pressure }

func (j *Journal) press() {
	select {
	case j.pressure <- struct{}{}:
	default:
	}
}

// round is the records between two calls of Settled. It is over when they, and
// the round before, are settled.
type round struct {
	open int // records not applied yet, and one for the round before
	done chan struct{}
	next *round // not nil when no more records come
}

// Settled waits until the records that were there when it was called are
// applied, and returns the sequence number of the last one of them. It may be
// given up and called again.
func (j *Journal) Settled(ctx context.Context) (uint64, error) {
	j.mu.Lock()
	last, done := j.last, make(chan struct{})
	r := j.round
	r.done = done
	r.next = &round{open: 1}
	j.round = r.next
	if r.open == 0 {
		r.end()
	}
	j.mu.Unlock()
	select {
	case <-done:
		return last, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (j *Journal) applied(r *round) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.close()
}

// close ends one record of the round.
func (r *round) close() {
	r.open--
	if r.open == 0 && r.next != nil {
		r.end()
	}
}

// end tells that the round is over.
func (r *round) end() {
	close(r.done)
	r.next.close()
}

// Checkpoint makes it durable that records up to seq are not needed any more, and
// gives the segments that hold nothing else back.
func (j *Journal) Checkpoint(seq uint64) error {
	j.mu.Lock()
	j.unneeded = max(j.unneeded, seq)
	j.mu.Unlock()
	if err := j.appendCheckpoint(seq); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.checkpoint = max(j.checkpoint, seq)
	j.relax()
	j.stalled = nil
	j.release()
	j.space.Broadcast()
	return nil
}

func (j *Journal) appendCheckpoint(seq uint64) error {
	return j.append(&entry{kind: kindCheckpoint, keeps: keptByNone, parts: [][]byte{binary.LittleEndian.AppendUint64(nil, seq)}})
}

// Fence does of a checkpoint what needs no other disk than that of the journal: when
// the last write failed, it makes durable that this does not count. For that it begins
// a segment; so that faults do not fill the journal with those, it is a checkpoint if
// there is something that is not needed: what one that failed was about, and
// everything when no record is.
func (j *Journal) Fence() error {
	j.mu.Lock()
	unfenced, seq := j.unfenced, j.unneeded
	if j.record <= seq {
		seq = j.last
	}
	gives := seq > j.checkpoint
	j.mu.Unlock()
	switch {
	case !unfenced:
		return nil
	case gives:
		return j.Checkpoint(seq)
	}
	return j.appendCheckpoint(seq)
}

// checkpointOf reads what Checkpoint wrote.
func checkpointOf(record []byte) uint64 {
	if len(record) != 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(record)
}

// Stall tells that a checkpoint failed, so that nobody waits for room.
func (j *Journal) Stall(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stalled = err
	j.space.Broadcast()
}

// release gives back the segments that no record is needed of, and removes the
// files of those that are too many, or that the disk has failed to write.
func (j *Journal) release() {
	for len(j.chain) > 1 && j.chain[0].last <= j.checkpoint {
		if s := j.chain[0]; s.bad {
			j.remove(s)
		} else {
			j.free = append(j.free, s)
		}
		j.chain = j.chain[1:]
	}
	for len(j.free) > keptByMost+1 {
		j.remove(j.free[0])
		j.free = j.free[1:]
	}
}
