package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
// it back, that is logged. An error of message.Read is wrapped; ErrNoSpace says
// that the disk is full. ctx is heeded until the message is read; the commit is
// not interrupted.
func (s *Store) Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (int64, error) {
	if !validID(id) {
		return 0, fmt.Errorf("message id %q is not 16 characters a-z and 0-9", id)
	}
	to, err := distinct(mailboxes)
	if err != nil {
		return 0, err
	}
	d := &draft{store: s, id: id, began: time.Now().Unix()}
	defer d.discard()
	if err := d.fill(ctx, message); err != nil {
		return 0, full(err)
	}
	if err := s.commit(d, to); err != nil {
		return 0, fmt.Errorf("delivering %s: %w", id, full(err))
	}
	s.usages.add(to, d.size)
	return d.size, nil
}

// full makes err an ErrNoSpace if that is what it is about.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// distinct checks the names of mailboxes and leaves out those named before.
func distinct(names []string) ([]address, error) {
	to := make([]address, 0, len(names))
	seen := make(map[address]bool, len(names))
	for _, name := range names {
		a, err := parseAddress(name)
		if err != nil {
			return nil, err
		}
		if !seen[a] {
			seen[a] = true
			to = append(to, a)
		}
	}
	if len(to) == 0 {
		return nil, errors.New("no mailbox to deliver to")
	}
	return to, nil
}

// draft is a message that no mailbox has yet. It is in memory as long as it is
// small, then in a file mail/.tmp/<id>.
type draft struct {
	store  *Store
	id     string
	began  int64             // Unix seconds
	memory *[bufferSize]byte // nil before fill
	data   []byte            // the whole message, when there is no file
	file   *os.File
	size   int64  // octets on disk
	octets int64  // octets on the wire
	sum    uint32 // draftSum of what is in the file
	named  bool   // mail/.tmp/<id> is there
}

// fill reads message, with the line ends of the disk.
func (d *draft) fill(ctx context.Context, message io.Reader) error {
	in := d.store.bufs.get()
	defer d.store.bufs.put(in)
	d.memory = d.store.bufs.get()
	r := &lineReader{lineEnds: lineEnds{eol: diskLineEnd}, src: message, in: in[:]}
	for {
		n, err := readFull(ctx, r, d.memory[:])
		if err != nil && err != io.EOF {
			return fmt.Errorf("reading the message: %w", err)
		}
		d.data = d.memory[:n]
		d.size += int64(n)
		if err == io.EOF && d.file == nil {
			d.octets = d.size + r.lines
			return nil
		}
		if err := d.spill(); err != nil {
			return fmt.Errorf("writing the draft: %w", err)
		}
		if err == io.EOF {
			d.octets = d.size + r.lines
			return nil
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

// spill writes what is in memory to the file, and makes it if there is none.
func (d *draft) spill() error {
	if d.file == nil {
		if err := d.create(); err != nil {
			return err
		}
	}
	if len(d.data) == 0 {
		return nil
	}
	_, err := d.store.disk.write(d.file, d.data)
	d.sum = draftSum(d.sum, d.data)
	d.data = nil
	return err
}

// create makes the file of the draft. Its flock tells the sweeper of a server
// that starts now that it has a maker.
func (d *draft) create() error {
	s := d.store
	for {
		f, err := s.disk.create(s.drafts, d.id)
		if err != nil {
			return err
		}
		d.named = true
		if err := flockFile(f, unix.LOCK_EX); err != nil {
			return errors.Join(err, f.Close())
		}
		st, err := statFile(f)
		if err != nil || st.Nlink > 0 {
			d.file = f
			return err
		}
		f.Close() // the sweeper came before the lock: again
	}
}

// write makes the file of a small draft, from memory, in one go. Nobody sweeps
// drafts at that time: only the process that has the journal calls it.
func (d *draft) write() error {
	f, err := d.store.disk.create(d.store.drafts, d.id)
	if err != nil {
		return err
	}
	d.named = true
	_, err = d.store.disk.write(f, d.data)
	return errors.Join(err, f.Close())
}

// settle makes the file of a draft durable, its name too.
func (d *draft) settle() error {
	if err := d.store.disk.sync(d.file); err != nil {
		return err
	}
	return d.store.disk.syncDir(d.store.drafts)
}

// discard ends the draft. What was linked from it stays.
func (d *draft) discard() {
	if d.named {
		d.store.unlinkDraft(d.id)
	}
	if d.file != nil {
		d.file.Close()
	}
	if d.memory != nil {
		d.store.bufs.put(d.memory)
	}
}

func (s *Store) unlinkDraft(name string) {
	err := s.disk.unlink(s.drafts, name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("removing a draft failed", "id", name, "error", err)
	}
}
