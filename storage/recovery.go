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
	undone    map[address]map[string]bool    // what an earlier recovery could not remove
	lasting   map[address][]string           // the files of the notes of that
	settled   []string                       // files of notes that are needed until all is synced
	passing   []string                       // those that are needed as long as the journal is
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
	left, err := s.leftUndone()
	if err != nil {
		return err
	}
	crashed := j.Needed()
	if !crashed && !left {
		s.dropNotes(lasting - 1)
		return nil
	}
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
	s.forgetNotes(r.settled)
	s.forgetNotes(r.passing)
	if crashed {
		s.log.Info("recovered from the journal: the server had not ended in order", "records", j.Last(), "completed", r.completed)
	}
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
	r.undone = make(map[address]map[string]bool)
	r.lasting = make(map[address][]string)
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
			r.store.log.Error("a note beside the journal cannot be read: what it removed may come back", "file", path, "error", err)
		}
		switch {
		case journal.Unreadable(err): // it stays: if it is a lasting one, a later start may read it
			return nil
		case n.after == lasting:
			mark(r.undone, n.to[0], n.names, true)
			r.lasting[n.to[0]] = append(r.lasting[n.to[0]], path)
		default:
			r.passing = append(r.passing, path)
		}
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
	return r.each(take)
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
		if !wanted || seq <= r.gone[a] || r.removed[a][name] {
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
// removed by a start that can: that is noted. What is noted already has to wait for
// nothing, whatever the disk says.
func (r *recovery) remove(a address, bases map[string]bool) error {
	err := r.removeFrom(a, slices.Sorted(maps.Keys(bases)))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		r.settled = append(r.settled, r.lasting[a]...)
		return nil
	}
	var unnoted []string
	for base := range bases {
		if !r.undone[a][base] {
			unnoted = append(unnoted, base)
		}
	}
	if len(unnoted) > 0 {
		if err := r.ofOthers(a, err); err != nil {
			return err
		}
	}
	r.store.log.Error("removed messages may be back in a mailbox that cannot be opened, until a start can open it",
		"mailbox", a.String(), "error", err)
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
