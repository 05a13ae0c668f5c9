package storage

import (
	"context"
	"errors"
	"io"
	"os"
)

// scanTries bounds how often a scan starts again because a reader renamed files
// under it. Renaming hides a file from a directory reading at times.
const scanTries = 3

// list returns the messages of the mailbox in maildrop order. Those with foreign
// names have no sizes yet.
func (m *mailbox) list() ([]entry, error) {
	entries, err := m.files()
	return arrange(entries), err
}

// files reads new/ and then cur/: in this order a file on its way from one to
// the other cannot be missed.
func (m *mailbox) files() (found []entry, err error) {
	err = whileStill(m.cur, func() error {
		if found, err = readEntries(found[:0], m.new, false); err == nil {
			found, err = readEntries(found, m.cur, true)
		}
		return err
	})
	return found, err
}

// whileStill calls read again if entries of dir changed in that time.
func whileStill(dir *os.File, read func() error) error {
	for try := 1; ; try++ {
		before, err := changed(dir)
		if err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
		after, err := changed(dir)
		if err != nil || before == after || try == scanTries {
			return err
		}
	}
}

// changed is when the entries of dir changed last.
func changed(dir *os.File) (int64, error) {
	st, err := statFile(dir)
	return st.Mtim.Nano(), err
}

// readEntries appends the regular files of dir that are not hidden. The type of
// a file comes with its name; where a file system does not give it, ReadDir asks
// for it.
func readEntries(to []entry, dir *os.File, seen bool) ([]entry, error) {
	const chunk = 1024
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for {
		found, err := dir.ReadDir(chunk)
		for _, f := range found {
			if f.Type().IsRegular() && f.Name()[0] != '.' {
				to = append(to, newEntry(f.Name(), seen))
			}
		}
		if err == io.EOF {
			return to, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// errSkip says that a file cannot be served and is left out.
var errSkip = errors.New("not a readable message")

// scan lists the mailbox and lets measure fill in the sizes. A message whose
// file vanishes before it is measured has perhaps moved, so the mailbox is
// listed again; one that measure answers with errSkip is left out.
func (m *mailbox) scan(ctx context.Context, measure func(dir *os.File, e *entry) error) ([]entry, error) {
	for try := 1; ; try++ {
		entries, err := m.list()
		if err != nil {
			return nil, err
		}
		kept := entries[:0]
		vanished := false
		for i := range entries {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			err := measure(m.dir(entries[i].seen), &entries[i])
			switch {
			case err == nil:
				kept = append(kept, entries[i])
			case errors.Is(err, os.ErrNotExist):
				vanished = true
			case !errors.Is(err, errSkip):
				return nil, err
			}
		}
		if !vanished || try == scanTries {
			return kept, nil
		}
	}
}
