package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// warnedSize is what the level of SetWarned takes in the lock of a mailbox, after
// the visit.
const warnedSize = 8 // octets

// Warned is the level that SetWarned has left; 0 if none can be read.
func (s *Store) Warned(name string) (int, error) {
	a, err := parseAddress(name)
	if err != nil {
		return 0, err
	}
	f, err := s.locks.OpenFile(lockPath(a), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	defer f.Close()
	var b [warnedSize]byte
	if _, err := f.ReadAt(b[:], visitSize); err != nil {
		if err == io.EOF {
			err = nil
		}
		return 0, err
	}
	level, err := strconv.Atoi(strings.TrimSpace(string(b[:])))
	if err != nil || level < 0 {
		return 0, nil
	}
	return level, nil
}

// SetWarned notes beside the last visit of a mailbox how full its user was told that
// it is: a level from 0 to 999. Nothing is synced: a crash may lose it.
func (s *Store) SetWarned(name string, level int) error {
	a, err := parseAddress(name)
	if err != nil {
		return err
	}
	if level < 0 || level > 999 {
		return fmt.Errorf("level %d is not from 0 to 999", level)
	}
	open := func() (*os.File, error) {
		return s.locks.OpenFile(lockPath(a), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	f, err := open()
	if errors.Is(err, os.ErrNotExist) { // as of a Maildir that another program has made
		if err := s.makeLock(a); err != nil {
			return err
		}
		f, err = open()
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(fmt.Sprintf("%-*d\n", warnedSize-1, level)), visitSize)
	return errors.Join(err, f.Close())
}
