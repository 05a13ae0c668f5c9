package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

// commit makes a draft durable in mailboxes, all or none, and shows it there.
// Every delivery comes through here and through nothing else.
func (s *Store) commit(d *draft, to []address) error {
	name := formatName(d.began, d.id, s.host, d.size, d.octets)
	if j := s.journal.Load(); j != nil {
		return s.commitJournaled(j, d, name, to)
	}
	return s.commitSynced(d, name, to)
}

// commitJournaled makes the draft durable by a record of the journal, with its
// octets in it when it is small. What happens in the mailboxes needs no sync:
// until the next checkpoint has synced it, recovery can do it again.
func (s *Store) commitJournaled(j *journal.Journal, d *draft, name string, to []address) error {
	r := record{kind: recordMessage, to: to, names: []string{name}, data: d.data}
	if d.file != nil {
		if err := d.settle(); err != nil {
			return err
		}
		r.kind, r.names = recordDraft, append(r.names, d.id)
		r.data = binary.BigEndian.AppendUint32(nil, d.sum)
	}
	seq, applied, err := j.Append(r.encode(), r.data)
	if err != nil {
		return err
	}
	s.applying.RLock()
	entered, err := s.publish(d, name, to)
	var refused *refusal
	if err != nil {
		s.takeBack(entered, name, false)
		refused = s.keepRefusal(seq, name, to)
	} else if d.file != nil {
		s.keepDraft(seq, d)
	}
	s.applying.RUnlock()
	applied()
	if refused != nil {
		_ = s.refuse(j, refused) // it is kept then, and tried again
	}
	return err
}

// commitSynced is for a process that does not have the journal, such as a
// command beside the server: it syncs the file and every directory by itself.
func (s *Store) commitSynced(d *draft, name string, to []address) error {
	err := d.spill()
	if err == nil {
		err = s.disk.sync(d.file)
	}
	if err != nil {
		return err
	}
	entered, err := s.publish(d, name, to)
	for _, a := range to {
		if err == nil {
			err = s.settleNew(a)
		}
	}
	if err != nil {
		s.takeBack(entered, name, true)
	}
	return err
}

// publish enters a draft in mailboxes. On an error it tells in which it is all the
// same.
func (s *Store) publish(d *draft, name string, to []address) (entered []address, err error) {
	if d.file == nil {
		if err := d.write(); err != nil {
			return nil, err
		}
	}
	for i, a := range to {
		err := s.enter(d, a, name, d.file == nil && i == len(to)-1)
		if err != nil && !errors.Is(err, os.ErrExist) { // else it is some other delivery's: not ours to take back
			entered = append(entered, a)
		}
		if err != nil {
			return entered, err
		}
		entered = append(entered, a)
	}
	return entered, nil
}

// enter gives a mailbox the draft under name: the same inode, or a copy where the
// file system refuses that. The last mailbox may take over the draft's own name,
// which saves removing it.
func (s *Store) enter(d *draft, a address, name string, last bool) error {
	dir, err := s.openNew(a)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := s.touch(dir); err != nil {
		return err
	}
	if last {
		err = s.disk.rename(s.drafts, d.id, dir, name)
		d.named = err != nil
	} else {
		err = s.disk.link(s.drafts, d.id, dir, name)
	}
	for _, refusal := range []error{unix.EXDEV, unix.EPERM, unix.EMLINK, unix.EOPNOTSUPP} {
		if errors.Is(err, refusal) {
			return s.enterCopy(d.id, a, dir, name)
		}
	}
	return err
}

// openNew opens new/ of a mailbox, and makes the mailbox if need be.
func (s *Store) openNew(a address) (*os.File, error) {
	const tries = 10 // each lost only to a removal of the mailbox in that moment
	dir, err := s.openDir(a.domain, a.local, "new")
	for i := 0; i < tries && errors.Is(err, os.ErrNotExist); i++ {
		if err := s.makeMailbox(a); err != nil {
			return nil, err
		}
		dir, err = s.openDir(a.domain, a.local, "new")
	}
	return dir, err
}

// enterCopy gives a directory of a mailbox a synced copy of a draft. A mailbox that
// was removed since is not made anew.
func (s *Store) enterCopy(draft string, a address, dir *os.File, name string) (err error) {
	err = s.disk.mkdir(s.mail, a.path()+"/tmp") // Maildirs of others may lack it
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	tmp, err := s.openTmp(a)
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := ignoreMissing(s.disk.unlink(tmp, name)); err != nil { // what a crash left
		return err
	}
	if err = s.copyDraft(draft, tmp, name); err == nil {
		err = s.disk.rename(tmp, name, dir, name)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.disk.unlink(tmp, name)))
	}
	return nil
}

// copyDraft makes a synced copy of a draft in dir.
func (s *Store) copyDraft(draft string, dir *os.File, name string) error {
	src, err := openAt(s.drafts, draft, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := s.disk.create(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.copy(f, src); err != nil {
		return err
	}
	return s.disk.sync(f)
}

// copy writes what src has left to f.
func (s *Store) copy(f *os.File, src io.Reader) error {
	buf := s.bufs.get()
	defer s.bufs.put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := s.disk.write(f, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// openTmp opens tmp/ of a mailbox.
func (s *Store) openTmp(a address) (*os.File, error) { return s.openDir(a.domain, a.local, "tmp") }

// takeBack removes a delivered file from mailboxes, also where a reader has moved
// it to cur/ or set flags. It is part of a failure already, so its own failure
// only goes to the log: the message may then come twice.
func (s *Store) takeBack(from []address, name string, sync bool) {
	for _, a := range from {
		m, err := s.openParts(a)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = m.remove(context.Background(), s.disk, []string{name}, sync)
			m.close()
		}
		if err != nil {
			s.log.Error("taking back a delivery failed, the message may come twice",
				"mailbox", a.String(), "file", strings.ToValidUTF8(name, "?"), "error", err)
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
