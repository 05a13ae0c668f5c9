package smtpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLine   = 4096     // of a command with its CRLF (RFC 5321 section 4.5.3.1.4: 512 and extensions)
	maxSkip   = 1 << 20  // of a line that is too long, before we hang up
	waiting   = 1 << 10  // of input while a command is awaited: most pipelined groups fit
	inBuffer  = 32 << 10 // of input that comes in plenty; a TLS record is 16 KiB
	outBuffer = 16 << 10 // of replies to a pipelined group, before they are sent anyway

	lingerTime   = time.Second
	lingerOctets = 1 << 20
)

// A wire is one SMTP connection, and the net.Conn that go-smtp is given
// instead of the real one. go-smtp asks for input only when it has dealt with
// all it had, so Read hands it one clean command line at a time and Write
// takes the replies to exactly that line; everything happens on the
// connection's one goroutine. The wire
//
//   - ends a command at CRLF only, bounds its length, and refuses lines with
//     CR, LF or NUL inside (never splitting them);
//   - answers by itself what go-smtp does not know or gets wrong, STARTTLS
//     among it, and passes on the rest with addresses and names of clients
//     replaced by a placeholder: the session takes the real ones from here,
//     parsed, and no reply can echo them;
//   - reads the message after 354 itself and lets go-smtp see an empty one;
//   - translates replies, counts refusals, sends the replies to a pipelined
//     group in one write when the next input would block;
//   - sets the deadlines of each phase, and ends with 421 on any of them, on
//     too many errors, and when the server stops.
//
// All state it has: whether TLS is active, the greeting, the last path, and
// whether a message is being read.
type wire struct {
	net.Conn // what is read and written: TCP, later the TLS above it
	raw      net.Conn
	remote   netip.Addr // of the client; invalid: not known
	server   *Server
	config   *Config
	log      *slog.Logger
	began    time.Time
	fruitful time.Time // when a message was accepted last, at first began

	in    buffer
	line  string    // rest of the command line that go-smtp is reading
	out   []byte    // replies not sent yet
	until time.Time // end of the phase

	verb  string
	helo  string // "" until a greeting; forgotten at STARTTLS
	esmtp bool
	path  address // of the last MAIL or RCPT
	tls   *tls.ConnectionState
	data  bool // 354 was said and go-smtp waits for the end of its empty message

	errors, refused, commands, messages int
	counted                             bool    // its refused recipients are, see refusals
	against                             float64 // refusals of its address that are not forgotten
	adrift                              bool    // the place in the input is lost: the next reply is the last
	stray                               bool    // RCPT and DATA belong to a MAIL that was refused
	closing                             bool    // nothing is read or answered any more
	cut                                 bool    // we end the connection, and the client may not expect it
	closed, traced                      bool

	messageBegan time.Time
	received     int64 // octets since then

	id    string // in the log
	shown atomic.Pointer[Session]

	mu        sync.Mutex
	stopping  bool // the server wants this connection to end
	receiving bool // inside a message, which may be finished
}

func newWire(conn net.Conn, s *Server) *wire {
	w := &wire{Conn: conn, raw: conn, server: s, config: s.config.Load(), began: time.Now()}
	w.fruitful = w.began
	w.in = newBuffer(w.receive, waiting, &s.buffers)
	w.log = s.log
	w.config.Observer.Opened()
	return w
}

// Read gives go-smtp the next command, or the end of the message that the
// session has read already. Every way to end is io.EOF: what is to be said
// about it has been said.
func (w *wire) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			w.log.Error("panic", "value", v, "stack", string(debug.Stack()))
			w.answer(replyBroken)
			n, err = 0, io.EOF
		}
	}()
	if w.data {
		w.data = false
		w.line = string(endDot)
	}
	for len(w.line) == 0 {
		if w.closing {
			return 0, io.EOF
		}
		w.next()
	}
	n = copy(p, w.line)
	w.line = w.line[n:]
	return n, nil
}

// next deals with one command line: it is answered, or w.line is set.
func (w *wire) next() {
	w.verb = ""
	w.in.shrink()
	patience := w.config.CommandTimeout
	if w.commands == 0 && w.errors == 0 && w.messages == 0 {
		patience = w.config.GreetingTimeout
	}
	w.until = time.Now().Add(patience)
	if end := w.fruitful.Add(maxBarren); end.Before(w.until) {
		w.until = end
	}
	line, fault, err := w.readLine()
	if fault.code != 0 {
		w.answer(fault) // at once: who sends bare LF may wait for it
		err = w.skipLine()
	}
	switch {
	case err != nil:
		w.end(err)
	case fault.code == 0:
		w.traceLine(string(line))
		w.command(string(line))
	}
}

// readLine gives the next line without its CRLF, or what is wrong with it
// before all of it has been read.
func (w *wire) readLine() (line []byte, fault reply, err error) {
	for {
		in := w.in.bytes()
		n := bytes.Index(in, crlf)
		switch {
		case n > maxLine-len(crlf), n < 0 && len(in) >= maxLine:
			return nil, replyLineTooLong, nil
		case n >= 0 && bytes.ContainsAny(in[:n], "\r\n\x00"), n < 0 && bytes.IndexByte(in, '\n') >= 0:
			return nil, replyBareLineEnd, nil
		case n >= 0:
			w.in.skip(n + len(crlf))
			return in[:n], fault, nil
		}
		if err := w.in.more(); err != nil {
			return nil, fault, err
		}
	}
}

// skipLine passes over the rest of a faulty line.
func (w *wire) skipLine() error {
	for skipped := 0; skipped < maxSkip; {
		in := w.in.bytes()
		if n := bytes.Index(in, crlf); n >= 0 {
			w.in.skip(n + len(crlf))
			return nil
		}
		n := len(bytes.TrimSuffix(in, crlf[:1]))
		w.in.skip(n)
		skipped += n
		if err := w.in.more(); err != nil {
			return err
		}
	}
	return replyTooMuch
}

