// Package smtpd receives mail by SMTP (RFC 5321) for the domains of a
// Directory and hands each message to a Store. It never sends or relays.
//
// Extensions: SIZE, PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES, SMTPUTF8 and,
// with a certificate, STARTTLS. There is no AUTH: this is the receiving end.
//
// A connection is one goroutine and three layers. The wire owns the octets:
// command lines, TLS, the end of a message, replies, deadlines. Above it
// go-smtp knows the commands and their order. The session on top decides on
// senders, recipients and messages, with the wire's parsed values.
package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("smtpd: server closed")

// Config is what an operator may set. A zero value has its default.
type Config struct {
	Hostname       string      // in greeting and headers; default "localhost"
	TLS            *tls.Config // for STARTTLS; nil: not offered
	MaxMessageSize int64       // octets, dots removed, trace headers not counted; default 50 MiB
	MaxRecipients  int         // of one message, then 452; default 100

	MaxCommands int // between two accepted messages, beside four for each possible recipient; default 1000
	MaxErrors   int // 5xx replies on a connection, except refused recipients, then 421; default 20
	// MaxRefused is how many recipients may be refused on a connection, then it is
	// 421; default 50. From four times as many in some minutes on, an address is turned
	// away before it has said anything.
	MaxRefused int
	// Exempt tells which clients have nothing held against them on their next connection,
	// since others stand behind them; nil: none. This machine has not.
	Exempt func(client netip.Addr) bool
	// Pause is how much later each 5xx reply from the fourth on comes, up to ten times
	// this; 0: it comes at once.
	Pause time.Duration

	// GreetingPause is how long the greeting is held back, to find those who do not
	// wait for it. 0: only who has spoken already is found.
	GreetingPause time.Duration
	// RejectHurried turns away who has sent more before the answer to EHLO or HELO.
	RejectHurried bool
	// RejectOwnName refuses EHLO and HELO with our name to who is not of this machine or
	// of a private network.
	RejectOwnName    bool
	GreetingTimeout  time.Duration // for the first command line to come; default 5 min
	CommandTimeout   time.Duration // for a whole command line to come, or replies to go; default 5 min
	DataTimeout      time.Duration // for the next octets of a message; default 3 min
	MessageTimeout   time.Duration // for a whole message; default 1 h
	HandshakeTimeout time.Duration // for TLS to begin; default 1 min
	MinRate          int64         // octets a second of a message, after its first minute; 0: any

	// LocalDomain gives the first hosted domain, for which the server's own
	// address literal stands ("" if there is none). nil: literals are refused.
	LocalDomain func(ctx context.Context) string

	Observer Observer // nil: nobody

	// Traced tells whether the dialog with a client, or about a user (the name of a
	// mailbox, else ""), is to be in the log line by line, at its debug level. nil: none.
	Traced func(client netip.Addr, user string) bool
}

func (c Config) withDefaults() *Config {
	c.Hostname = orDefault(c.Hostname, "localhost")
	c.MaxMessageSize = orDefault(c.MaxMessageSize, 50<<20)
	c.MaxRecipients = orDefault(c.MaxRecipients, 100)
	c.MaxCommands = orDefault(c.MaxCommands, 1000)
	c.MaxErrors = orDefault(c.MaxErrors, 20)
	c.MaxRefused = orDefault(c.MaxRefused, 50)
	c.GreetingTimeout = orDefault(c.GreetingTimeout, 5*time.Minute)
	c.CommandTimeout = orDefault(c.CommandTimeout, 5*time.Minute)
	c.HandshakeTimeout = orDefault(c.HandshakeTimeout, time.Minute)
	c.DataTimeout = orDefault(c.DataTimeout, 3*time.Minute)
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	c.MessageTimeout = orDefault(c.MessageTimeout, time.Hour)
	return &c
}

func orDefault[T int | int64 | string | time.Duration](value, byDefault T) T {
	var zero T
	if value == zero {
		return byDefault
	}
	return value
}

const (
	// maxBarren is how long a connection may last without a message.
	maxBarren = time.Hour
	// commitPatience is what a delivery under way has to end in at a hard close.
	commitPatience = 2 * time.Second
)

// maxCommands bounds the commands between two accepted messages: enough for
// any envelope and some waiting.
func (c *Config) maxCommands() int { return c.MaxCommands + 4*c.MaxRecipients }

// A Directory decides on recipients. It must be safe for concurrent use.
type Directory interface {
	// Resolve says where mail for a RCPT address goes. local has no quotes;
	// domain is as the client wrote it, or "" for the bare <postmaster>. The
	// refusals are ErrNoSuchUser, ErrRelayDenied, ErrDisabled and ErrBadAddress,
	// which may be wrapped; any other error is a fault of ours, which the client
	// hears as 451 and should try again.
	Resolve(ctx context.Context, local, domain string) (Recipient, error)
}

// A Recipient is an address that mail is taken for.
type Recipient struct {
	Address   string   // canonical, with its detail, before aliases, quoted where needed
	Mailboxes []string // names of the mailboxes it leads to, at least one
}

