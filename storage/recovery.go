package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

// unplacedDir is where recovery puts messages that their mailboxes cannot take.
const unplacedDir = journalDir + "/unplaced"

// recovery does again what the journal says, where that is needed.
type recovery struct {
	store   *Store
	journal *journal.Journal
	upTo    uint64 // deliveries after this record are left alone
	again   bool   // files that look right are written anew all the same; this process has delivered them

	gone      map[address]uint64             // mailboxes removed, after which record
	removed   map[address]map[string]bool    // messages removed, by base name
	found     map[address]map[string][]place // messages of this pass, by base name
	unsettled map[address]map[string][]place // those that have to be looked for once more
	hidden    map[address]bool               // mailboxes that cannot be looked into
	placed    map[address]map[string]bool    // messages written by this recovery
	fresh     map[inode]bool                 // their files
	dropped   map[address]map[string]bool    // messages that had more than one file
	missed    map[address]map[string]int     // in how many passes in a row a message was not found
	passing   []string                       // files of notes that are needed until the journal forgets
	undone    bool                           // something could not be removed, and is noted
	completed int
}

// place is where a message, or a copy of it, is in a mailbox.
type place struct {
	name string
	seen bool
}

// inode tells one file from all others.
type inode struct{ dev, ino uint64 }

func inodeOf(st unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

const (
	// recoveryPasses is how often a reader may move a message while it is completed.
	recoveryPasses = 20
	// surelyGone is in how many passes in a row a message must not be found to count
	// as removed. Renaming hides a file at times.
	surelyGone = 3
)

// recover completes what the journal holds, makes that durable, and has the
// journal forget it.
func (s *Store) recover(j *journal.Journal) error {
	if err := s.loadNotes(); err != nil {
		return err
	}
	if j.Needed() {
		r := recovery{store: s, journal: j, upTo: math.MaxUint64}
		if err := r.run(); err != nil {
			return full(err)
		}
		if err := s.syncTouched(); err != nil {
			return err
		}
		if err := j.Checkpoint(j.Last()); err != nil {
			return err
		}
		s.forgetNotes(r.passing)
		s.log.Info("recovered from the journal: the server had not ended in order", "records", j.Last(), "completed", r.completed)
	} else {
		s.dropNotes(lasting - 1)
	}
	s.finishAll()
	return nil
}

func (r *recovery) run() error {
	if err := r.learn(); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	for a, bases := range r.removed {
		if err := r.remove(a, bases); err != nil {
			return err
		}
	}
	if r.undone {
		return r.store.syncNotes()
	}
	return nil
}

// settle completes messages until each was found where it should be, and whole:
// beside us readers may move a file that is damaged after we have found it, and
// before its place is taken by a better one. One for which that does not end is put
// aside.
func (r *recovery) settle() error {
	r.hidden, r.fresh = make(map[address]bool), make(map[inode]bool)
	r.placed, r.dropped = make(map[address]map[string]bool), make(map[address]map[string]bool)
	r.missed = make(map[address]map[string]int)
	do := (*source).complete
	for pass := 1; len(r.found) > 0; pass++ {
		if pass > recoveryPasses {
			do = (*source).giveUp
		}
		for a, wanted := range r.found {
			if err := r.locate(a, wanted); err != nil {
				return err
			}
		}
		r.unsettled = make(map[address]map[string][]place)
		if err := r.each(func(seq uint64, rec record) error { return r.eachMailbox(seq, rec, do) }); err != nil {
			return err
		}
		r.found = r.unsettled
	}
	return nil
}

// each calls fn for each record of the journal.
func (r *recovery) each(fn func(seq uint64, rec record) error) error {
	return r.journal.Replay(func(seq uint64, b []byte) error {
		rec, err := decodeRecord(b)
		if err != nil {
			// Its checksum is right: some other version wrote it. To go on would lose it.
			return fmt.Errorf("record %d: %w", seq, err)
		}
		return fn(seq, rec)
	})
}

// learn collects what was removed, and which messages are to be looked for.
func (r *recovery) learn() error {
	r.gone = make(map[address]uint64)
	r.removed = make(map[address]map[string]bool)
	r.found = make(map[address]map[string][]place)
	take := func(seq uint64, rec record) error {
		for _, a := range rec.to {
			switch rec.kind {
			case recordGone:
				r.gone[a] = max(r.gone[a], seq)
			case recordRemoved:
				mark(r.removed, a, rec.names, true)
			default:
				mark(r.found, a, rec.names[:1], nil)
			}
		}
		return nil
	}
	err := r.store.readNotes(func(path string, n note, err error) error {
		if err != nil {
			r.store.logBadNote(path, err)
		}
		if err != nil || n.after == lasting { // which is not about the journal
			return nil
		}
		r.passing = append(r.passing, path)
		return take(n.after, n.record)
	})
	if err != nil {
		return err
	}
	if r.again { // what the journal could not be told
		for _, refused := range r.store.undoneRefusals() {
			_ = take(refused.seq, refused.removal) // which never fails
		}
	}
	err = r.each(take)
	for a, bases := range r.removed {
		maps.DeleteFunc(r.found[a], func(base string, _ []place) bool { return bases[base] })
		if len(r.found[a]) == 0 {
			delete(r.found, a)
		}
	}
	return err
}

func mark[T any](in map[address]map[string]T, a address, names []string, value T) {
	if in[a] == nil {
		in[a] = make(map[string]T)
	}
	for _, name := range names {
		in[a][name] = value
	}
}

// locate finds out where the wanted messages are. A mailbox that cannot be opened
// or is not there has none.
func (r *recovery) locate(a address, wanted map[string][]place) error {
	files, err := r.files(a)
	r.hidden[a] = err != nil && !errors.Is(err, os.ErrNotExist)
	if err != nil {
		return r.ofOthers(a, err)
	}
	for _, f := range files {
		base := baseName(f.name)
		if at, ok := wanted[base]; ok {
			wanted[base] = append(at, place{name: strings.Clone(f.name), seen: f.seen})
		}
	}
	return nil
}

// files lists a mailbox, new/ first.
func (r *recovery) files(a address) ([]entry, error) {
	m, err := r.store.openParts(a)
	if err != nil {
		return nil, err
	}
	defer m.close()
	return m.files()
}

// ofOthers is nil for an error that is about one mailbox alone. With EIO that is so if the
// domain's directory can be opened, and the sync of its file system, which comes at the
// end and makes a change there, succeeds.
func (r *recovery) ofOthers(a address, err error) error {
	if !errors.Is(err, unix.EIO) {
		return passing(err)
	}
	domain, err := r.store.openDir(a.domain)
	if err != nil {
		return err
	}
	defer domain.Close()
	return r.store.touch(domain)
}

// passing is nil for an error that is about one mailbox, and err for one that
// is about the disk, which ends the recovery: it is to be run again later.
func passing(err error) error {
	for _, disk := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, disk) {
			return err
		}
	}
	return nil
}

