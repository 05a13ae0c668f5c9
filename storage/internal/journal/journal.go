// Package journal is a write-ahead log: records are on stable storage when Append
// returns, come back in order after a crash, and are forgotten when the owner says
// that they are no longer needed.
//
// The journal is a directory of a few segments, files of a fixed size that are used
// over and over. Records that are appended at the same time share one frame, one
// write and one sync: whoever finds no write under way does the next one, for all
// that wait by then. A lone record does not wait for anybody.
//
// # Why an acknowledged record is found again
//
//  1. A frame has a checksum and the salt of its segment, a random number. After a
//     crash it is found whole or not at all, and nothing else is taken for one:
//     no frame of an earlier use of the file, and nothing that a message contains.
//  2. Frames begin at blocks, and a write never touches the blocks of frames that
//     were acknowledged. A write that is torn or fails damages nothing but itself.
//  3. The next frame is written only when the sync of the one before has succeeded.
//     So all acknowledged frames of a segment are in front, and reading to the
//     first invalid one finds them all. A valid frame after an invalid one is
//     damage, which is reported.
//  4. A write or sync that fails is not tried again. Its segment takes no more
//     frames: the next one goes to another segment, whose header says where the
//     valid frames of the one before end. Header and first frame are one write.
//     If that is what failed, the new segment is removed, and the one before it
//     takes no more frames either: should the file come back after a crash, its
//     header must not be wrong about it.
//  5. The header also names the segment before by its salt. Reading starts at the
//     segment with the highest number and follows these names back as far as they
//     lead. Segments that are not on that chain are old or never came to be.
//  6. A checkpoint is a record too: it says up to which sequence number records are
//     no longer needed. Only when it is durable are segments, the oldest first,
//     given back for new use. The last checkpoint is always in a segment in use.
//  7. A process may be killed between a write and its sync. So Open syncs the newest
//     segment before it believes what it reads there, and adds nothing to it.
//  8. What a failed write has left is fenced off by the header of the next segment.
//     Until there is one, Needed asks for a checkpoint, which begins it; Fence does
//     when a checkpoint is not possible.
//  9. A block that the disk cannot read counts as invalid. Segments before the last
//     checkpoint are not read at all. Replay fails when it finds damage that Open has
//     not reported: what is lost then must not be forgotten in silence.
//  10. So much depends on a header that the first frame has a copy of it. A segment that
//     has lost both is renamed and kept, not used or removed, as is one with blocks
//     that could not be read. When no other has a header, or more than one has lost it,
//     Open fails: records may be there. Lost is told from never written, or torn by a
//     power cut, by the frames behind the first one, see 3: if there is one that the other
//     segments do not know of as old, the first was acknowledged. If there is none, and
//     the header is not zeros, the file is kept all the same, but only the last such one;
//     a header of zeros is that of a file that was not used yet.
//
// Blocks that were written before are overwritten in place, so that the sync of
// a frame has no metadata of the file system to write; a segment that is new
// grows by zeros, some blocks ahead. A few segments are always kept free, so that on
// a full disk removals and checkpoints, which make room, are still recorded.
package journal

import (
	"errors"
	"os"
	"sync"
	"time"

	"restante/storage/internal/stable"
)

var (
	// ErrFull: all segments hold records that are still needed.
	ErrFull = errors.New("journal is full")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge: the record is larger than any segment.
	ErrTooLarge = errors.New("record is too large for the journal")
)

const (
	kindRecord     byte = 1
	kindCheckpoint byte = 2
)

const (
	growth     = 1 << 20          // octets that a new segment grows by
	maxBatch   = growth - 2*block // octets of a frame, so that any new segment takes it; a larger record is alone
	keptBuffer = 2 << 20          // the buffer of frames is kept up to this
)

// A full disk stops most records first, then those that make room, and last the
// checkpoints, which give segments back. Each is written only while there are so
// many free segments for the others.
const (
	keptByMost   = 2
	keptByUrgent = 1
	keptByNone   = 0 // by checkpoints
)