// A Store makes messages durable. It must be safe for concurrent use.
type Store interface {
	// Fits tells whether a message of size octets, as the client announced it (0: it
	// did not), has room in each of the mailboxes: nil, or ErrOverQuota; any other
	// error is a fault of ours. It keeps no room: who has no message could keep it
	// from others.
	Fits(ctx context.Context, mailboxes []string, size int64) error
	// Deliver reads message to its end, io.EOF, and returns nil only when it
	// is on stable storage in every one of the mailboxes: the client is told
	// 250 and forgets the message. On an error, of message.Read or of its
	// own, nothing may stay visible in any mailbox. size is what it takes on
	// disk, in octets. Line ends are as the client sent them, CR and LF by
	// themselves included. ctx ends when the server closes hard. message must
	// not be used after the return. Errors that are ErrNoSpace, or ErrOverQuota if a
	// mailbox has become full since Fits, have replies of their own; any other is 451.
	Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (size int64, err error)
}

// A Server receives mail on any number of listeners. Its methods may be
// called at any time from any goroutine.
type Server struct {
	directory Directory
	store     Store
	log       *slog.Logger
	library   *smtp.Server
	config    atomic.Pointer[Config]
	refusals  *refusals
	buffers   sync.Pool // *[]byte, for input
	sources   sync.Pool // *bufio.Reader, for the header section of a message

	ctx    context.Context // of all work for connections, ended by Close
	cancel context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	wires     map[*wire]struct{}
	leaving   chan struct{} // closed with closed
	idle      chan struct{} // closed when closed and the last wire is gone
}

// NewServer gives a server that waits for Serve. log may be nil.
func NewServer(c Config, d Directory, s Store, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	server := &Server{directory: d, store: s, log: log, refusals: newRefusals(),
		leaving: make(chan struct{}), idle: make(chan struct{}),
		listeners: make(map[net.Listener]struct{}), wires: make(map[*wire]struct{})}
	server.buffers.New = func() any { return new(make([]byte, inBuffer)) }
	server.sources.New = func() any { return bufio.NewReaderSize(nil, headerWindow) }
	server.ctx, server.cancel = context.WithCancel(context.Background())
	server.Reconfigure(c)
	server.library = newLibrary(server.newSession, log)
	return server
}

// newLibrary sets go-smtp up as the wire wants it: without limits, time-outs
// and TLS of its own, and with lines that the table of replies knows.
func newLibrary(session smtp.BackendFunc, log *slog.Logger) *smtp.Server {
	l := smtp.NewServer(session)
	l.Domain = "x"
	l.MaxLineLength = 0
	l.EnableSMTPUTF8 = true
	l.ErrorLog = libraryLog{log}
	return l
}

// Reconfigure has new connections see c; those that are open keep what they have.
func (s *Server) Reconfigure(c Config) { s.config.Store(c.withDefaults()) }

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	w, ok := c.Conn().(*wire)
	if !ok {
		return nil, fmt.Errorf("smtpd: connection is a %T", c.Conn())
	}
	return &session{wire: w, server: s}, nil
}

// Serve takes connections from l until Shutdown or Close, then returns
// ErrServerClosed; or until l fails, then it returns that error. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()

	err := s.library.Serve(listener{l, s})

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closed {
		return ErrServerClosed
	}
	return err
}

// A listener gives go-smtp wires instead of connections.
type listener struct {
	net.Listener
	server *Server
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := newWire(conn, l.server)
	if !l.server.remember(w) {
		conn.Close()
		return nil, ErrServerClosed
	}
	return w, nil
}

func (s *Server) remember(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wires[w] = struct{}{}
	}
	return !s.closed
}

func (s *Server) forget(w *wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, w)
	s.checkIdle()
}

func (s *Server) checkIdle() {
	if !s.closed || len(s.wires) > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// Shutdown closes the listeners and ends connections with 421 where they wait
// for a command; a message that is being received is finished and answered
// first. When ctx ends before that, it closes what is left as Close does and
// returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.leave((*wire).stop)
	select {
	case <-s.idle:
		s.cancel()
		return err
	case <-ctx.Done():
		err := errors.Join(ctx.Err(), s.Close())
		select { // whoever closes the store next should not do it under a delivery
		case <-s.idle:
		case <-time.After(commitPatience):
		}
		return err
	}
}

// Close closes listeners and connections at once. Messages that are not
// answered yet are not delivered, except for one that just became durable.
func (s *Server) Close() error {
	s.cancel()
	return s.leave(func(w *wire) { w.raw.Close() })
}

// leave takes no more connections and does something with those there are.
func (s *Server) leave(do func(*wire)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		close(s.leaving)
	}
	s.closed = true
	var errs []error
	for l := range s.listeners {
		errs = append(errs, l.Close())
	}
	clear(s.listeners)
	for w := range s.wires {
		do(w)
	}
	s.checkIdle()
	return errors.Join(errs...)
}

// libraryLog passes on what go-smtp has to say, which is about accepting
// connections and about panics.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	l.log.Error("smtp", "error", fmt.Sprintf(format, v...))
}
func (l libraryLog) Println(v ...any) { l.log.Error("smtp", "error", fmt.Sprint(v...)) }
