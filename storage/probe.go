package storage

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// Probe makes a file where mail is kept, syncs it and removes it, and has the
// journal take a record that says nothing: nil when mail can be stored now. Like
// mail it waits while the journal is full.
func (s *Store) Probe() error {
	name := "probe-" + rand.Text()
	f, err := s.disk.create(s.drafts, name)
	if err != nil {
		return full(err)
	}
	_, err = s.disk.write(f, []byte("is there room?\n"))
	if err == nil {
		err = s.disk.sync(f)
	}
	if err = errors.Join(err, f.Close(), s.disk.unlink(s.drafts, name)); err == nil {
		err = s.probeJournal()
	}
	return full(err)
}

// probeJournal appends a removal of no messages from a mailbox that there is not.
func (s *Store) probeJournal() error {
	j := s.journal.Load()
	if j == nil {
		return nil
	}
	r := record{kind: recordRemoved, to: []address{{local: "probe", domain: "probe"}}}
	_, applied, err := j.Append(r.encode())
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	applied()
	return nil
}
