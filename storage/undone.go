package storage

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

// undone is what recovery could not remove from a mailbox, as the disk did not let it
// be read. Notes say so until it is done, by a start or by a session that opens the
// mailbox. Until then no session sees it.
type undone struct {
	names map[string]bool // base names
	notes []string        // files
}

var errParts = errors.New("a part of it, new/ or cur/, is missing")

// loadNotes learns at the start what is undone, and tells which notes say nothing.
func (s *Store) loadNotes() error {
	s.mu.Lock()
	s.undone, s.unread = make(map[address]*undone), make(map[string]bool)
	s.mu.Unlock()
	return s.readNotes(func(path string, n note, err error) error {
		if err != nil {
			s.logBadNote(path, err)
		}
		switch {
		case journal.Unreadable(err):
			s.mu.Lock()
			s.unread[path] = true
			s.mu.Unlock()
		case err != nil:
			s.forgetNotes([]string{path})
		case n.after == lasting:
			s.keepUndone(n.to[0], n.names, path)
		}
		return nil
	})
}

func (s *Store) logBadNote(path string, err error) {
	s.log.Error("a note beside the journal cannot be read: what it removed may come back", "file", path, "error", err)
}

func (s *Store) keepUndone(a address, names []string, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.undone[a]
	if u == nil {
		u = &undone{names: make(map[string]bool)}
		s.undone[a] = u
	}
	for _, name := range names {
		u.names[name] = true
	}
	u.notes = append(u.notes, path)
}

// unnoted are those of the base names of which no note says that they are undone.
func (s *Store) unnoted(a address, bases map[string]bool) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for base := range bases {
		if u := s.undone[a]; u == nil || !u.names[base] {
			names = append(names, base)
		}
	}
	return names
}

// noteUndone notes what recovery could not remove from a mailbox.
func (s *Store) noteUndone(a address, names []string) error {
	for len(names) > 0 {
		k := fitting(names)
		n := note{record: record{kind: recordRemoved, to: []address{a}, names: names[:k]}, after: lasting}
		path, err := s.writeNote(n.encode())
		if err != nil {
			return err
		}
		s.keepUndone(a, names[:k], path)
		names = names[k:]
	}
	return nil
}

// syncNotes has all notes on stable storage: some may have been left by a process that
// could not sync them.
func (s *Store) syncNotes() error {
	dir, err := os.Open(filepath.Join(s.dataDir, notesDir))
	if err != nil {
		return err
	}
	return errors.Join(s.disk.syncFS(dir), dir.Close())
}

// finishAll does what is undone where it can. What it cannot keeps no server from
// starting.
func (s *Store) finishAll() {
	s.mu.Lock()
	left := slices.Collect(maps.Keys(s.undone))
	s.mu.Unlock()
	for _, a := range left {
		if err := s.openAndFinish(a); err != nil && !errors.Is(err, ErrInUse) {
			s.logUndone(a, err)
		}
	}
}

func (s *Store) logUndone(a address, err error) {
	s.log.Error("removed messages may be back in a mailbox that cannot be opened or changed", "mailbox", a.String(), "error", err)
}

func (s *Store) openAndFinish(a address) error {
	m, err := s.openParts(a)
	if err != nil {
		return err
	}
	defer m.close()
	lock, err := s.lock(a)
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.finish(m)
}

// finish removes from an open mailbox, whose lock is held, what is undone there. As long
// as a part of the mailbox is missing it may come back with that.
func (s *Store) finish(m *mailbox) error {
	u, names, notes := s.undoneIn(m.address)
	if u == nil {
		return nil
	}
	// Its own handle, from before the change: what fails here fails for nobody else.
	dir, err := openAt(m.dir(m.new == nil), ".", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	s.applying.RLock()
	_, err = m.remove(context.Background(), s.disk, names, false)
	s.applying.RUnlock()
	if err == nil {
		err = s.disk.syncFS(dir)
	}
	if err == nil && (m.new == nil || m.cur == nil) {
		err = errParts
	}
	if err != nil {
		return err
	}
	s.log.Warn("what was removed from a mailbox before a crash is removed there at last", "mailbox", m.String())
	s.forgetNotes(notes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.notes = u.notes[len(notes):]; len(u.notes) == 0 {
		delete(s.undone, m.address)
	}
	return nil
}

// undoneIn is what is undone in a mailbox, and a copy of that; nil if nothing is, also
// because a command has removed the mailbox, and the notes with it.
func (s *Store) undoneIn(a address) (u *undone, names, notes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u = s.undone[a]
	if u == nil {
		return nil, nil, nil
	}
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return !errors.Is(err, os.ErrNotExist)
	}
	if !slices.ContainsFunc(u.notes, there) {
		delete(s.undone, a)
		return nil, nil, nil
	}
	return u, slices.Sorted(maps.Keys(u.names)), slices.Clone(u.notes)
}

// withoutUndone leaves out what finish could not remove.
func (s *Store) withoutUndone(a address, msgs []entry) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.undone[a]
	if u == nil {
		return msgs
	}
	return slices.DeleteFunc(msgs, func(e entry) bool { return u.names[e.base()] })
}

// forgetUndone is for a mailbox that is removed: nothing can be undone in it.
func (s *Store) forgetUndone(a address) error {
	return s.forgetNotesWhere(func(n note) bool { return n.after == lasting && n.to[0] == a })
}
