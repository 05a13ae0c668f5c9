package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// visitSize is what a visit takes in the lock of a mailbox, padded, so that it is
// overwritten as a whole.
const visitSize = 96 // octets

// Visit is when a maildrop was opened, how, and from where.
type Visit struct {
	At       time.Time // whole seconds
	Protocol string
	Address  string
}

// Sign leaves the visit in the file that is the lock: it is open, and nothing is
// synced, so it costs a login next to nothing. A crash may lose it.
func (m *Maildrop) Sign(v Visit) error {
	if m.lock == nil {
		return os.ErrClosed
	}
	line := fmt.Sprintf("%d %s %s", v.At.Unix(), v.Protocol, v.Address)
	if len(line) >= visitSize {
		return fmt.Errorf("a visit is of %d octets at most", visitSize-1)
	}
	_, err := m.lock.WriteAt([]byte(fmt.Sprintf("%-*s\n", visitSize-1, line)), 0)
	return err
}

// LastVisit is the last visit that was signed; the zero Visit if none was, or none
// can be read.
func (s *Store) LastVisit(name string) (Visit, error) {
	a, err := parseAddress(name)
	if err != nil {
		return Visit{}, err
	}
	f, err := s.locks.OpenFile(lockPath(a), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return Visit{}, nil
	}
	if err != nil {
		return Visit{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, visitSize))
	if err != nil {
		return Visit{}, err
	}
	fields := strings.Fields(string(b))
	if len(fields) != 3 || len(b) < visitSize {
		return Visit{}, nil
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return Visit{}, nil
	}
	return Visit{time.Unix(seconds, 0).UTC(), fields[1], fields[2]}, nil
}
