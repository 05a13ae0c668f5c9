package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
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

// tornName is that of one whose first write a power cut seems to have torn.
const tornName = unreadablePrefix + "torn"

// reader is a call as (*os.File).ReadAt.
type reader func(f *os.File, p []byte, off int64) (int, error)

// Unreadable is whether err is about what the disk has there, or has not.
func Unreadable(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EUCLEAN)
}

// errHeader: the first block of a segment is not what was written there.
var errHeader = errors.New("its checksum is wrong")

// readHeader reads the header of a segment; it stays all zero for a file that has
// none. What cannot be read is tried once more, and else is taken from the first
// frame: so much depends on it.
func (s *segment) readHeader(read reader) error {
	head := make([]byte, block)
	n, err := read(s.file, head, 0)
	if Unreadable(err) {
		n, err = read(s.file, head, 0)
	}
	why, blank := err, false
	switch {
	case Unreadable(err):
	case err != nil && err != io.EOF:
		return fmt.Errorf("reading %s: %w", s.file.Name(), err)
	case n < block:
		return nil
	default:
		var ok bool
		if s.segmentHeader, ok = decodeHeader(head); ok {
			return nil
		}
		why, blank = errHeader, bytes.Equal(head, zeros)
	}
	h, framed, err := s.readCopy(read)
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", s.file.Name(), err)
	case h.salt != 0:
		s.segmentHeader, s.bad, s.mended = h, true, why
	case blank: // as that of a file that was never used
		s.torn = true
	default:
		s.bad, s.unreadable, s.torn = true, why, !framed
	}
	return nil
}

// readCopy gives the header that the first frame has a copy of, and whether there
// is such a frame, or may be.
//
// The copy is as good as the header, though files are used again, and a power cut may
// have torn the write of both. If the frame is of that write, it is whole, and all is
// as if the header had come too. If it is of an earlier use, so is all that has its
// salt: nothing of this write was acknowledged then, and the number in the copy is lower
// than that of the segment with the checkpoint that gave the file back. A frame is looked
// for in one place only: behind it there are messages, and one may be made like frames.
func (s *segment) readCopy(read reader) (h segmentHeader, framed bool, err error) {
	b := make([]byte, frameHeader)
	n, err := read(s.file, b, block)
	if err == nil || err == io.EOF {
		end := frameEnd(b[:n])
		if end == 0 || end > min(s.size, maxSegment)-block {
			return h, false, nil
		}
		b = make([]byte, end)
		n, err = read(s.file, b, block)
	}
	switch {
	case Unreadable(err):
		return h, true, nil
	case err != nil && err != io.EOF:
		return h, false, err
	}
	salt := binary.LittleEndian.Uint64(b[24:])
	f, ok := decodeFrame(b[:n], salt)
	if !ok {
		return h, false, nil
	}
	h, _ = f.header(salt)
	return h, true, nil
}

// later is the number in the copy of the header. When that is of a later use of the
// file than the header, a power cut has let the frame come and not the header: nobody
// was told of it, and it is not there. So it has to stay if the header is lost as well,
// as when the next use of the file is torn. So the file is not used again, and what
// comes has higher numbers.
func (s *segment) later(read reader) (number uint64, err error) {
	h, _, err := s.readCopy(read)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", s.file.Name(), err)
	}
	s.bad = s.bad || h.number > s.number
	return h.number, nil
}

// farthest is how much higher than what else is known a number in the journal may be.
const farthest = 1 << 48