// Options of a Journal. Zero values have their defaults.
type Options struct {
	SegmentSize int64         // octets; default 16 MiB
	MaxSegments int           // in use at the same time, at least 2; default 8. Urgent records and checkpoints may take one more each.
	Patience    time.Duration // of an Append that waits for a checkpoint; default a minute
	// Damaged is told of acknowledged records that were lost to damage of the disk.
	Damaged func(err error)
	// Mended is told of damage that nothing was lost by.
	Mended func(err error)

	// The system calls, for tests that let them fail.
	Write   func(f *os.File, p []byte, off int64) error
	Sync    func(f *os.File) error   // data of a segment
	SyncDir func(dir *os.File) error // names of the segments
	Read    func(f *os.File, p []byte, off int64) (int, error)
}

func (o Options) withDefaults() Options {
	if o.SegmentSize == 0 {
		o.SegmentSize = 16 << 20
	}
	if o.MaxSegments == 0 {
		o.MaxSegments = 8
	}
	o.MaxSegments = max(o.MaxSegments, 2) // the newest is never given back
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Damaged == nil {
		o.Damaged = func(error) {}
	}
	if o.Mended == nil {
		o.Mended = func(error) {}
	}
	if o.Write == nil {
		o.Write = func(f *os.File, p []byte, off int64) error {
			_, err := f.WriteAt(p, off)
			return err
		}
	}
	if o.Sync == nil {
		o.Sync = stable.Data
	}
	if o.SyncDir == nil {
		o.SyncDir = stable.File
	}
	if o.Read == nil {
		o.Read = (*os.File).ReadAt
	}
	return o
}

// Journal is an open journal. One process may have it open at a time, and must
// see to that itself. Its methods may be called by any number of goroutines.
type Journal struct {
	options  Options
	root     *os.Root // the directory, wherever it is moved
	dir      *os.File // the same
	pressure chan struct{}

	mu      sync.Mutex
	space   sync.Cond // segments were given back, or a checkpoint failed, or closed
	queue   []*entry
	leading bool // somebody is writing
	closed  bool
	stalled error       // why the last checkpoint failed
	overdue *time.Timer // since ordinary records found no room

	last       uint64 // sequence number given last, to a record or one that failed
	record     uint64 // the same, of the last that is no checkpoint
	unfenced   bool   // the last write failed: no header says yet that it does not count
	checkpoint uint64 // records up to here are not needed
	unneeded   uint64 // the same, also when a checkpoint could not say so
	round      *round

	// These change only under mu and by the one who writes.
	chain  []*segment // in use, oldest first
	free   []*segment // for the next use, longest unused first
	slot   int        // of the next new file
	number uint64     // highest of any segment
	batch  []*entry   // being written
	buf    []byte     // their frame
}

// Applied is to be called, once, when what a record says has been done, or will
// never be.
type Applied func()

// Append returns when a record, the concatenation of parts, is on stable storage,
// with its sequence number. On an error it will not be replayed, unless the process
// ends before the next Append, Checkpoint or Fence succeeds. When no segment is free it
// waits for a checkpoint, but not if the last one failed: ErrFull.
func (j *Journal) Append(parts ...[]byte) (seq uint64, applied Applied, err error) {
	return j.appendRecord(keptByMost, parts)
}

// AppendUrgent is Append for a record that makes room, such as a removal: it may
// use a segment that is kept back for that on a full disk, and one in a full journal.
func (j *Journal) AppendUrgent(parts ...[]byte) (seq uint64, applied Applied, err error) {
	return j.appendRecord(keptByUrgent, parts)
}

func (j *Journal) appendRecord(keeps int, parts [][]byte) (seq uint64, applied Applied, err error) {
	e := &entry{kind: kindRecord, keeps: keeps, parts: parts}
	if err := j.append(e); err != nil {
		return 0, nil, err
	}
	r := e.round // e is not kept
	return e.seq, func() { j.applied(r) }, nil
}

// Last is the sequence number given last, 0 before the first.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Needed is whether a checkpoint has something to do: there are records that none
// covers, or one that failed and might be replayed by the next process, or segments
// that no record is needed of.
func (j *Journal) Needed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.record > j.checkpoint || j.unfenced || len(j.chain) > 1
}

// Close ends the use of the journal. Records that are being written are finished.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.relax()
	j.space.Broadcast()
	for j.leading {
		j.space.Wait()
	}
	var errs []error
	for _, s := range append(j.chain, j.free...) {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(append(errs, j.dir.Close(), j.root.Close())...)
}
