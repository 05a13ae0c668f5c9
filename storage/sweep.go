package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// staleAfter is when a file in tmp/ has no maker any more, as Maildir has it.
const staleAfter = 36 * time.Hour

// removedPrefix marks mailboxes on their way out, in mail/.tmp.
const removedPrefix = "removed-"

// Sweep removes what crashes of other programs have left: files in the tmp/ of
// mailboxes that have not been changed for 36 hours. It may run at any time,
// beside deliveries of any process. It goes on after errors and returns them all.
func (s *Store) Sweep(ctx context.Context) error {
	names, err := s.List(ctx)
	errs := []error{err}
	for _, name := range names {
		a, err := parseAddress(name)
		if err == nil {
			err = s.sweepTmp(ctx, a)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sweepDrafts empties mail/.tmp of what nobody is working on: drafts without a
// maker, and mailboxes whose removal was cut short. The journal needs none of
// them any more.
func (s *Store) sweepDrafts() error {
	dir, err := s.openDir(draftsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	errs := []error{err}
	for _, name := range names {
		if strings.HasPrefix(name, removedPrefix) {
			errs = append(errs, s.mail.RemoveAll(path.Join(draftsDir, name)))
		} else {
			errs = append(errs, s.sweepDraft(name))
		}
	}
	return errors.Join(append(errs, s.sweepNotes())...)
}

// sweepNotes removes notes whose writing was cut off.
func (s *Store) sweepNotes() error {
	dir, err := os.Open(filepath.Join(s.dataDir, notesDir))
	if err != nil {
		return ignoreMissing(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	errs := []error{err}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			errs = append(errs, s.sweepFile(dir, name))
		}
	}
	return errors.Join(errs...)
}

// sweepDraft removes a draft unless its maker holds it.
func (s *Store) sweepDraft(name string) error {
	f, err := openAt(s.drafts, name, unix.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = flockFile(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, ErrInUse) {
		return nil
	}
	if err == nil {
		err = s.disk.unlink(s.drafts, name)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Info("removed the draft of a delivery that was cut off", "id", name)
	return nil
}

// sweepTmp removes stale files from tmp/ of one mailbox.
func (s *Store) sweepTmp(ctx context.Context, a address) error {
	tmp, err := s.openTmp(a)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer tmp.Close()
	var errs []error
	for {
		files, err := tmp.ReadDir(1024)
		for _, f := range files {
			if ctx.Err() == nil && f.Type().IsRegular() {
				errs = append(errs, s.sweepFile(tmp, f.Name()))
			}
		}
		if err == io.EOF {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
}

// sweepFile removes a file that nobody can be writing any more.
func (s *Store) sweepFile(tmp *os.File, name string) error {
	st, err := statAt(tmp, name)
	if err == nil && time.Since(time.Unix(st.Mtim.Unix())) > staleAfter {
		err = s.disk.unlink(tmp, name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