// shows looks into a segment without a header for frames of records that come later
// than after, and gives the number of the last. If there is one, the segment is not torn,
// its header is lost: a frame behind the first one was written when that was acknowledged,
// and frames of an earlier use of the file have numbers that are not needed. (Should a
// message look like such a frame, the file is kept for nothing.) When records are known to
// be missing, all that is not zeros may be theirs.
func (s *segment) shows(after uint64, missing bool, read reader) (last uint64, err error) {
	b, unread, err := s.read(min(s.size, maxSegment), read)
	lost := Unreadable(err)
	switch {
	case lost:
		unread = err
	case err != nil:
		return 0, fmt.Errorf("reading %s: %w", s.file.Name(), err)
	}
	missing = missing || unread != nil
	for at := block; at+block <= len(b); at += block {
		lost = lost || missing && !bytes.Equal(b[at:at+block], zeros)
		f, ok := decodeFrame(b[at:], binary.LittleEndian.Uint64(b[at+24:]))
		if end := f.first + uint64(f.count) - 1; ok && f.count > 0 && end > after && end-after < farthest {
			last, lost = max(last, end), true
		}
	}
	if lost {
		s.torn, s.unreadable = false, cmp.Or(s.unreadable, unread, errHeader)
	}
	return last, nil
}

// survey follows the chain of segments, and tells the headers that are lost from those
// that were never there.
func survey(found []*segment, read reader) (c chain, err error) {
	headless := func(s *segment) bool { return s.salt == 0 && s.unreadable != nil }
	c, err = follow(slices.DeleteFunc(slices.Clone(found), headless), read)
	for _, s := range found {
		if err != nil || !s.torn && !headless(s) {
			continue
		}
		var last uint64
		last, err = s.shows(c.checkpoint, c.missing(), read)
		c.last = max(c.last, last)
	}
	c.rest = slices.DeleteFunc(c.rest, headless)
	if Unreadable(err) {
		err = fmt.Errorf("too little of the journal can be read; to start without the records there, move the file away: %w", err)
	}
	if err == nil {
		err = known(found)
	}
	return c, err
}

// doubted is an error when a header is lost, so that there may be later records than
// last. A torn segment has none.
func doubted(found []*segment, last uint64, read reader) error {
	for _, s := range found {
		if s.torn {
			if _, err := s.shows(last, false, read); err != nil {
				return err
			}
		}
		if s.unreadable != nil && !(s.torn && s.unreadable == errHeader) {
			return fmt.Errorf("%s has no valid header: %w", s.file.Name(), s.unreadable)
		}
	}
	return nil
}

// known is an error when so many headers are lost that the others do not tell
// what the journal holds: to begin a new one would lose it.
func known(found []*segment) error {
	var lost []error
	newest := uint64(0)
	for _, s := range found {
		if s.salt == 0 && s.unreadable != nil && !s.torn {
			lost = append(lost, fmt.Errorf("%s has no valid header: %w", s.file.Name(), s.unreadable))
		}
		newest = max(newest, s.number)
	}
	if len(lost) > 1 || len(lost) == 1 && newest == 0 {
		return fmt.Errorf("too little of the journal can be read; to start without the records there, move the files away: %w", errors.Join(lost...))
	}
	return nil
}

// keepUnreadable sets aside the segments whose headers are lost, and gives the
// others. No chain leads to such a one should it be readable at the next start.
func (j *Journal) keepUnreadable(found []*segment) (rest []*segment, err error) {
	torn := 0
	for _, s := range found {
		if s.torn && s.unreadable != nil {
			torn++
		}
	}
	for _, s := range found {
		if s.salt != 0 || s.unreadable == nil {
			rest = append(rest, s)
			continue
		}
		s.torn = s.torn && torn == 1 // a power cut tears one write
		to, failed := j.setAside(s)
		if failed == nil {
			j.options.Damaged(fmt.Errorf("%s has no valid header, and is now %s%s: %w", s.file.Name(), to, s.doubt(), s.unreadable))
		}
		err = errors.Join(err, failed, s.file.Close())
	}
	return rest, err
}

// doubt is what may be said of a torn segment.
func (s *segment) doubt() string {
	if s.torn {
		return " (nothing is lost if it was a power cut)"
	}
	return ""
}

// setAside gives a segment a name under which it is kept, and not used. Of those that
// are torn, in which most likely nothing was acknowledged, only the last is kept.
func (j *Journal) setAside(s *segment) (string, error) {
	if s.torn {
		return tornName, j.root.Rename(filepath.Base(s.file.Name()), tornName)
	}
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
