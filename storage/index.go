package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

const (
	indexMagic   = "restante index 1\n"
	maxIndexSize = 64 << 20 // octets; a larger index is not ours
)

// measured is the wire size of a file as it was at one time. A file that looks
// different by now is measured again.
type measured struct {
	ino         uint64
	size, mtime int64 // octets on disk; ns
	octets      int64 // octets on the wire
}

func measuredOf(st unix.Stat_t, octets int64) measured {
	return measured{ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), octets: octets}
}

// index remembers, by base name, the wire sizes of files whose names do not tell
// them: foreign files, and files of our own that were found to be different from
// what their names say. It is a cache. It is written without sync; a checksum
// tells a damaged one, which counts as empty.
type index map[string]measured

// encodeIndex writes the magic, then per file the base name with its length and four numbers (all varints), then the CRC-32 of all that.
func encodeIndex(files index) []byte {
	b := []byte(indexMagic)
	for base, f := range files {
		b = binary.AppendUvarint(b, uint64(len(base)))
		b = append(b, base...)
		b = binary.AppendUvarint(b, f.ino)
		b = binary.AppendVarint(b, f.size)
		b = binary.AppendVarint(b, f.mtime)
		b = binary.AppendVarint(b, f.octets)
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// decodeIndex is the reverse of encodeIndex. What is not such a file is nil.
func decodeIndex(b []byte) index {
	n := len(b) - crc32.Size
	if n < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic ||
		crc32.ChecksumIEEE(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return nil
	}
	files := make(index)
	d := indexDecoder{b: b[len(indexMagic):n]}
	for len(d.b) > 0 && !d.bad {
		base := d.text()
		files[base] = measured{ino: d.unsigned(), size: d.signed(), mtime: d.signed(), octets: d.signed()}
	}
	if d.bad {
		return nil
	}
	return files
}

// indexDecoder takes values off the front of b, until one is not there.
type indexDecoder struct {
	b   []byte
	bad bool
}

func (d *indexDecoder) take(n int) {
	if n <= 0 {
		d.b, d.bad = nil, true
		return
	}
	d.b = d.b[n:]
}

func (d *indexDecoder) unsigned() uint64 {
	v, n := binary.Uvarint(d.b)
	d.take(n)
	return v
}

func (d *indexDecoder) signed() int64 {
	v, n := binary.Varint(d.b)
	d.take(n)
	return v
}

func (d *indexDecoder) text() string {
	n := d.unsigned()
	if n > uint64(len(d.b)) {
		d.take(0)
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// loadIndex reads the index of a mailbox whose lock is held. One that cannot be
// read is empty.
func (s *Store) loadIndex(a address) index {
	f, err := s.index.OpenFile(a.path(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, maxIndexSize))
		f.Close()
	}
	files := decodeIndex(b)
	if err != nil || files == nil {
		s.log.Warn("index is damaged, measuring again", "mailbox", a.String(), "error", errors.Join(err, s.removeIndex(a)))
		return nil
	}
	return files
}

// saveIndex replaces the index of a mailbox whose lock is held.
func (s *Store) saveIndex(a address, files index) {
	var err error
	if len(files) == 0 {
		err = s.removeIndex(a)
	} else {
		err = s.writeIndex(a, encodeIndex(files))
	}
	if err != nil {
		s.log.Warn("index not written", "mailbox", a.String(), "error", err)
	}
}

// distrust makes the next session measure a message that was found to be
// different from what was announced. The lock of the mailbox is held.
func (s *Store) distrust(a address, base string) {
	files := s.loadIndex(a)
	if files == nil {
		files = make(index)
	}
	files[base] = measured{size: -1} // looks like no file
	s.saveIndex(a, files)
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
