package storage

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const serverLock = "server"

// lockPath is where the lock of a mailbox is. A domain called "server" must not
// meet the server's lock; no domain ends with a dot.
func lockPath(b address) string {
	if b.domain == serverLock {
		return path.Join(b.domain+".", b.local)
	}
	return b.path()
}

// lock takes the exclusive lock of a mailbox, without waiting: ErrInUse. Closing
// the file releases it, and so does the end of the process. As each opening has
// a lock of its own, it also keeps two sessions of one process apart.
func (s *Store) lock(b address) (*os.File, error) {
	const tries = 100 // each lost only to a removal of the mailbox in that moment
	name := lockPath(b)
	for range tries {
		f, err := s.flock(name)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, os.ErrNotExist):
			if err := s.locks.Mkdir(path.Dir(name), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, err
			}
		case !errors.Is(err, errUnlinked):
			return nil, fmt.Errorf("mailbox %s: %w", b, err)
		}
	}
	return nil, fmt.Errorf("mailbox %s: %w", b, ErrInUse)
}

// makeLock makes the file that lock opens, so that a full disk keeps nobody from
// fetching mail, and removing it, for the first time.
func (s *Store) makeLock(b address) error {
	name := lockPath(b)
	if err := s.locks.Mkdir(path.Dir(name), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := s.locks.OpenFile(name, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return ignoreMissing(err) // the last mailbox of the domain was removed in that moment
	}
	return f.Close()
}

// lockJournal waits for whoever completes what the journal holds, or depends on
// that nobody does.
func (s *Store) lockJournal() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dataDir, journalDir, "lock"), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if err := flockFile(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the journal: %w", err), f.Close())
	}
	return f, nil
}

var errUnlinked = errors.New("lock file was removed")

// flock opens and locks one file below locks/.
func (s *Store) flock(name string) (*os.File, error) {
	f, err := s.locks.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) { // a lock needs no writing
		f, err = s.locks.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := s.flockOpened(f, name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// flockOpened locks f. A lock on a file that was removed meanwhile excludes
// nobody, so f must still be what name names: errUnlinked.
func (s *Store) flockOpened(f *os.File, name string) error {
	if err := flockFile(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	held, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := s.locks.Lstat(name)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(held, named) {
		return errUnlinked
	}
	return err
}

// flockFile locks f; ErrInUse if another has it.
func flockFile(f *os.File, how int) error {
	err := retry(func() error { return unix.Flock(int(f.Fd()), how) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	return os.NewSyscallError("flock", err)
}
