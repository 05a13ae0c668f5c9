package smtpd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

var (
	crlf    = []byte("\r\n")
	crlfDot = []byte("\r\n.")
	endDot  = []byte(".\r\n")
)

// A buffer holds the octets that were read ahead of what is being parsed;
// read is asked for more only when a caller needs it. It waits with a small
// array of its own, so that many connections can, and borrows a large one
// while much comes in.
type buffer struct {
	read  func(p []byte) (int, error)
	pool  *sync.Pool // of large arrays, *[]byte
	small []byte
	large *[]byte // borrowed, or nil
	buf   []byte  // small or large
	r, w  int
}

func newBuffer(read func(p []byte) (int, error), small int, pool *sync.Pool) buffer {
	b := buffer{read: read, pool: pool, small: make([]byte, small)}
	b.buf = b.small
	return b
}

// grow has the next reads be large ones.
func (b *buffer) grow() {
	if b.large != nil {
		return
	}
	b.large = b.pool.Get().(*[]byte)
	b.w = copy(*b.large, b.bytes())
	b.r, b.buf = 0, *b.large
}

// shrink gives the large array back if nothing is in it.
func (b *buffer) shrink() {
	if b.large == nil || b.r < b.w {
		return
	}
	b.pool.Put(b.large)
	b.large, b.buf = nil, b.small
	b.drop()
}

// bytes are the octets at hand, valid until more, grow or shrink is called.
func (b *buffer) bytes() []byte { return b.buf[b.r:b.w] }

func (b *buffer) skip(n int) { b.r += n }

// drop forgets everything that was read ahead.
func (b *buffer) drop() { b.r, b.w = 0, 0 }

// more adds at least one octet to those at hand, or says why it can't.
func (b *buffer) more() error {
	if b.w == len(b.buf) {
		b.grow() // there is likely to be more than the small array takes
	}
	if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	if b.w == len(b.buf) {
		return io.ErrShortBuffer
	}
	n, err := b.read(b.buf[b.w:])
	b.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// discard throws away the next n octets of the stream.
func (b *buffer) discard(n int64) error {
	for n > 0 {
		if b.r == b.w {
			if err := b.more(); err != nil {
				return err
			}
		}
		k := min(n, int64(b.w-b.r))
		b.skip(int(k))
		n -= k
	}
	return nil
}

// A message reads one message after DATA: the octets up to CRLF "." CRLF and
// no other sequence, with the dot removed from lines that begin with one
// (RFC 5321 section 4.5.2). A line begins after CRLF and nowhere else, so CR
// and LF by themselves are content, here and in what the sender's server
// thought it sent: the two can't disagree about where the message ends.
//
// Read returns io.EOF after the end, io.ErrUnexpectedEOF if the connection
// ends first, replyTooLarge at the first octet over the limit.
type message struct {
	in    *buffer
	limit int64 // octets after dot removal
	size  int64
	start bool // the next octet begins a line
	cr    bool // the octet before was CR
	err   error
}

// swallowFactor bounds what is read, and thrown away, of a message that is
// too large: so many times the limit in all.
const swallowFactor = 3

func newMessage(in *buffer, limit int64) *message {
	return &message{in: in, limit: limit, start: true}
}

func (m *message) Read(p []byte) (n int, err error) {
	for n < len(p) && m.err == nil {
		if need := m.beginLine(); need || len(m.in.bytes()) == 0 {
			if n > 0 {
				return n, nil // what is there now goes on before we wait
			}
			if m.err == nil {
				m.err = unexpected(m.in.more())
			}
			continue
		}
		n += m.content(p[n:])
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, m.err
}

// beginLine deals with a dot at the beginning of a line. It reports whether
// more octets are needed to tell a dot from the end, or there are no more.
func (m *message) beginLine() (stop bool) {
	if !m.start {
		return false
	}
	next := m.in.bytes()
	if len(next) < len(endDot) && bytes.HasPrefix(endDot, next) {
		return true
	}
	if bytes.HasPrefix(next, endDot) {
		m.in.skip(len(endDot))
		m.err = io.EOF
		return true
	}
	if next[0] == '.' {
		m.in.skip(1)
	}
	m.start, m.cr = false, false
	return false
}

// content copies octets up to the next line that begins with a dot.
func (m *message) content(p []byte) int {
	piece := m.in.bytes()
	piece = piece[:min(len(piece), len(p))]
	if m.cr && piece[0] == '\n' {
		piece = piece[:1]
		m.start = true
	} else {
		piece = piece[:beforeDot(piece)]
		m.start = bytes.HasSuffix(piece, crlf)
	}
	n := copy(p, piece)
	m.cr = piece[n-1] == '\r'
	m.in.skip(n)
	if m.size += int64(n); m.size > m.limit {
		m.err = replyTooLarge
	}
	return n
}

// beforeDot is the length of p up to the first line in it that begins with a
// dot, or all of it. Encoded content has no dots at all: to look for one first
// spares it a look at every line end.
func beforeDot(p []byte) int {
	dot := bytes.IndexByte(p, '.')
	if dot < 0 {
		return len(p)
	}
	from := max(dot-len(crlf), 0)
	if i := bytes.Index(p[from:], crlfDot); i >= 0 {
		return from + i + len(crlf)
	}
	return len(p)
}

// drain reads to the end of the message whatever became of it, so that the
// next octet is a command. It gives up, with replyTooLarge, on a message that
// is many times too large. After any error it is not known where a command begins.
func (m *message) drain() error {
	m.limit *= swallowFactor
	if errors.Is(m.err, replyTooLarge) && m.size <= m.limit {
		m.err = nil
	}
	_, err := io.Copy(io.Discard, m)
	return err
}

// unexpected is the error of a message that ends before its end: the reply of
// a time-out as it is, anything else as io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if err == nil {
		return nil
	}
	var known reply
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err)
}
