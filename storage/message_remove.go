package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// removal is how far the removal of one message has come.
type removal struct {
	from [2]bool // unlinked from new/, from cur/
	err  error
}

// recordNames is how many octets of base names go into one record of the journal.
const recordNames = 256 << 10

// remove removes messages from a mailbox for good; see mailbox.removeFiles. With
// the journal one record makes that durable, and the directories are synced at the
// next checkpoint.
func (s *Store) remove(ctx context.Context, m *mailbox, files []entry) (int, error) {
	bases := make([]string, len(files))
	for i := range files {
		bases[i] = files[i].base()
	}
	j := s.journal.Load()
	if j == nil || recordsFor(bases) > 1 {
		// Whatever is noted, is so only lest recovery delivers it again.
		if err := s.noteRemoval(m.address, bases); err != nil {
			return 0, err
		}
		s.applying.RLock()
		defer s.applying.RUnlock()
		return m.removeFiles(ctx, s.disk, bases, files, true)
	}
	if err := s.touch(m.new); err != nil {
		return 0, err
	}
	r := record{kind: recordRemoved, to: []address{m.address}, names: bases}
	_, applied, err := j.AppendUrgent(r.encode())
	if err != nil {
		return 0, err
	}
	defer applied()
	s.applying.RLock()
	defer s.applying.RUnlock()
	return m.removeFiles(ctx, s.disk, bases, files, false)
}

// fitting is how many of the names go into one record, at least one.
func fitting(names []string) int {
	octets := 0
	for i, name := range names {
		if octets += len(name); i > 0 && octets > recordNames {
			return i
		}
	}
	return len(names)
}

func recordsFor(names []string) (n int) {
	for ; len(names) > 0; n++ {
		names = names[fitting(names):]
	}
	return n
}

// remove unlinks every file of the messages with these base names, wherever a
// reader has moved them by now, and syncs the directories if sync says so. A
// message without a file is removed already. It returns how many messages are
// gone, and an error if that is not all of them.
func (m *mailbox) remove(ctx context.Context, d disk, bases []string, sync bool) (int, error) {
	return m.removeFiles(ctx, d, bases, nil, sync)
}

// removeFiles is remove. If known are the files of these messages in the last
// listing, and that is still right, it spares another one.
func (m *mailbox) removeFiles(ctx context.Context, d disk, bases []string, known []entry, sync bool) (int, error) {
	removals := make([]removal, len(bases))
	wanted := make(map[string]*removal, len(bases))
	for i, base := range bases {
		wanted[base] = &removals[i]
	}
	missed := known == nil || !m.unchanged() || m.unlink(ctx, d, known, wanted, false)
	for try := 1; missed; try++ {
		files, err := m.files()
		if err != nil {
			return 0, err
		}
		missed = m.unlink(ctx, d, files, wanted, try == scanTries)
	}
	for i, dir := range []*os.File{m.new, m.cur} {
		if sync {
			m.settleRemoval(d, dir, i, wanted)
		}
	}
	removed := 0
	var first error
	for _, r := range wanted {
		if r.err == nil {
			removed++
		}
		if first == nil {
			first = r.err
		}
	}
	if first != nil {
		return removed, fmt.Errorf("%d of %d messages not removed: %w", len(wanted)-removed, len(wanted), first)
	}
	return removed, nil
}

// unlink removes those of the files that are wanted. It reports whether some were no
// longer there: they may have been renamed after they were listed. At the last try
// that is an error.
func (m *mailbox) unlink(ctx context.Context, d disk, files []entry, wanted map[string]*removal, last bool) (missed bool) {
	for _, f := range files {
		r := wanted[f.base()]
		if r == nil || r.err != nil {
			continue
		}
		if r.err = ctx.Err(); r.err != nil {
			continue
		}
		err := d.unlink(m.dir(f.seen), f.name)
		switch {
		case err == nil && f.seen:
			r.from[1] = true
		case err == nil:
			r.from[0] = true
		case errors.Is(err, os.ErrNotExist) && !last:
			missed = true
		default:
			r.err = err
		}
	}
	return missed
}

// settleRemoval syncs one directory if something was removed from it. If that
// fails, nobody knows what will be there after a crash.
func (m *mailbox) settleRemoval(d disk, dir *os.File, i int, wanted map[string]*removal) {
	synced := false
	var err error
	for _, r := range wanted {
		if !r.from[i] {
			continue
		}
		if !synced {
			err, synced = d.syncDir(dir), true
		}
		if r.err == nil {
			r.err = err
		}
	}
}
