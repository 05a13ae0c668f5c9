package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openMessage opens a file of a mailbox for reading, if it is a regular one.
func openMessage(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	f, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	st, err := statFile(f)
	if err == nil && !isRegular(st) {
		err = fmt.Errorf("%s: %w", f.Name(), errSkip)
	}
	if err != nil {
		f.Close()
		return nil, unix.Stat_t{}, err
	}
	return f, st, nil
}

// measureAll lists a mailbox whose lock is held, with the sizes of all messages,
// and brings its index up to date.
func (s *Store) measureAll(ctx context.Context, m *mailbox) ([]entry, error) {
	known, used := s.loadIndex(m.address), make(index)
	entries, err := m.scan(ctx, func(dir *os.File, e *entry) error { return s.measure(known, used, dir, e) })
	if err != nil {
		return nil, fmt.Errorf("listing mailbox %s: %w", m, err)
	}
	if !maps.Equal(known, used) {
		s.saveIndex(m.address, used)
	}
	return entries, nil
}

// measure fills in the sizes of e for POP3. Names of our own form tell them,
// unless the index knows that one did not; else the index does, or the file is
// read once.
func (s *Store) measure(files, used index, dir *os.File, e *entry) error {
	base := baseName(e.name)
	known, listed := files[base]
	if e.ours && !listed {
		return nil
	}
	st, err := statAt(dir, e.name)
	if err != nil {
		return err
	}
	if !isRegular(st) {
		return errSkip
	}
	now := measuredOf(st, known.octets)
	if !listed || now != known {
		if now, err = s.readMeasure(dir, e.name); err != nil {
			return err
		}
	}
	used[base] = now
	e.ours, e.size, e.octets = false, now.size, now.octets
	return nil
}

// readMeasure reads a file to learn its wire size. A file that another program
// is still writing gets the size it has now; sending it then fails if it grew.
func (s *Store) readMeasure(dir *os.File, name string) (measured, error) {
	f, st, err := openMessage(dir, name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Debug("file left out of the maildrop", "file", dir.Name()+"/"+name, "error", err)
		return measured{}, errSkip
	}
	if err != nil {
		return measured{}, err
	}
	defer f.Close()
	octets, raw, err := s.bufs.wireSize(f)
	if err != nil {
		s.log.Warn("file cannot be read and is left out of the maildrop", "file", f.Name(), "error", err)
		return measured{}, errSkip
	}
	s.log.Debug("file measured", "file", f.Name(), "octets", octets)
	now := measuredOf(st, octets)
	now.size = raw
	return now, nil
}

// MailboxInfo is what Stat tells of a mailbox.
type MailboxInfo struct {
	Path     string // of the Maildir
	Messages int
	Octets   int64 // on disk; a file that several mailboxes share counts in each
	Unseen   int   // messages still in new/
	Oldest   time.Time
	Newest   time.Time
}

// Stat counts the messages of the mailbox name (local@domain) without locking
// it. The times are those of delivery; for files of other programs, of their
// last change. ErrNoMailbox if there is none.
func (s *Store) Stat(ctx context.Context, name string) (MailboxInfo, error) {
	var info MailboxInfo
	a, err := parseAddress(name)
	if err != nil {
		return info, err
	}
	m, err := s.openMailbox(a, false)
	if err != nil {
		return info, err
	}
	defer m.close()
	info.Path = filepath.Join(s.mail.Name(), a.domain, a.local)
	times := make(map[string]time.Time)
	entries, err := m.scan(ctx, func(dir *os.File, e *entry) error {
		if e.ours {
			return nil
		}
		st, err := statAt(dir, e.name)
		if err == nil && !isRegular(st) {
			err = errSkip
		}
		e.size = st.Size
		times[e.name] = time.Unix(st.Mtim.Unix())
		return err
	})
	if err != nil {
		return info, err
	}
	for _, e := range entries {
		at, foreign := times[e.name]
		if !foreign {
			at = time.Unix(int64(e.time), 0)
		}
		info.add(e, at)
	}
	return info, nil
}

func (i *MailboxInfo) add(e entry, at time.Time) {
	if i.Messages == 0 || at.Before(i.Oldest) {
		i.Oldest = at
	}
	if i.Messages == 0 || at.After(i.Newest) {
		i.Newest = at
	}
	i.Messages++
	i.Octets += e.size
	if !e.seen {
		i.Unseen++
	}
}
