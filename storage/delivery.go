package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Deliver reads message to its end and makes it durable in every one of
// mailboxes (local@domain) before it returns nil; the package comment argues
// why. Mailboxes that do not exist are made; one that is named twice gets the
// message once. id is the message id, 16 characters a-z and 0-9, never used
// before. Line ends become LF, nothing else is changed. It returns the octets
// that one copy takes on disk.
//
// On an error no mailbox keeps the message; should the disk refuse even to take
// it back, that is logged. An error of message.Read is wrapped. ctx is heeded
// until the message is read; the commit is not interrupted.
func (s *Store) Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (int64, error) {
	if !validID(id) {
		return 0, fmt.Errorf("message id %q is not 16 characters a-z and 0-9", id)
	}
	to, err := distinct(mailboxes)
	if err != nil {
		return 0, err
	}
	d, err := s.newDraft(id)
	if err != nil {
		return 0, fmt.Errorf("making a draft: %w", err)
	}
	defer d.discard()
	if err := d.fill(ctx, message); err != nil {
		return 0, err
	}
	if err := s.commit(d, to); err != nil {
		return 0, fmt.Errorf("delivering %s: %w", id, err)
	}
	return d.size, nil
}

// distinct checks the names of mailboxes and leaves out those named before.
func distinct(names []string) ([]address, error) {
	var to []address
	for _, name := range names {
		a, err := parseAddress(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(to, a) {
			to = append(to, a)
		}
	}
	if len(to) == 0 {
		return nil, errors.New("no mailbox to deliver to")
	}
	return to, nil
}

// draft is a message that no mailbox has yet.
type draft struct {
	store  *Store
	id     string
	began  int64 // Unix seconds
	file   *os.File
	size   int64 // octets on disk
	octets int64 // octets on the wire
}

// newDraft makes an empty draft. Its flock tells sweepers that it has a maker.
func (s *Store) newDraft(id string) (*draft, error) {
	for {
		f, err := s.disk.create(s.drafts, id)
		if err != nil {
			return nil, err
		}
		if err := flockFile(f, unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, s.disk.unlink(s.drafts, id), f.Close())
		}
		st, err := statFile(f)
		if err == nil && st.Nlink > 0 {
			return &draft{store: s, id: id, began: time.Now().Unix(), file: f}, nil
		}
		f.Close()
		if err != nil {
			return nil, errors.Join(err, s.disk.unlink(s.drafts, id))
		}
		// A sweeper came before the lock: again.
	}
}

// fill writes message to the draft with the line ends of the disk.
func (d *draft) fill(ctx context.Context, message io.Reader) error {
	in, out := d.store.bufs.get(), d.store.bufs.get()
	defer d.store.bufs.put(in)
	defer d.store.bufs.put(out)
	r := &lineReader{lineEnds: lineEnds{eol: diskLineEnd}, src: message, in: in[:]}
	for {
		n, err := readFull(ctx, r, out[:])
		if n > 0 {
			if _, err := d.store.disk.write(d.file, out[:n]); err != nil {
				return fmt.Errorf("writing the draft: %w", err)
			}
			d.size += int64(n)
		}
		if err == io.EOF {
			d.octets = d.size + r.lines
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the message: %w", err)
		}
	}
}

// readFull fills buf as far as r and ctx allow, so that a message that comes in
// small pieces is written in large ones.
func readFull(ctx context.Context, r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		if err = ctx.Err(); err == nil {
			var k int
			k, err = r.Read(buf[n:])
			n += k
		}
	}
	return n, err
}

// discard ends the draft. What was linked from it stays.
func (d *draft) discard() {
	err := d.store.disk.unlink(d.store.drafts, d.id)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.store.log.Warn("removing a draft failed", "id", d.id, "error", err)
	}
	d.file.Close()
}

// commit makes a draft durable in mailboxes, all or none (steps 2 to 5 of the
// package comment). Every delivery comes through here and through nothing else.
func (s *Store) commit(d *draft, to []address) (err error) {
	if err := s.disk.sync(d.file); err != nil {
		return err
	}
	name := formatName(d.began, d.id, s.host, d.size, d.octets)
	var boxes []*mailbox
	defer func() {
		for _, m := range boxes {
			if err != nil {
				s.takeBack(m, name)
			}
			m.close()
		}
	}()
	for _, a := range to {
		m, err := s.settleMailbox(a)
		if err != nil {
			return err
		}
		err = s.enter(d, m, name)
		if errors.Is(err, os.ErrExist) { // some other delivery's: not ours to take back
			m.close()
			return err
		}
		boxes = append(boxes, m)
		if err != nil {
			return err
		}
	}
	for _, m := range boxes {
		if err := s.disk.syncDir(m.new); err != nil {
			return err
		}
	}
	return nil
}

// enter gives the mailbox the draft under name: the same inode, or a copy where
// the file system refuses to link.
func (s *Store) enter(d *draft, m *mailbox, name string) error {
	err := s.disk.link(s.drafts, d.id, m.new, name)
	for _, refusal := range []error{unix.EXDEV, unix.EPERM, unix.EMLINK, unix.EOPNOTSUPP} {
		if errors.Is(err, refusal) {
			return s.enterCopy(d, m, name)
		}
	}
	return err
}

func (s *Store) enterCopy(d *draft, m *mailbox, name string) (err error) {
	if err := s.makeMailbox(m.address); err != nil { // Maildirs of others may lack tmp/
		return err
	}
	tmp, err := s.openTmp(m.address)
	if err != nil {
		return err
	}
	defer tmp.Close()
	f, err := s.disk.create(tmp, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = s.copyDraft(d, f); err == nil {
		err = s.disk.rename(tmp, name, m.new, name)
	}
	if err != nil {
		return errors.Join(err, s.disk.unlink(tmp, name))
	}
	return nil
}

// copyDraft writes the octets of the draft to f and syncs them.
func (s *Store) copyDraft(d *draft, f *os.File) error {
	src, err := openAt(s.drafts, d.id, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
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
			return s.disk.sync(f)
		}
		if err != nil {
			return err
		}
	}
}

// openTmp opens tmp/ of a mailbox.
func (s *Store) openTmp(a address) (*os.File, error) {
	dir, err := s.openDir(a.domain, a.local)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openAt(dir, "tmp", unix.O_DIRECTORY)
}

// takeBack removes a delivered file from a mailbox, also when a reader has moved
// it to cur/ or set flags. It is part of a failure already, so its own failure
// only goes to the log: the message may then come twice.
func (s *Store) takeBack(m *mailbox, name string) {
	err := s.disk.unlink(m.new, name)
	if err == nil {
		err = s.disk.syncDir(m.new)
	} else if errors.Is(err, os.ErrNotExist) {
		_, err = m.remove(context.Background(), s.disk, []string{name})
	}
	if err != nil {
		s.log.Error("taking back a delivery failed, the message may come twice",
			"mailbox", m.String(), "file", strings.ToValidUTF8(name, "?"), "error", err)
	}
}
