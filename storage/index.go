package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

const (
	indexMagic   = "restante index 2\n"
	maxIndexSize = 256 << 20 // octets, about four million messages
	recordSize   = 64        // octets of an ordinary record, for estimates
)

// The index remembers, by base name, the wire sizes of files whose names do not
// tell them: foreign files, and files of our own that were found to be different
// from what their names say. It is a cache. It is written without sync; a
// checksum tells a damaged one, which counts as empty.
//
// A record holds for the file of that base name and inode, and a login takes
// both from the directory and looks at no file. That is enough: a file in new/
// or cur/ is not changed any more, and one that takes its place has another
// inode. Should a program do otherwise, what is announced is wrong, but nothing
// wrong passes for the message: opening it compares the size on disk, sending it
// counts the octets, and what fails there is measured again by the next session.
// Names of our own form are trusted in the same way. The time of the file tells
// nothing more: readers set it as they like.
//
// It begins with the magic. Each record is the base name with its length, the
// inode, the octets on disk and on the wire (all numbers as varints), in
// maildrop order, so that it is compared with a maildrop in one pass. The CRC-32
// of all that is the end.

func beginIndex(records int) []byte {
	return append(make([]byte, 0, len(indexMagic)+records*recordSize+crc32.Size), indexMagic...)
}

func appendRecord[T string | []byte](b []byte, base T, ino uint64, size, octets int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(base)))
	b = append(b, base...)
	b = binary.AppendUvarint(b, ino)
	b = binary.AppendUvarint(b, uint64(size))
	return binary.AppendUvarint(b, uint64(octets))
}

