package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// unreadablePrefix and a number are the name of a segment that was set aside.
const unreadablePrefix = "unreadable-"

// reader is a call as (*os.File).ReadAt.
type reader func(f *os.File, p []byte, off int64) (int, error)

// unreadable is whether err is about what the disk has there, or has not.
func unreadable(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EUCLEAN)
}

// readHeader gives no header, all zero, for a file that has none. One that was
// there, and cannot be made out any more, is damage. What cannot be read is tried
// once more: so much depends on it.
func readHeader(f *os.File, read reader) (h segmentHeader, damaged bool, err error) {
	head := make([]byte, block)
	n, err := read(f, head, 0)
	if unreadable(err) {
		n, err = read(f, head, 0)
	}
	if err != nil && err != io.EOF {
		return h, false, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	h, ok := decodeHeader(head[:n])
	return h, !ok && n == block && !bytes.Equal(head, zeros), nil
}

// known is an error when so many headers cannot be read that the others do not tell
// what the journal holds: to begin a new one would lose it.
func known(found []*segment) error {
	var lost []error
	newest := uint64(0)
	for _, s := range found {
		if s.unreadable != nil {
			lost = append(lost, s.unreadable)
		}
		newest = max(newest, s.number)
	}
	if len(lost) > 1 || len(lost) == 1 && newest == 0 {
		return fmt.Errorf("too little of the journal can be read; to start without the records there, move the files away: %w", errors.Join(lost...))
	}
	return nil
}

// keepUnreadable sets aside the segments whose headers cannot be read, and gives the
// others. No chain leads to such a one should it be readable at the next start.
func (j *Journal) keepUnreadable(found []*segment) ([]*segment, error) {
	for i, s := range found {
		if s.unreadable == nil {
			continue
		}
		to, err := j.setAside(s)
		if err != nil {
			return found, err
		}
		j.options.Damaged(fmt.Errorf("%s has no valid header, and is now %s: %w", s.file.Name(), to, s.unreadable))
		rest := slices.Delete(slices.Clone(found), i, i+1) // known allows one
		return rest, s.file.Close()
	}
	return found, nil
}

// setAside gives a segment a name under which it is kept, and not used.
func (j *Journal) setAside(s *segment) (string, error) {
	for n := s.slot; ; n++ {
		to := unreadablePrefix + strconv.Itoa(n)
		if _, err := j.root.Lstat(to); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		return to, j.root.Rename(filepath.Base(s.file.Name()), to)
	}
}
