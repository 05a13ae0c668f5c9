package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	measurers   = 4       // goroutines that read files at a first login: two wait for the disk while two count
	measureStep = 64      // messages that one of them takes at a time
	lookCost    = 4 << 10 // octets that could be read in the time that opening a file takes
)

// measureAll lists a mailbox whose lock is held, with the sizes of all messages,
// and brings its index up to date.
func (s *Store) measureAll(ctx context.Context, m *mailbox) ([]entry, error) {
	entries, err := m.scan(ctx, func(entries []entry) error {
		stale := recall(s.loadIndex(m.address), entries)
		cost, err := s.measureUnsized(ctx, m, entries)
		// Cut off, it saves all the same, so that the next login gets further.
		if worthSaving(entries, stale, cost) || err != nil && cost > 0 {
			s.saveIndex(m.address, entries)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing mailbox %s: %w", m, err)
	}
	return entries, nil
}

// worthSaving reports whether it costs more to measure again what was measured
// now than to write the whole index, so that a few new messages in a large
// mailbox do not make each login write it; or most of it is stale. Cost is in
// octets.
func worthSaving(entries []entry, stale int, cost int64) bool {
	if stale == 0 && cost == 0 {
		return false
	}
	records := countIndexed(entries)
	return stale >= records || cost >= int64(records)*recordSize
}

// measureUnsized reads the files whose sizes are not known yet: several at a
// time, if there are many. It returns what that cost, in octets.
func (s *Store) measureUnsized(ctx context.Context, m *mailbox, entries []entry) (int64, error) {
	unknown := 0
	for i := range entries {
		if entries[i].state == unsized {
			unknown++
		}
	}
	if unknown == 0 {
		return 0, nil
	}
	var next, cost atomic.Int64
	work := func() {
		in, out := s.bufs.get(), s.bufs.get()
		defer s.bufs.put(in)
		defer s.bufs.put(out)
		for ctx.Err() == nil {
			end := int(next.Add(measureStep))
			begin := min(end-measureStep, len(entries))
			if begin == len(entries) {
				return
			}
			cost.Add(s.measureSome(m, entries[begin:min(end, len(entries))], in, out))
		}
	}
	var helpers sync.WaitGroup
	for range min(measurers-1, unknown/measureStep) {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
	s.log.Debug("files of other programs measured", "mailbox", m.String(), "files", unknown)
	return cost.Load(), ctx.Err()
}

func (s *Store) measureSome(m *mailbox, entries []entry, in, out *[bufferSize]byte) (cost int64) {
	for i := range entries {
		if e := &entries[i]; e.state == unsized {
			s.measure(m, e, in, out)
			cost += lookCost + e.size
		}
	}
	return cost
}

// measure reads a file to learn its wire size. A file that another program is
// still writing gets the size it has now; sending it then fails if it grew.
func (s *Store) measure(m *mailbox, e *entry, in, out *[bufferSize]byte) {
	var err error
	e.octets, e.size, err = m.weigh(e, in, out)
	switch {
	case err == nil:
		e.state = sized
	case errors.Is(err, os.ErrNotExist):
		e.state = gone
	default:
		level := slog.LevelWarn
		if opening := (*os.PathError)(nil); errors.As(err, &opening) {
			level = slog.LevelDebug // it never was readable
		}
		s.log.Log(context.Background(), level, "file left out of the maildrop", "file", m.dir(e.seen).Name()+"/"+e.name, "error", err)
		e.state = unfit
	}
}

// weigh reads the file of e: its octets on the wire and on disk.
func (m *mailbox) weigh(e *entry, in, out *[bufferSize]byte) (octets, size int64, err error) {
	f, err := openMessage(m.dir(e.seen), e.name)
	if err != nil {
		return 0, 0, err
	}
	defer f.close()
	return wireSize(&f, in[:], out[:])
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
	m, err := s.openMailbox(a)
	if err != nil {
		return info, err
	}
	defer m.close()
	info.Path = filepath.Join(s.mail.Name(), a.domain, a.local)
	times := make(map[string]time.Time) // of files of other programs, by name
	entries, err := m.weighed(ctx, times)
	if err != nil {
		return info, err
	}
	for i := range entries {
		at, foreign := times[entries[i].name]
		if !foreign {
			at = time.Unix(int64(leadingNumber(entries[i].name)), 0)
		}
		info.add(&entries[i], at)
	}
	return info, nil
}

// weighed lists the messages with their sizes on disk, and tells the times of files
// of other programs, by name.
func (m *mailbox) weighed(ctx context.Context, times map[string]time.Time) ([]entry, error) {
	return m.scan(ctx, func(entries []entry) error {
		for i := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if e := &entries[i]; !e.own {
				if err := m.look(e, times); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// look fills in the size on disk of a file and when it was changed last.
func (m *mailbox) look(e *entry, times map[string]time.Time) error {
	st, err := statAt(m.dir(e.seen), e.name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		e.state = gone
	case err != nil:
		return err
	case !isRegular(st):
		e.state = unfit
	default:
		e.size, e.state = st.Size, sized
		times[e.name] = time.Unix(st.Mtim.Unix())
	}
	return nil
}

func (i *MailboxInfo) add(e *entry, at time.Time) {
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