// end is what becomes of a connection that can't be read any more.
func (w *wire) end(err error) {
	var last reply
	if errors.As(err, &last) {
		w.answer(last)
	}
	w.closing = true
}

// Write takes what go-smtp answers, which comes by whole lines.
func (w *wire) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		w.translate(bytes.TrimRight(line, "\r\n"))
	}
	return len(p), nil
}

// translate sends what a line of go-smtp stands for. Lines that are in no
// table are the session's own and go out as they are.
func (w *wire) translate(line []byte) {
	if line[3] == '-' {
		return // of the reply to EHLO, which its last line stands for
	}
	switch string(line) {
	case "220 x ESMTP Service Ready":
		w.greet()
		return
	case "250 2.0.0 Hello x":
		w.put(250, "250 "+w.config.Hostname)
		return
	case "250 SIZE":
		w.put(250, ehlo(w.config.Hostname, w.config.MaxMessageSize, w.config.TLS != nil && w.tls == nil))
		return
	}
	if r, ok := library[string(line)]; ok {
		w.data = r.code == 354
		w.answer(r)
		return
	}
	code, _ := strconv.Atoi(string(line[:3]))
	w.put(code, string(line))
}

func (w *wire) greet() {
	remote := "unknown"
	if w.remote = addrOf(w.raw.RemoteAddr()); w.remote.IsValid() {
		remote = w.remote.String()
	}
	w.id = newSessionID()
	w.log = w.log.With("session", w.id, "remote", remote)
	w.show()
	w.log.Info("connection opened")
	w.traced = w.config.Traced != nil && w.config.Traced(w.remote, "")
	switch {
	case w.recall():
		w.hangUp(replyTooManyRefused)
		return
	case w.spoken():
		w.hangUp(replyEarly)
		return
	}
	w.put(220, "220 "+w.config.Hostname+" ESMTP ready")
}

func (w *wire) answer(r reply) { w.put(r.code, r.line()) }

// put queues a reply. A client that has made too many errors gets 421
// instead; after a 421 the connection ends (RFC 5321 section 3.8).
func (w *wire) put(code int, line string) {
	if w.closing {
		return
	}
	if code/100 == 5 {
		if last := w.count(code); last.code != 0 {
			w.log.Info("too many errors", "errors", w.errors, "refused", w.refused)
			code, line = last.code, last.line()
		}
		w.tire(max(w.errors, w.refused, int(w.against)))
	}
	w.trace("server", line)
	w.out = append(append(w.out, line...), crlf...)
	w.cut = code == 421 || w.adrift
	w.closing = w.cut || code == 221
	if len(w.out) > outBuffer {
		w.flush()
	}
}

// flush sends the replies that are queued.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	w.raw.SetWriteDeadline(time.Now().Add(w.config.CommandTimeout))
	_, err := w.Conn.Write(w.out)
	w.out = w.out[:0]
	if err != nil {
		w.closing = true
	}
	return err
}

// Close sends what is queued and ends the connection. go-smtp calls it, at
// QUIT and once more when it lets go of the connection.
func (w *wire) Close() error {
	if w.closed {
		return net.ErrClosed
	}
	w.closed, w.closing = true, true
	w.flush()
	if w.cut {
		w.linger()
	}
	err := w.Conn.Close()
	w.in.drop()
	w.in.shrink()
	w.config.Observer.Closed()
	w.log.LogAttrs(w.server.ctx, slog.LevelInfo, "connection closed", slog.Int("messages", w.messages),
		slog.Int("errors", w.errors), slog.Int("refused", w.refused),
		slog.String("tls", w.tlsVersion()), slog.Duration("duration", time.Since(w.began)))
	w.server.forget(w)
	return err
}

// linger lets the last reply arrive: to close while there is input that nobody
// has read resets the connection, and the reset may overtake the reply.
func (w *wire) linger() {
	if secure, ok := w.Conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	half, ok := w.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || w.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, w.raw, lingerOctets) // until the client closes too
}

// tlsVersion is for the log; "none" in the clear.
func (w *wire) tlsVersion() string {
	if w.tls == nil {
		return "none"
	}
	return tls.VersionName(w.tls.Version)
}

// receive reads from the network: replies go out first, and not beyond the
// deadline of the phase.
func (w *wire) receive(p []byte) (int, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.arm(); err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	w.received += int64(n)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if err := w.arm(); errors.Is(err, replyStopping) {
			return 0, err // it was stop that ended the wait
		}
		return 0, replyTimeout
	}
	return n, err
}

// arm sets the deadline of the next read. A message may take until w.until
// as long as something arrives every DataTimeout.
func (w *wire) arm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := w.until
	if w.receiving {
		for _, t := range []time.Time{time.Now().Add(w.config.DataTimeout), w.slowest()} {
			if t.Before(until) {
				until = t
			}
		}
	} else if w.stopping {
		return replyStopping
	}
	return w.raw.SetReadDeadline(until)
}

// stop ends the connection at the next point where it waits for a command.
// It is called from outside.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	if !w.receiving {
		w.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// setReceiving begins or ends the phase in which a message is read.
func (w *wire) setReceiving(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.receiving = on
}

// message begins reading the message that follows 354.
func (w *wire) message() *message {
	w.messageBegan, w.received = time.Now(), 0
	w.until = w.messageBegan.Add(w.config.MessageTimeout)
	w.setReceiving(true)
	w.in.grow()
	return newMessage(&w.in, w.config.MaxMessageSize)
}
