package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
)

const (
	commandLimit  = 255        // octets of a command with its line end (RFC 2449 section 4)
	responseLimit = 12<<10 + 2 // of a response in AUTH, likewise
	floodLimit    = 64 << 10   // of a line before the connection is given up
	readBuffer    = 1 << 10    // kept while idle
	writeBuffer   = 32 << 10   // borrowed while there is output
	writePatience = 2 * time.Minute
	slowestRate   = 100         // octets a second that a client must take in the long run; a modem does ten times that
	lingerTime    = time.Second // for a client that was hung up on
	lingerOctets  = 1 << 20
)

var (
	errShutdown = errors.New("pop3d: the server is shutting down")
	errLineLong = errors.New("pop3d: line too long")
	errFlood    = errors.New("pop3d: line without end")
	errTLS      = errors.New("pop3d: TLS handshake failed")
	errCutShort = errors.New("pop3d: message not sent whole")
)

// patientConn lets a write go on for as long as the client takes some of it,
// and fails when nothing is taken for the time of its patience, or too little in all:
// a lock is held meanwhile. It sits below TLS, whose state would not survive a write
// that timed out.
type patientConn struct {
	net.Conn
	patience time.Duration
	failed   error // the first failed write
}

func (c *patientConn) Write(p []byte) (int, error) {
	written := 0
	last := time.Now().Add(c.patience + time.Duration(len(p))*time.Second/slowestRate)
	for {
		until := time.Now().Add(c.patience)
		if last.Before(until) {
			until = last
		}
		err := c.SetWriteDeadline(until)
		n := 0
		if err == nil {
			n, err = c.Conn.Write(p[written:])
			written += n
		}
		if err == nil {
			return written, nil
		}
		if n == 0 || until.Equal(last) || !errors.Is(err, os.ErrDeadlineExceeded) {
			c.failed = err
			return written, err
		}
	}
}

// conn is the loop around a session: it reads lines, writes replies, keeps the
// deadlines, and logs. All but wake and cut belongs to the goroutine of serve.
type conn struct {
	server  *Server
	config  *Config
	session *session
	log     *slog.Logger
	started time.Time

	raw        *patientConn
	stream     net.Conn      // raw, or TLS over it
	in         *bufio.Reader // reads from the conn itself
	out        *bufio.Writer // nil while nothing waits to be sent
	armed      bool          // the read deadline of the current line is set
	tlsVersion string        // "none" in the clear
	traced     bool          // the dialog is logged
	id         string        // in the log

	shown  atomic.Pointer[Session] // nil until it is open
	kicked atomic.Bool             // the owner has ended it
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server:     s,
		config:     s.config.Load(),
		started:    time.Now(),
		raw:        &patientConn{Conn: nc, patience: s.patience},
		tlsVersion: "none",
	}
	c.stream = c.raw
	c.in = bufio.NewReaderSize(c, readBuffer)
	return c
}

// open does what needs the address of the client. Some connections learn it
// only from the first octets, so this is not for the loop that accepts.
func (c *conn) open(implicitTLS bool) {
	allowed := c.config.AllowPlaintext
	remote := remoteAddr(c.raw)
	c.session = newSession(c.config, &c.server.backend, allowed != nil && allowed(remote))
	c.session.remote, c.session.loginBy = remote, c.started.Add(c.config.LoginTimeout)
	c.id = strings.ToLower(rand.Text()[:8])
	c.log = c.server.log.With("session", c.id, "remote", remote.String())
	c.show()
	c.log.Info("connection opened", "implicit_tls", implicitTLS)
	c.config.Observer.Opened()
	c.traced = c.config.Traced != nil && c.config.Traced(remote, "")
}

func remoteAddr(nc net.Conn) netip.Addr {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// serve runs the connection to its end.
func (c *conn) serve(implicitTLS bool) {
	c.open(implicitTLS)
	defer c.finish()
	err := c.converse(implicitTLS)
	if err != nil {
		// The lock goes first, then the client may be told.
		why := reason(err)
		if c.kicked.Load() {
			why = "ended by the owner of the server"
		}
		c.session.end(why)
	}
	if errors.Is(err, errShutdown) && !errors.Is(err, errTLS) {
		err = c.answer(reply{status: negative, code: codeSysTemp, text: "server is shutting down"})
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return
	}
	// What the client has is complete: end TLS in order, too.
	if secure, ok := c.stream.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	if c.session.hungUp {
		c.linger()
	}
}

// linger lets the last reply arrive: to close while there is input that nobody
// has read resets the connection, and the reset may overtake the reply.
func (c *conn) linger() {
	half, ok := c.raw.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.raw, lingerOctets) // until the client closes too
}

// reason names the error that ended a session, for the log. A client that was
// idle for too long gets no response (RFC 1939 section 3).
func reason(err error) string {
	switch {
	case errors.Is(err, errTLS):
		return "TLS handshake failed"
	case errors.Is(err, errShutdown):
		return "shutdown"
	case errors.Is(err, errCutShort):
		return "message not sent whole"
	case errors.Is(err, errFlood):
		return "line too long"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "time-out"
	}
	return "connection lost"
}

// converse greets, then answers lines until the session is closed or an error
// ends it.
func (c *conn) converse(implicitTLS bool) error {
	if implicitTLS {
		if err := c.startTLS(); err != nil {
			return err
		}
	}
	if err := c.answer(c.session.greeting()); err != nil {
		return err
	}
	for c.session.state != closed {
		line, err := c.readLine(c.session.lineLimit())
		var r reply
		switch {
		case errors.Is(err, errLineLong):
			r = c.session.overlong()
		case err != nil:
			return err
		default:
			c.traceLine(line)
			before := c.session.drop
			r = c.session.handle(c.server.base, line)
			if before == nil && c.session.drop != nil {
				c.show()
			}
			c.follow()
		}
		if c.session.state == update {
			if err := c.flush(); err != nil {
				return err
			}
			r = c.session.update(c.server.base)
		}
		if r.fault {
			if err := c.tire(); err != nil {
				return err
			}
		}
		if err := c.answer(r); err != nil {
			return err
		}
		if c.session.state == negotiation {
			if err := c.startTLS(); err != nil {
				return err
			}
		}
	}
	return nil
}

