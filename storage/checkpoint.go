package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

const (
	journalDir = "journal"
	// defaultCheckpointEvery is how long a record waits for a checkpoint, as long as
	// the journal has room.
	defaultCheckpointEvery = 5 * time.Second
	// settleTime is what deliveries under way have to end in when the journal is
	// closed.
	settleTime = 10 * time.Second
)

// errLeft: the journal was closed with records in it.
var errLeft = errors.New("accepted mail is in the journal only, keep it for the next start, which completes that")

// checkpointer has the journal open: it recovers what the last process left,
// makes checkpoints beside the work, and a last one at the end.
type checkpointer struct {
	store   *Store
	journal *journal.Journal
	stop    context.CancelFunc
	stopped chan struct{}

	done    uint64 // the record of the last checkpoint
	suspect uint64 // records up to here were there when a sync failed, which may be told once only
}

// openJournal completes what the journal holds, before anybody can look at a
// mailbox, and has deliveries use it from now on. The lock of the server is held.
func (s *Store) openJournal() (*checkpointer, error) {
	if err := checkKernel(); err != nil {
		return nil, err
	}
	s.warnOfFileSystems()
	o := s.journalOptions
	o.Write, o.Sync, o.SyncDir = s.disk.writeJournal, s.disk.syncJournal, s.disk.syncDir
	o.Damaged = func(err error) {
		s.log.Error("the journal is damaged: mail of the last seconds before the crash may be lost", "error", err)
	}
	o.Mended = func(err error) {
		s.log.Warn("the header of a file of the journal was lost, its copy is used", "error", err)
	}
	j, err := journal.Open(filepath.Join(s.dataDir, journalDir), o)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if err := s.recover(j); err != nil {
		return nil, errors.Join(fmt.Errorf("completing deliveries from the journal: %w", err), j.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &checkpointer{store: s, journal: j, stop: cancel, stopped: make(chan struct{})}
	s.journal.Store(j)
	go c.run(ctx)
	return c, nil
}

// run makes checkpoints until ctx ends.
func (c *checkpointer) run(ctx context.Context) {
	defer close(c.stopped)
	tick := time.NewTicker(c.store.checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.journal.Pressure():
		}
		if err := c.checkpoint(ctx); err != nil && ctx.Err() == nil {
			c.store.log.Error("a checkpoint failed; mail is refused when the journal is full", "error", err)
		}
	}
}

// close makes the last checkpoint, so that nothing is left to recover, and lets
// go of the journal. Whoever delivers from now on syncs by itself. An error says that
// the journal has to be completed by the next start.
func (c *checkpointer) close() error {
	c.stop()
	<-c.stopped
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	c.store.journal.Store(nil)
	err := c.checkpoint(ctx)
	if err != nil {
		err = fmt.Errorf("%w: %w", errLeft, err)
	}
	return errors.Join(err, c.journal.Close())
}

// checkpoint syncs what the records so far have changed and lets the journal
// forget them. When that fails they stay, and so do their segments; but what was
// refused must not be done by the next start, and for that no mail has to be synced.
func (c *checkpointer) checkpoint(ctx context.Context) error {
	if !c.journal.Needed() {
		return nil
	}
	began := time.Now()
	seq, err := c.settle(ctx)
	if err != nil {
		c.journal.Stall(err) // first, lest the refusals wait for room that only we could make
		c.store.refuseAgain(c.journal)
		if unfenced := c.journal.Fence(); unfenced != nil {
			c.store.log.Error("what was refused is still in the journal, a crash now would do it", "error", unfenced)
		} else if !c.journal.Needed() {
			err = nil // only the record of the checkpoint had failed, and the fence is one
		}
	}
	if err != nil {
		return err
	}
	c.done = seq
	c.store.dropDrafts(seq)
	c.store.dropNotes(seq)
	c.store.dropRefusals(func(r *refusal) bool { return r.seq <= seq })
	c.store.log.Debug("checkpoint", "record", seq, "duration", time.Since(began))
	return nil
}

// settle is checkpoint up to where the journal forgets the records up to seq, or tells
// why they stay.
func (c *checkpointer) settle(ctx context.Context) (seq uint64, err error) {
	if seq, err = c.journal.Settled(ctx); err != nil {
		return 0, err
	}
	if err = c.sync(); err != nil {
		c.store.log.Error("a checkpoint failed, writing the mail of the last seconds again", "error", err)
	}
	if c.suspect > c.done {
		err = c.rewrite(seq)
	}
	if err == nil {
		err = c.journal.Checkpoint(seq)
	}
	return seq, err
}

// rewrite makes files anew from the records up to seq: after a failed sync the
// octets in memory are no proof of what is on the disk, and a second sync would
// say that all is well.
func (c *checkpointer) rewrite(seq uint64) error {
	c.store.applying.Lock()
	defer c.store.applying.Unlock()
	r := recovery{store: c.store, journal: c.journal, upTo: seq, again: true}
	if err := r.run(); err != nil {
		return err
	}
	return c.sync()
}

// sync syncs what was touched. Should that fail, all that has been written so far
// is suspect, also what a later checkpoint is for: the system tells only once.
func (c *checkpointer) sync() error {
	err := c.store.syncTouched()
	if err != nil {
		c.suspect = c.journal.Last()
	}
	return err
}

// touch remembers the file system of a directory that is about to be changed, so
// that the next checkpoint syncs it. A handle from before the change is what
// tells of every failed write.
func (s *Store) touch(dir *os.File) error {
	st, err := statFile(dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.touched[uint64(st.Dev)]; known {
		return nil
	}
	handle, err := openAt(dir, ".", unix.O_DIRECTORY)
	if err == nil {
		s.touched[uint64(st.Dev)] = handle
	}
	return err
}

// syncTouched syncs the file systems that deliveries and removals have changed.
func (s *Store) syncTouched() error {
	s.mu.Lock()
	var handles []*os.File
	for _, h := range s.touched {
		handles = append(handles, h)
	}
	s.mu.Unlock()
	var errs []error
	for _, h := range handles {
		errs = append(errs, s.disk.syncFS(h))
	}
	return errors.Join(errs...)
}

// keptDraft is a draft that a record of the journal counts on.
type keptDraft struct {
	seq uint64
	id  string
}

// keepDraft has the draft stay until the checkpoint of its record.
func (s *Store) keepDraft(seq uint64, d *draft) {
	d.named = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, keptDraft{seq, d.id})
}

// dropDrafts removes the drafts of records up to seq.
func (s *Store) dropDrafts(seq uint64) {
	s.mu.Lock()
	var old []keptDraft
	s.kept = slices.DeleteFunc(s.kept, func(k keptDraft) bool {
		if k.seq <= seq {
			old = append(old, k)
		}
		return k.seq <= seq
	})
	s.mu.Unlock()
	for _, k := range old {
		s.unlinkDraft(k.id)
	}
}
