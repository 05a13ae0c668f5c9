package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"

	"crypto/rand"

	"restante/storage/internal/journal"
)

// notesDir is where processes that do not have the journal note what they remove,
// so that recovery does not bring it back.
const notesDir = journalDir + "/removed"

// lasting is the number in notes of what recovery could not remove yet.
const lasting = math.MaxUint64

// note is a removal by another process than the one that has the journal, or one that
// recovery could not do.
type note struct {
	record
	after uint64 // what it removed was delivered by this record at the latest
}

// noteRemoval makes it durable that recovery must not bring back messages with
// these base names to a mailbox: in the journal, if this process has it, else in
// notes beside it.
func (s *Store) noteRemoval(a address, names []string) error {
	for len(names) > 0 {
		n := fitting(names)
		if err := s.noteSome(record{kind: recordRemoved, to: []address{a}, names: names[:n]}); err != nil {
			return fmt.Errorf("noting a removal: %w", err)
		}
		names = names[n:]
	}
	return nil
}

func (s *Store) noteSome(rec record) error {
	if j := s.journal.Load(); j != nil {
		return s.journalRemoval(j, rec)
	}
	after, err := journal.LastOf(filepath.Join(s.dataDir, journalDir))
	if err != nil || after == 0 { // there is nothing that could come back
		return err
	}
	n := note{record: rec, after: after}
	_, err = s.writeNote(n.encode())
	return err
}

// encode writes the note with a checksum at its end.
func (n *note) encode() []byte {
	b := append(binary.BigEndian.AppendUint64(nil, n.after), n.record.encode()...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// journalRemoval is noteRemoval for a removal that nobody does again, because
// the caller syncs it.
func (s *Store) journalRemoval(j *journal.Journal, rec record) error {
	_, applied, err := j.AppendUrgent(rec.encode())
	if err == nil {
		applied()
	}
	return err
}

// writeNote writes a note that is on stable storage, and returns its file, or none.
func (s *Store) writeNote(b []byte) (path string, err error) {
	dir := filepath.Join(s.dataDir, notesDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	name := rand.Text()
	draft, path := filepath.Join(dir, "."+name), filepath.Join(dir, name)
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = s.disk.sync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(draft))
	}
	if err = errors.Join(s.syncPath(dir), s.syncPath(filepath.Dir(dir))); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// dropNotes removes the notes about records up to seq.
func (s *Store) dropNotes(seq uint64) {
	if err := s.forgetNotesWhere(func(n note) bool { return n.after <= seq }); err != nil {
		s.log.Warn("reading the notes beside the journal failed", "error", err)
	}
}

// forgetNotesWhere is forgetNotes for those of which done is true.
func (s *Store) forgetNotesWhere(done func(n note) bool) error {
	var paths []string
	err := s.readNotes(func(path string, n note, err error) error {
		if err == nil && done(n) {
			paths = append(paths, path)
		}
		return nil
	})
	s.forgetNotes(paths)
	return err
}

// forgetNotes removes the files of notes that are not needed any more.
func (s *Store) forgetNotes(paths []string) {
	for _, path := range paths {
		if err := ignoreMissing(os.Remove(path)); err != nil {
			s.log.Warn("removing a note beside the journal failed", "error", err)
		}
	}
}

// readNotes calls fn for every note, with an error for those that the disk cannot read,
// or that are damaged. Those that could not be read at the start are left out.
func (s *Store) readNotes(fn func(path string, n note, err error) error) error {
	dir := filepath.Join(s.dataDir, notesDir)
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		// A hidden one was cut off in the writing: nobody was told that it is there.
		if strings.HasPrefix(f.Name(), ".") || f.IsDir() || s.unreadNote(path) {
			continue
		}
		n, err := readNote(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil && !journal.Unreadable(err) && !errors.Is(err, errNoNote) {
			return err
		}
		if err := fn(path, n, err); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) unreadNote(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread[path]
}

// readNote reads the file of a note, twice if the disk fails: it may not do so always.
func readNote(path string) (note, error) {
	b, err := os.ReadFile(path)
	if journal.Unreadable(err) {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return note{}, err
	}
	return decodeNote(b)
}

// errNoNote: the file is no note, or is damaged.
var errNoNote = errors.New("its checksum or content is wrong")

func decodeNote(b []byte) (n note, err error) {
	end := len(b) - crc32.Size
	if end < 8 || crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return note{}, fmt.Errorf("note of %d octets: %w", len(b), errNoNote)
	}
	n.record, err = decodeRecord(b[8:end])
	if err != nil {
		return note{}, fmt.Errorf("%w: %w", errNoNote, err)
	}
	n.after = binary.BigEndian.Uint64(b)
	return n, nil
}
