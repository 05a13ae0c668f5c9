package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

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
		if intact, err := s.intact(f); err != nil || !intact {
			return nil, errors.Join(errNoDraft, err, f.Close())
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

// errMoved: a file is no longer where it was found. It has to be looked for again.
var errMoved = errors.New("moved by another program")

// errUnopened: the disk does not let a file or directory of a mailbox be opened.
var errUnopened = errors.New("the disk cannot open it")

// complete sees to that a mailbox has the message whole, wherever it was found.
func (s *source) complete(a address, at []place) error {
	if len(at) == 0 {
		return s.completeMissing(a)
	}
	delete(s.missed[a], s.rec.names[0])
	written := false // or there is no telling
	for _, p := range at {
		whole, err := s.whole(a, p)
		switch {
		case errors.Is(err, errUnopened):
			// Another takes its name, if that is to be had; nobody else has to wait for that.
			written = true
			if why := s.deliver(a, p, true); errors.Is(why, unix.EIO) {
				err = s.putAside(a, errors.Join(err, why))
			} else {
				err = why
			}
		case err == nil && !whole:
			written, err = true, s.deliver(a, p, true)
		}
		if err != nil {
			return err
		}
	}
	// More than one file of a reader, or one of ours too, as a damaged one was moved
	// after we had found it.
	if !written && len(at) > 1 {
		return s.drop(a, at)
	}
	return nil
}

// completeMissing is complete for a message that is not in the mailbox.
func (s *source) completeMissing(a address) error {
	name := s.rec.names[0]
	misses := s.missed[a][name] + 1
	mark(s.missed, a, s.rec.names[:1], misses)
	switch {
	case s.dropped[a][name] && misses <= surelyGone:
		// A reader gave the file that was to stay the name of one that was not.
		return s.deliver(a, place{name: name}, s.again)
	case s.placed[a][name]:
		return nil // and removed by somebody since
	case s.again && !s.hidden[a]:
		// It was delivered, and not removed by us, or was refused.
		if misses < surelyGone {
			return errMoved
		}
		return nil
	}
	return s.deliver(a, place{name: name}, false)
}

// giveUp is complete for a message that was not settled in so many passes.
func (s *source) giveUp(a address, _ []place) error {
	return s.putAside(a, fmt.Errorf("%w, %d times", errMoved, recoveryPasses))
}

// whole is whether a file has all octets of the message.
func (s *source) whole(a address, at place) (bool, error) {
	dir, err := s.store.openDir(a.domain, a.local, at.dir())
	if errors.Is(err, unix.EIO) {
		return false, errors.Join(errUnopened, err)
	}
	if err != nil {
		return false, moved(err)
	}
	defer dir.Close()
	if err := s.store.touch(dir); err != nil { // nobody has synced what is there
		return false, err
	}
	f, err := s.store.disk.open(dir, at.name)
	if errors.Is(err, unix.EIO) {
		return false, errors.Join(errUnopened, err)
	}
	if err != nil {
		return false, moved(err)
	}
	defer f.Close()
	st, err := statFile(f)
	if err != nil || s.fresh[inodeOf(st)] {
		return err == nil, err
	}
	if s.again || st.Size != parseName(at.name).size || !isRegular(st) {
		return false, nil
	}
	intact, err := s.intact(f)
	if err != nil {
		s.store.log.Error("a message cannot be read, it is written again", "mailbox", a.String(), "file", at.name, "error", err)
	}
	return intact && err == nil, nil
}

// moved is errMoved for a file that is not there, else passing.
func moved(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return errMoved
	}
	return passing(err)
}

// dir is the directory of a place.
func (p place) dir() string {
	if p.seen {
		return "cur"
	}
	return "new"
}

