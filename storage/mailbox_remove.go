package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
)

// RemoveMailbox removes the mailbox name (local@domain) with all its mail, its
// index and its lock, and the domain's directories if these became empty. It
// does not wait for a session to end: ErrInUse. A mailbox that does not exist is
// removed already. A delivery that runs at the same time comes before, and its
// message goes too, or after, and makes the mailbox anew.
func (s *Store) RemoveMailbox(ctx context.Context, name string) error {
	a, err := parseAddress(name)
	if err != nil {
		return err
	}
	lock, err := s.lock(a)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.removeMail(a); err != nil {
		return fmt.Errorf("removing mailbox %s: %w", a, err)
	}
	if err := s.removeIndex(a); err != nil {
		return fmt.Errorf("removing the index of %s: %w", a, err)
	}
	lockName := lockPath(a)
	if err := s.locks.Remove(lockName); err != nil {
		return fmt.Errorf("removing the lock of %s: %w", a, err)
	}
	// These succeed only for the last mailbox of a domain.
	_ = s.mail.Remove(a.domain)
	_ = s.index.Remove(a.domain)
	_ = s.locks.Remove(path.Dir(lockName))
	return nil
}

// removeMail takes the mailbox out of sight in one step, so that a crash cannot
// leave half of it, and then removes it at leisure.
func (s *Store) removeMail(a address) error {
	held, err := s.lockJournal()
	if err != nil {
		return err
	}
	defer held.Close()
	trash := path.Join(draftsDir, removedPrefix+a.digest())
	// A removal that was cut off may have left it there, and not noted.
	if _, err := s.mail.Lstat(trash); err == nil {
		if err := s.clearTrash(a, trash); err != nil {
			return err
		}
	}
	err = s.mail.Rename(a.path(), trash)
	switch {
	case errors.Is(err, os.ErrNotExist): // but the journal may have mail for it
	case err != nil:
		return err
	default:
		if err := s.syncMailDir(a.domain); err != nil {
			return err
		}
	}
	return errors.Join(s.clearTrash(a, trash), s.forgetUndone(a))
}

// clearTrash removes a mailbox that is trash now, and nothing of it comes back.
func (s *Store) clearTrash(a address, trash string) error {
	if err := s.noteMailRemoval(a, trash); err != nil {
		return err
	}
	return s.mail.RemoveAll(trash)
}

// noteMailRemoval has recovery bring nothing back of a mailbox that is now trash.
// Beside a server all of it is there, so it is noted by its names: a delivery
// under way may have made the mailbox anew by now. When no server runs, the
// journal may have more for the mailbox than the mailbox has.
func (s *Store) noteMailRemoval(a address, trash string) error {
	server, err := s.flock(serverLock)
	if errors.Is(err, ErrInUse) {
		names, err := s.ownNames(trash)
		if err != nil {
			return err
		}
		return s.noteRemoval(a, names)
	}
	if err != nil {
		return err
	}
	server.Close() // none can start as long as the journal is locked
	return s.noteSome(record{kind: recordGone, to: []address{a}})
}

// ownNames lists the base names of messages of ours in a mailbox on its way out.
// Only these can be in the journal. Things that are no Maildir have none.
func (s *Store) ownNames(trash string) (names []string, err error) {
	for _, sub := range []string{"new", "cur"} {
		files, err := s.readDir(trash, sub)
		if err := passing(err); err != nil {
			return nil, err
		}
		for _, f := range files {
			if n := parseName(f.Name()); n.ours {
				names = append(names, n.base)
			}
		}
	}
	return names, nil
}
