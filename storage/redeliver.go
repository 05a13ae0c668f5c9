package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// source is the octets of one record's message.
type source struct {
	*recovery
	rec   record
	draft *os.File // of a large message
	name  string   // file in mail/.tmp that mailboxes are given; "" before it is made
}

func (s *source) close() {
	if s.draft != nil {
		s.draft.Close()
	}
	if s.name != "" && (s.rec.kind == recordMessage || s.again) {
		s.store.unlinkDraft(s.name)
	}
}

// errNoDraft: the octets of a large message are gone.
var errNoDraft = errors.New("its draft is missing or damaged")

// open gives the octets from their beginning.
func (s *source) open() (io.Reader, error) {
	if s.rec.kind == recordMessage {
		return bytes.NewReader(s.rec.data), nil
	}
	if s.draft == nil {
		f, err := openAt(s.store.drafts, s.rec.names[1], unix.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			return nil, errNoDraft
		}
		if err != nil {
			return nil, err
		}
		intact, err := s.intact(f)
		if err == nil && !intact {
			err = errNoDraft
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		s.draft = f
	}
	_, err := s.draft.Seek(0, io.SeekStart)
	return s.draft, err
}

// intact is whether f has, from its beginning, the octets of the message.
func (s *source) intact(f *os.File) (bool, error) {
	// After a write that failed, octets in memory may differ from those on the disk.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return false, err
	}
	if s.rec.kind == recordMessage {
		return sameOctets(f, bytes.NewReader(s.rec.data))
	}
	buf, sum, size := make([]byte, bufferSize), uint32(0), int64(0)
	for {
		n, err := f.Read(buf)
		sum, size = draftSum(sum, buf[:n]), size+int64(n)
		if err == io.EOF {
			return sum == binary.BigEndian.Uint32(s.rec.data) && size == parseName(s.rec.names[0]).size, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// whole is whether the message is in the mailbox with all its octets.
func (s *source) whole(a address, at place) (bool, error) {
	if at.name == "" || s.again {
		return false, nil
	}
	m, err := s.store.openMailbox(a)
	if err != nil {
		return false, passing(err)
	}
	defer m.close()
	f, err := openAt(m.dir(at.seen), at.name, unix.O_RDONLY)
	if err != nil {
		return false, passing(err)
	}
	defer f.Close()
	st, err := statFile(f)
	if err != nil || st.Size != parseName(at.name).size || !isRegular(st) {
		return false, err
	}
	return s.intact(f)
}

// sameOctets compares what two readers have left.
func sameOctets(a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, bufferSize), make([]byte, bufferSize)
	for {
		n, err := io.ReadFull(a, bufA)
		k, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:k]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return true, nil
		}
		if err := errors.Join(err, errB); err != nil {
			return false, err
		}
	}
}

// deliver gives a mailbox the message, in place of what is there.
func (s *source) deliver(a address, at place) error {
	err := s.make()
	if errors.Is(err, errNoDraft) {
		s.store.log.Error("a message is lost", "mailbox", a.String(), "file", s.rec.names[0], "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if at.name == "" {
		at.name = s.rec.names[0]
	}
	err = s.place(a, at)
	if err == nil {
		s.completed++
		return nil
	}
	if passing(err) != nil {
		return err
	}
	return s.putAside(a, err)
}

// make makes the file that mailboxes are given.
func (s *source) make() error {
	if s.name != "" {
		return nil
	}
	octets, err := s.open()
	if err != nil {
		return err
	}
	if s.rec.kind == recordDraft && !s.again {
		s.name = s.rec.names[1]
		return nil
	}
	name := s.rec.names[0] + "+"
	if err := ignoreMissing(s.store.disk.unlink(s.store.drafts, name)); err != nil {
		return err
	}
	f, err := s.store.disk.create(s.store.drafts, name)
	if err != nil {
		return err
	}
	s.name = name
	return errors.Join(s.store.copy(f, octets), f.Close())
}

// place puts the file into new/ or cur/, in one step, over what has that name.
func (s *source) place(a address, at place) error {
	dir, err := s.store.openNew(a)
	if err != nil {
		return err
	}
	defer dir.Close()
	if at.seen {
		dir.Close()
		if dir, err = s.store.openDir(a.domain, a.local, "cur"); err != nil {
			return err
		}
		defer dir.Close()
	}
	if err := s.store.touch(dir); err != nil {
		return err
	}
	link := s.name + "+"
	if err := ignoreMissing(s.store.disk.unlink(s.store.drafts, link)); err != nil {
		return err
	}
	err = s.store.disk.link(s.store.drafts, s.name, s.store.drafts, link)
	if err == nil {
		err = s.store.disk.rename(s.store.drafts, link, dir, at.name)
	}
	if err == nil || passing(err) != nil {
		return err
	}
	s.store.unlinkDraft(link)
	if err := ignoreMissing(s.store.disk.unlink(dir, at.name)); err != nil {
		return err
	}
	return s.store.enterCopy(s.name, a, dir, at.name)
}

// putAside keeps a message whose mailbox cannot take it: it is not lost, and
// nobody else has to wait for it.
func (s *source) putAside(a address, why error) error {
	path := filepath.Join(s.store.dataDir, unplacedDir)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := s.rec.names[0] + "," + a.digest() // the address may be too long
	if err := ignoreMissing(s.store.disk.unlink(dir, name)); err != nil {
		return err
	}
	if err := errors.Join(s.store.copyDraft(s.name, dir, name), s.store.disk.syncDir(dir), syncPath(filepath.Dir(path))); err != nil {
		return err
	}
	s.store.log.Error("a mailbox cannot be opened; a message for it was put aside",
		"mailbox", a.String(), "file", filepath.Join(path, name), "error", why)
	return nil
}
