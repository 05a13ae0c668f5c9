// Package pop3d is a POP3 server over maildrops it does not know: RFC 1939 with
// CAPA and response codes (RFC 2449, RFC 3206), STLS and implicit TLS (RFC
// 2595, RFC 8314), and SASL (RFC 5034).
//
// The protocol is a state machine without a network: [session] takes lines and
// returns replies, and a state is a table of the commands legal in it. The loop
// of [conn] alone reads, writes, logs and keeps time. Users, maildrops and SASL
// mechanisms come from outside through [Authenticator], [Mailstore] and [SASL].
//
// A message is removed only by UPDATE, which runs only after a complete QUIT of
// a logged-in client. A time-out, a lost connection and a shutdown remove
// nothing.
package pop3d

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is what Serve and ServeTLS return after Shutdown or Close.
var ErrServerClosed = errors.New("pop3d: server closed")

// updatePatience is what removals that have begun have to end in at a hard close.
const updatePatience = 2 * time.Second

// Config of a server. The zero value of a field means its default.
type Config struct {
	Hostname string      // shown in the greeting
	TLS      *tls.Config // for STLS and ServeTLS; nil: neither is possible
	// AllowPlaintext tells which clients may log in without TLS; nil: none.
	// It is asked once a connection; the address is unmapped, and the zero
	// Addr when the connection is not TCP.
	AllowPlaintext func(remote netip.Addr) bool
	// IdleTimeout is how long a logged-in client may take for a command. RFC
	// 1939 section 3 asks for 10 minutes at least, which is the default.
	IdleTimeout time.Duration
	// LoginTimeout is the whole time before a login, TLS included, but not the opening
	// of the maildrop; default 2 minutes.
	LoginTimeout time.Duration
	// LoginDelay is how far apart the logins of a mailbox are to be in the long run
	// (RFC 2449 section 6.5); 0: as they like. A few may come together.
	LoginDelay time.Duration
	// HandshakeTimeout is the time for TLS to begin; default 1 minute.
	HandshakeTimeout time.Duration
	MaxCommands      int // before a login, then the client is cut off; default 100
	MaxErrors        int // errors of the client before it is cut off; default 20
	MaxFailedLogins  int // default 3
	// Pause is how much later each error from the fourth on is answered, up to ten
	// times this; 0: at once.
	Pause time.Duration

	Observer Observer // nil: nobody

	// Traced tells whether the dialog with a client, or with a user (as the client
	// writes the name, or as the mailbox is called, else ""), is to be in the log line
	// by line, at its debug level. nil: none.
	Traced func(client netip.Addr, user string) bool
}

func (c Config) withDefaults() *Config {
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 10 * time.Minute
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = 2 * time.Minute
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = time.Minute
	}
	if c.MaxCommands == 0 {
		c.MaxCommands = 100
	}
	if c.MaxErrors == 0 {
		c.MaxErrors = 20
	}
	if c.MaxFailedLogins == 0 {
		c.MaxFailedLogins = 3
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.TLS != nil {
		// Small first records let a browser show the top of a page sooner. No client
		// does that with mail, and each record is a system call.
		c.TLS = c.TLS.Clone()
		c.TLS.DynamicRecordSizingDisabled = true
	}
	return &c
}

// backend is what sessions work with.
type backend struct {
	Authenticator
	Mailstore
	SASL
	visits visits
}

// Server serves POP3 on any number of listeners. Its methods may be called from
// any goroutine.
type Server struct {
	backend  backend
	log      *slog.Logger
	config   atomic.Pointer[Config]
	patience time.Duration // how long a client may take nothing of a reply
	writers  sync.Pool     // of *bufio.Writer, held only while there is output

	base     context.Context // of all work for clients; ends with Close
	cancel   context.CancelFunc
	draining atomic.Bool    // set under mu
	leaving  chan struct{}  // closed when it is
	running  sync.WaitGroup // connections

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// NewServer makes a server; log may be nil.
func NewServer(c Config, a Authenticator, m Mailstore, mechanisms SASL, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		backend:   backend{Authenticator: a, Mailstore: m, SASL: mechanisms},
		log:       log,
		patience:  writePatience,
		leaving:   make(chan struct{}),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
	}
	s.writers.New = func() any { return bufio.NewWriterSize(nil, writeBuffer) }
	s.base, s.cancel = context.WithCancel(context.Background())
	s.Reconfigure(c)
	return s
}

// Reconfigure changes the configuration for connections made from now on.
func (s *Server) Reconfigure(c Config) { s.config.Store(c.withDefaults()) }

// Refusal is the line for a connection that is over the limits of whoever
// accepts connections.
func Refusal() string { return "-ERR [SYS/TEMP] too many connections, try again later\r\n" }

// Serve answers connections of l, which it closes, until Shutdown or Close
// ([ErrServerClosed]) or until l fails.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve with TLS from the first octet (RFC 8314 section 3.2).
func (s *Server) ServeTLS(l net.Listener) error {
	if s.config.Load().TLS == nil {
		return errors.Join(errors.New("pop3d: ServeTLS needs Config.TLS"), l.Close())
	}
	return s.serve(l, true)
}

func (s *Server) serve(l net.Listener, implicitTLS bool) error {
	defer l.Close()
	if !s.track(l) {
		return ErrServerClosed
	}
	defer s.untrack(l)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.start(nc, implicitTLS)
		case s.draining.Load():
			return ErrServerClosed
		default:
			return fmt.Errorf("pop3d: accept: %w", err)
		}
	}
}

// pause waits, but not longer than the server takes connections.
func (s *Server) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.leaving:
	}
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// start serves one connection in a goroutine of its own.
func (s *Server) start(nc net.Conn, implicitTLS bool) {
	c := newConn(s, nc)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.running.Done()
		c.serve(implicitTLS)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
}

// Shutdown stops accepting, tells the clients that wait for nothing that the
// server goes down, and lets commands that run come to their end, a QUIT with
// its removals too. Sessions that were told remove nothing. When ctx ends
// before they all did, it cuts them off, waits a moment for removals that have begun, and
// returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drain(func(c *conn) { c.wake() })
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.cancel()
		return nil
	case <-ctx.Done():
		err := errors.Join(ctx.Err(), s.Close())
		select { // whoever closes the maildrops next should not do it under an UPDATE
		case <-ended:
		case <-time.After(updatePatience):
		}
		return err
	}
}

// Close cuts off every connection. Nothing is removed that no QUIT asked for.
func (s *Server) Close() error {
	s.cancel()
	s.drain(func(c *conn) { c.cut() })
	return nil
}

// drain closes the listeners and calls each for every connection.
func (s *Server) drain(each func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining.Swap(true) {
		close(s.leaving)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		each(c)
	}
}