// eachMailbox calls do for the mailboxes of a record that should have its message. It
// looks again for one that was moved in that time.
func (r *recovery) eachMailbox(seq uint64, rec record, do func(s *source, a address, at []place) error) error {
	if rec.kind != recordMessage && rec.kind != recordDraft || seq > r.upTo {
		return nil
	}
	src := source{recovery: r, rec: rec}
	defer src.close()
	name := rec.names[0]
	for _, a := range rec.to {
		at, wanted := r.found[a][name]
		if !wanted || seq <= r.gone[a] {
			continue
		}
		err := do(&src, a, at)
		if errors.Is(err, errMoved) {
			mark(r.unsettled, a, rec.names[:1], nil)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove removes messages again. From a mailbox that the disk cannot read now they are
// removed by whoever can: that is noted. Where it is noted already there is nothing to
// wait for, whatever the disk says.
func (r *recovery) remove(a address, bases map[string]bool) error {
	err := r.removeFrom(a, slices.Sorted(maps.Keys(bases)))
	if ignoreMissing(err) == nil {
		return nil
	}
	unnoted := r.store.unnoted(a, bases)
	if len(unnoted) > 0 {
		if err := r.ofOthers(a, err); err != nil {
			return err
		}
	}
	r.undone = true
	return r.store.noteUndone(a, unnoted)
}

func (r *recovery) removeFrom(a address, names []string) error {
	m, err := r.store.openParts(a)
	if err != nil {
		return err
	}
	defer m.close()
	if err := r.store.touch(m.dir(m.new == nil)); err != nil {
		return err
	}
	_, err = m.remove(context.Background(), r.store.disk, names, false)
	if errors.Is(err, os.ErrNotExist) { // a file, which a reader moves all the time
		err = fmt.Errorf("%v", err)
	}
	return err
}