// drop removes all of these files but the one that is served. It has to be looked for
// once more.
func (s *source) drop(a address, at []place) error {
	served := slices.MinFunc(at, func(p, q place) int {
		e, f := newEntry(p.name, p.seen, 0), newEntry(q.name, q.seen, 0)
		return compareFiles(&e, &f)
	})
	for _, p := range at {
		if p == served {
			continue
		}
		err := s.unlink(a, p)
		if err == nil {
			mark(s.dropped, a, s.rec.names[:1], true)
			mark(s.unsettled, a, s.rec.names[:1], nil)
		} else if err = moved(err); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) unlink(a address, at place) error {
	dir, err := s.store.openDir(a.domain, a.local, at.dir())
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := s.store.touch(dir); err != nil {
		return err
	}
	return s.store.disk.unlink(dir, at.name)
}

// sameOctets compares what two readers have left.
func sameOctets(a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, bufferSize), make([]byte, bufferSize)
	for {
		n, err := io.ReadFull(a, bufA)
		k, errB := io.ReadFull(b, bufB)
		if err := errors.Join(unended(err), unended(errB)); err != nil {
			return false, err
		}
		if !bytes.Equal(bufA[:n], bufB[:k]) {
			return false, nil
		}
		if err != nil {
			return true, nil
		}
	}
}

// unended is an error of io.ReadFull that is not the end.
func unended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// deliver gives a mailbox the message, in place of what was found there, if it was.
func (s *source) deliver(a address, at place, found bool) error {
	if made, err := s.make(a); !made {
		return err
	}
	err := s.place(a, at, found)
	if errors.Is(err, unix.EIO) && s.hidden[a] { // it cannot be changed any more than read
		err = errors.Join(errUnopened, err)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errMoved
	case err != nil && (passing(err) == nil || errors.Is(err, errUnopened)):
		return s.putAside(a, err)
	case err != nil:
		return err
	}
	if name := s.rec.names[:1]; !s.placed[a][name[0]] {
		s.completed++
		mark(s.placed, a, name, true)
	}
	delete(s.dropped[a], s.rec.names[0])
	mark(s.unsettled, a, s.rec.names[:1], nil)
	return nil
}

// make makes the file that mailboxes are given, unless its octets are lost.
func (s *source) make(a address) (made bool, err error) {
	if s.name == "" {
		err = s.makeFile()
	}
	if errors.Is(err, errNoDraft) {
		s.store.log.Error("a message is lost", "mailbox", a.String(), "file", s.rec.names[0], "error", err)
		return false, nil
	}
	return err == nil, err
}

func (s *source) makeFile() error {
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

// place puts the file into new/ or cur/, in one step, over what has that name. A
// mailbox where the message was found is not made anew.
func (s *source) place(a address, at place, found bool) error {
	open := func() (*os.File, error) { return s.store.openDir(a.domain, a.local, at.dir()) }
	if !found {
		open = func() (*os.File, error) { return s.store.openNew(a) }
	}
	dir, err := open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := s.store.touch(dir); err != nil {
		return err
	}
	link := s.name + "+"
	if err := ignoreMissing(s.store.disk.unlink(s.store.drafts, link)); err != nil {
		return err
	}
	err = s.store.disk.link(s.store.drafts, s.name, s.store.drafts, link)
	if err == nil {
		err = s.note(s.store.drafts, link)
	}
	if err == nil {
		err = s.store.disk.rename(s.store.drafts, link, dir, at.name)
	}
	if err == nil {
		return nil
	}
	s.store.unlinkDraft(link)
	if errors.Is(err, os.ErrNotExist) || passing(err) != nil {
		return err
	}
	if err := s.store.enterCopy(s.name, a, dir, at.name); err != nil {
		return err
	}
	return ignoreMissing(s.note(dir, at.name))
}

// note remembers a file that was written by this recovery.
func (s *source) note(dir *os.File, name string) error {
	st, err := statAt(dir, name)
	if err == nil {
		s.fresh[inodeOf(st)] = true
	}
	return err
}

// putAside keeps a message whose mailbox cannot take it: it is not lost, and
// nobody else has to wait for it.
func (s *source) putAside(a address, why error) error {
	if made, err := s.make(a); !made {
		return err
	}
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
	if err := errors.Join(s.store.copyDraft(s.name, dir, name), s.store.disk.syncDir(dir), s.store.syncPath(filepath.Dir(path))); err != nil {
		return err
	}
	s.store.log.Error("a mailbox cannot be used; a message for it was put aside",
		"mailbox", a.String(), "file", filepath.Join(path, name), "error", why)
	return nil
}
