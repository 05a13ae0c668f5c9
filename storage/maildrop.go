package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// errChanged: a file is not what was announced. The next session measures it
// anew.
var errChanged = errors.New("message changed on disk")

// Maildrop is a locked mailbox with a fixed list of messages, numbered from 0 in
// the order of their delivery. Mail that comes later is not in it. It is for one
// goroutine at a time, and so are the readers it gives out.
type Maildrop struct {
	store *Store
	box   *mailbox
	lock  *os.File // nil after Close
	msgs  []entry
}

// OpenMaildrop locks a mailbox (local@domain) and lists its messages. It does
// not wait for the lock: ErrInUse. A mailbox that does not exist is made.
func (s *Store) OpenMaildrop(ctx context.Context, name string) (_ *Maildrop, err error) {
	a, err := parseAddress(name)
	if err != nil {
		return nil, err
	}
	lock, err := s.lock(a)
	if err != nil {
		return nil, err
	}
	m := &Maildrop{store: s, lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	m.box, err = s.openMailbox(a)
	if errors.Is(err, ErrNoMailbox) {
		m.box, err = s.settleMailbox(a)
	}
	if err != nil {
		return nil, err
	}
	if err := s.finish(m.box); err != nil {
		s.logUndone(a, err)
	}
	if m.msgs, err = s.measureAll(ctx, m.box); err != nil {
		return nil, err
	}
	m.msgs = s.withoutUndone(a, m.msgs)
	if !slices.ContainsFunc(m.msgs, func(e entry) bool { return e.seen }) {
		m.box.letGo() // most sessions never need it: thousands save a descriptor each
	}
	return m, nil
}

// Close releases the lock. It may be called again.
func (m *Maildrop) Close() error {
	if m.lock == nil {
		return nil
	}
	if m.box != nil {
		m.box.close()
	}
	err := m.lock.Close()
	m.lock = nil
	return err
}

// Len is the number of messages, those removed included.
func (m *Maildrop) Len() int { return len(m.msgs) }

// Octets is how many octets Message(i) yields. i is from 0 up to Len.
func (m *Maildrop) Octets(i int) int64 { return m.msgs[i].octets }

// UIDL is the unique-id of message i (RFC 1939, section 7), 1 to 70 characters
// from 0x21 to 0x7E. It is the same in every session.
func (m *Maildrop) UIDL(i int) string { return m.msgs[i].uidl() }

// Message opens message i in its wire form: every line ends with CRLF, the last
// one too. The reader, also an io.WriterTo, yields Octets(i) octets and then
// io.EOF. Should the file have changed, Message or reading fails, at the latest
// instead of io.EOF; what was read is then not the message. ErrGone if the
// file has vanished; one that a reader only moved or renamed is found.
func (m *Maildrop) Message(i int) (io.ReadCloser, error) {
	if m.lock == nil {
		return nil, os.ErrClosed
	}
	f, err := m.open(i)
	if err != nil {
		return nil, err
	}
	r := &messageReader{drop: m, index: i, file: f, in: m.store.bufs.get(), left: m.msgs[i].octets}
	r.lines = lineReader{lineEnds: lineEnds{eol: wireLineEnd}, src: &r.file, in: r.in[:]}
	if err := r.begin(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open finds the file of message i and makes sure that it has the size that it
// had when the maildrop was opened.
func (m *Maildrop) open(i int) (messageFile, error) {
	e := &m.msgs[i]
	for try := 1; e.state != gone; try++ {
		f, err := openMessage(m.box.dir(e.seen), e.name)
		switch {
		case err == nil && f.size != e.size:
			f.close()
			return messageFile{fd: -1}, m.mismatch(i)
		case err == nil:
			return f, nil
		case !errors.Is(err, os.ErrNotExist):
			return messageFile{fd: -1}, err
		case try > scanTries:
			return messageFile{fd: -1}, fmt.Errorf("%s: %w", e.name, ErrGone)
		}
		if err := m.relocate(); err != nil {
			return messageFile{fd: -1}, err
		}
	}
	return messageFile{fd: -1}, fmt.Errorf("%s: %w", e.name, ErrGone)
}

// relocate finds out where readers have moved the messages. All are looked for
// at once, because a reader that opens a mailbox moves all that is new.
func (m *Maildrop) relocate() error {
	err := m.store.reopen(m.box)
	if err != nil {
		return err
	}
	found, err := m.box.list()
	if err != nil {
		return err
	}
	for i := range m.msgs { // both in maildrop order
		e := &m.msgs[i]
		base := e.base()
		for len(found) > 0 && compareBases(found[0].base(), base) < 0 {
			found = found[1:]
		}
		if len(found) > 0 && found[0].base() == base {
			e.name, e.seen = found[0].name, found[0].seen // the id is at the same place
		} else {
			e.state = gone
		}
	}
	return nil
}

// mismatch is the error of message i if it is not what was announced. The next
// session measures it.
func (m *Maildrop) mismatch(i int) error {
	e := &m.msgs[i]
	if m.lock != nil {
		m.store.distrust(m.box.address, e.base())
	}
	return fmt.Errorf("%s: %w", e.name, errChanged)
}

// Remove removes the messages with these numbers for good, and returns how many
// are: their files are gone, also where a reader has moved or copied them in the
// mailbox, and no crash brings them back. A message that vanished before counts
// as removed. On an error the others are there still, or in doubt where the
// directory could not be synced; a crash soon after may remove them all the same,
// as they were asked to go.
func (m *Maildrop) Remove(ctx context.Context, idx []int) (removed int, err error) {
	if m.lock == nil {
		return 0, os.ErrClosed
	}
	if len(idx) == 0 {
		return 0, nil
	}
	files := make([]entry, len(idx))
	for k, i := range idx {
		if i < 0 || i >= len(m.msgs) {
			return 0, fmt.Errorf("no message %d in a maildrop of %d", i, len(m.msgs))
		}
		files[k] = m.msgs[i]
	}
	if err := m.store.reopen(m.box); err != nil {
		return 0, err
	}
	return m.store.remove(ctx, m.box, files)
}

// messageReader reads one file in wire form and insists on the announced size.
type messageReader struct {
	drop  *Maildrop
	index int // of the message
	lines lineReader
	left  int64 // octets still to come
	file  messageFile
	in    *[bufferSize]byte // nil after Close
}

// begin reads what fits into the buffer. If that is all, the file is not needed
// any more.
func (r *messageReader) begin() error {
	r.lines.fill()
	switch r.lines.err {
	case nil:
		return nil
	case io.EOF:
		r.file.close()
		return nil
	default:
		return fmt.Errorf("%s: %w", r.drop.msgs[r.index].name, r.lines.err)
	}
}

func (r *messageReader) Read(p []byte) (int, error) {
	if r.in == nil {
		return 0, os.ErrClosed
	}
	if r.left == 0 {
		return 0, r.atEnd()
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.lines.Read(p)
	r.left -= int64(n)
	if err == io.EOF {
		return n, r.drop.mismatch(r.index)
	}
	return n, err
}

// atEnd is io.EOF if the file ends where the announced octets do.
func (r *messageReader) atEnd() error {
	var more [1]byte
	n, err := r.lines.Read(more[:])
	if n > 0 {
		return r.drop.mismatch(r.index)
	}
	return err
}

// WriteTo writes the message to w in large pieces.
func (r *messageReader) WriteTo(w io.Writer) (written int64, err error) {
	bufs := &r.drop.store.bufs
	buf := bufs.get()
	defer bufs.put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			k, werr := w.Write(buf[:n])
			written += int64(k)
			if werr != nil {
				return written, werr
			}
		}
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// Close may be called again.
func (r *messageReader) Close() error {
	if r.in == nil {
		return nil
	}
	r.drop.store.bufs.put(r.in)
	r.in, r.lines.in = nil, nil
	return r.file.close()
}
