package storage

import (
	"crypto/rand"
	"errors"
)

// Probe makes a file where mail is kept, syncs it and removes it: nil when mail can
// be stored there now.
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
	return full(errors.Join(err, f.Close(), s.disk.unlink(s.drafts, name)))
}