// answer writes a reply to the buffer and logs what it reports.
func (c *conn) answer(r reply) error {
	if c.out == nil {
		c.out = c.server.writers.Get().(*bufio.Writer)
		c.out.Reset(c.stream)
	}
	err := r.write(c.out)
	c.traceReply(r)
	if r.event != nil {
		c.log.LogAttrs(context.Background(), r.event.level, r.event.text,
			append(r.event.attrs, slog.String("tls", c.tlsVersion))...)
	}
	if err != nil && c.raw.failed == nil {
		c.log.Error("message not sent whole, connection cut", "error", err)
		return errCutShort
	}
	return err
}

const (
	freeErrors = 3  // before answers are held back
	maxPauses  = 10 // times Config.Pause
)

// tire holds the answer to an error back, the longer the more there were. What was
// answered before is sent first.
func (c *conn) tire() error {
	pause := c.config.Pause * time.Duration(min(c.session.errors-freeErrors, maxPauses))
	if pause <= 0 {
		return nil
	}
	err := c.flush()
	c.server.pause(pause)
	return err
}

// flush sends what waits and gives the buffer back.
func (c *conn) flush() error {
	if c.out == nil {
		return nil
	}
	err := c.out.Flush()
	c.out.Reset(nil)
	c.server.writers.Put(c.out)
	c.out = nil
	return err
}

// Read feeds c.in. It is called when no complete line is buffered, which is the
// moment to send the replies that wait.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	if !c.armed {
		if err := c.arm(); err != nil {
			return 0, err
		}
	}
	n, err := c.stream.Read(p)
	if err != nil && c.server.draining.Load() {
		err = errShutdown
	}
	return n, err
}

// arm sets the read deadline for a line or a handshake. A shutdown sets its
// mark before it wakes us, so that either the mark is seen here or the deadline
// of wake comes after ours.
func (c *conn) arm() error {
	deadline := c.session.loginBy
	if c.session.drop != nil {
		deadline = time.Now().Add(c.config.IdleTimeout)
	}
	if err := c.raw.SetReadDeadline(deadline); err != nil {
		return err
	}
	if c.server.draining.Load() {
		return errShutdown
	}
	c.armed = true
	return nil
}

// readLine returns the next line without its line end, CRLF or LF; it is valid
// until the next call. A longer line is skipped: errLineLong. The end of the
// connection inside a line is an error: what came of it is no line.
func (c *conn) readLine(limit int) ([]byte, error) {
	c.armed = false
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = c.readLong(line, limit)
	}
	if err != nil {
		return nil, err
	}
	if len(line) > limit {
		return nil, errLineLong
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// readLong collects a line that begins with start and is longer than the read
// buffer. Of a line over the limit it keeps only enough to tell.
func (c *conn) readLong(start []byte, limit int) ([]byte, error) {
	line := bytes.Clone(start)
	for octets := len(start); octets < floodLimit; {
		part, err := c.in.ReadSlice('\n')
		octets += len(part)
		if len(line) <= limit {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
	return nil, errFlood
}

// startTLS negotiates TLS. Whatever the client sent ahead of it in the clear is
// dropped, so that nothing slipped in by somebody else is answered inside TLS.
// After an error nothing more can be said.
func (c *conn) startTLS() error {
	if err := c.flush(); err != nil {
		return err
	}
	c.in.Reset(c)
	config := c.config.TLS
	if config == nil { // taken away while an implicit TLS listener goes on
		config = &tls.Config{}
	}
	secure := tls.Server(c.raw, config)
	err := c.arm()
	if err == nil {
		ctx, cancel := context.WithTimeout(c.server.base, c.config.HandshakeTimeout)
		err = secure.HandshakeContext(ctx)
		cancel()
	}
	if err != nil {
		c.log.Info("TLS handshake failed", "error", err)
		return fmt.Errorf("%w: %w", errTLS, err)
	}
	c.stream = secure
	c.tlsVersion = tls.VersionName(secure.ConnectionState().Version)
	c.session.secured()
	c.show()
	return nil
}

// wake ends the wait for a line. It may be called from any goroutine.
func (c *conn) wake() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

// cut ends the connection at once. It may be called from any goroutine.
func (c *conn) cut() { _ = c.raw.Close() }

// finish releases what the connection holds and logs the summary. A panic in
// a session ends that session only.
func (c *conn) finish() {
	if v := recover(); v != nil {
		c.log.Error("session panicked", "panic", v, "stack", string(debug.Stack()))
		c.session.end("internal error")
	}
	c.cut()
	if c.out != nil {
		// Unsent output of a lost connection.
		c.out.Reset(io.Discard)
		c.server.writers.Put(c.out)
	}
	s := c.session.stats
	c.config.Observer.Closed(s.retrieved.messages, s.retrieved.octets, s.removed)
	c.log.Info("connection closed", "reason", s.end, "tls", c.tlsVersion, "mailbox", c.session.login.Mailbox,
		"retrieved", s.retrieved.messages, "octets", s.retrieved.octets, "deleted", s.removed, "left", s.left,
		"errors", c.session.errors, "duration", time.Since(c.started).Round(time.Millisecond))
}
