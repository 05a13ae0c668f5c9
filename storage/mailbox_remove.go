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
	trash := path.Join(draftsDir, removedPrefix+a.digest())
	if err := s.mail.RemoveAll(trash); err != nil {
		return err
	}
	err := s.mail.Rename(a.path(), trash)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.syncMailDir(a.domain); err != nil {
		return err
	}
	if err := s.noteRemoval(record{kind: recordGone, to: []address{a}}); err != nil {
		return err
	}
	return s.mail.RemoveAll(trash)
}