func endIndex(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

// openIndex returns the records of an index, if it is one.
func openIndex(b []byte) (records []byte, ok bool) {
	n := len(b) - crc32.Size
	if n < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic ||
		crc32.ChecksumIEEE(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return nil, false
	}
	return b[len(indexMagic):n], true
}

// indexCursor goes through the records of an index.
type indexCursor struct {
	left []byte
	ok   bool // there is a record, as follows

	base         []byte
	ino          uint64 // 0: the file is to be measured again
	size, octets int64
}

func startIndex(records []byte) *indexCursor {
	c := &indexCursor{left: records}
	c.next()
	return c
}

// next takes the next record. What cannot be one is the end.
func (c *indexCursor) next() {
	length, n := binary.Uvarint(c.left)
	c.ok = n > 0 && length <= uint64(len(c.left)-n)
	if !c.ok {
		return
	}
	c.base, c.left = c.left[n:n+int(length)], c.left[n+int(length):]
	c.ino = c.number()
	c.size = c.count()
	c.octets = c.count()
}

func (c *indexCursor) number() uint64 {
	v, n := binary.Uvarint(c.left)
	if n <= 0 {
		c.ok, n = false, 0
	}
	c.left = c.left[n:]
	return v
}

func (c *indexCursor) count() int64 {
	v := c.number()
	c.ok = c.ok && v <= math.MaxInt64
	return int64(v)
}

// seek skips the records before base, and reports how many these are and whether
// the record of base comes then.
func (c *indexCursor) seek(base string) (skipped int, found bool) {
	for c.ok && string(c.base) != base {
		if compareBases(string(c.base), base) > 0 {
			return skipped, false
		}
		c.next()
		skipped++
	}
	return skipped, c.ok
}

// recall fills in the sizes that an index knows. Entries of our own form that
// the index lists are not trusted by their names. It returns how many records
// are of no use.
func recall(records []byte, entries []entry) (stale int) {
	c := startIndex(records)
	for i := 0; i < len(entries) && c.ok; i++ {
		e := &entries[i]
		skipped, found := c.seek(e.base())
		stale += skipped
		if !found {
			continue
		}
		e.own, e.state = false, unsized
		if c.ino != 0 && c.ino == e.ino {
			e.size, e.octets, e.state = c.size, c.octets, sized
		} else {
			stale++
		}
		c.next()
	}
	for ; c.ok; c.next() {
		stale++
	}
	return stale
}

// loadIndex reads the records of a mailbox whose lock is held. An index that
// cannot be read has none.
func (s *Store) loadIndex(a address) []byte {
	records, err := s.readRecords(a)
	if err != nil {
		s.log.Warn("index is damaged, measuring again", "mailbox", a.String(), "error", errors.Join(err, s.removeIndex(a)))
	}
	return records
}

var errNoIndex = errors.New("the file is no index, or its checksum is wrong")

// readRecords reads the records of the index of a mailbox. Without an index there
// are none.
func (s *Store) readRecords(a address) ([]byte, error) {
	f, err := s.index.OpenFile(a.path(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer f.Close()
	b, err := readIndex(f)
	if err != nil {
		return nil, err
	}
	records, ok := openIndex(b)
	if !ok {
		return nil, errNoIndex
	}
	return records, nil
}

func readIndex(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errSkip
	}
	b := make([]byte, min(info.Size(), maxIndexSize))
	_, err = io.ReadFull(f, b)
	return b, err
}

// saveIndex replaces the index of a mailbox whose lock is held by what entries
// tell; nothing of names that tell their sizes. Those that are not measured yet
// are left out.
func (s *Store) saveIndex(a address, entries []entry) {
	b := beginIndex(countIndexed(entries))
	for i := range entries {
		switch e := &entries[i]; {
		case e.indexed():
			b = appendRecord(b, e.base(), e.ino, e.size, e.octets)
		case e.distrusted():
			b = appendRecord(b, e.base(), 0, 0, 0)
		}
	}
	s.replaceIndex(a, b)
}

// indexed reports whether e belongs in the index.
func (e *entry) indexed() bool { return !e.own && e.state == sized }

// distrusted reports whether e was found to be different from what its name says,
// and was not measured since: without a record its name would be believed.
func (e *entry) distrusted() bool {
	return !e.own && e.state != sized && parseName(e.name).ours
}

func countIndexed(entries []entry) (n int) {
	for i := range entries {
		if entries[i].indexed() {
			n++
		}
	}
	return n
}

// replaceIndex writes b as the index, without its end so far, or removes the
// index if b has no records.
func (s *Store) replaceIndex(a address, b []byte) {
	var err error
	switch {
	case len(b) == len(indexMagic):
		err = s.removeIndex(a)
	case len(b) > maxIndexSize-crc32.Size:
		err = errors.Join(errors.New("too many files of other programs"), s.removeIndex(a))
	default:
		err = s.writeIndex(a, endIndex(b))
	}
	if err != nil {
		s.log.Warn("index not written", "mailbox", a.String(), "error", err)
	}
}

// distrust makes the next session measure a message that was found to be
// different from what was announced. The lock of the mailbox is held.
func (s *Store) distrust(a address, base string) {
	records := s.loadIndex(a)
	b := beginIndex(1 + len(records)/recordSize)
	marked := false
	for c := startIndex(records); c.ok; c.next() {
		order := compareBases(string(c.base), base)
		if order >= 0 && !marked {
			b = appendRecord(b, base, 0, 0, 0)
			marked = true
		}
		if order != 0 {
			b = appendRecord(b, c.base, c.ino, c.size, c.octets)
		}
	}
	if !marked {
		b = appendRecord(b, base, 0, 0, 0)
	}
	s.replaceIndex(a, b)
}

func (s *Store) writeIndex(a address, b []byte) error {
	if err := s.index.Mkdir(a.domain, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	draft := indexDraft(a)
	if err := s.index.WriteFile(draft, b, 0o600); err != nil {
		return errors.Join(err, s.index.Remove(draft))
	}
	return s.index.Rename(draft, a.path())
}

// indexDraft is the one name under which the index of a mailbox is written, so
// that a crash leaves one at most. It is no user's name: those do not begin with
// a dot.
func indexDraft(a address) string { return path.Join(a.domain, "."+a.digest()) }

// removeIndex forgets the index of a mailbox whose lock is held.
func (s *Store) removeIndex(a address) error {
	var errs []error
	for _, p := range []string{a.path(), indexDraft(a)} {
		if err := s.index.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
