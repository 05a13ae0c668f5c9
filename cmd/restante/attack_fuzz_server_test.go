package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"restante/auth"
	"restante/cmd/restante/internal/config"
	"restante/smtpd"
)

// A fuzzServer is the whole program, put together as "serve" does it, in this process.
// Its clients come through memory.
type fuzzServer struct {
	*server
	root  string // the data directory is in it
	log   lockedBuffer
	conns chan net.Conn
	tree  []string // all that is on the disk while there is no mail

	mu        sync.Mutex
	delivered map[string][]string // mailboxes by message id
}

const fuzzMessageLimit = 3000

// newFuzzServer has the users alice and bob, and team for both.
func newFuzzServer(f *testing.F) *fuzzServer {
	f.Helper()
	s := &fuzzServer{root: f.TempDir(), conns: make(chan net.Conn), delivered: make(map[string][]string)}
	c := config.Default()
	c.Hostname, c.DataDir, c.Log.Format = "localhost", filepath.Join(s.root, "data"), "json"
	c.SMTP.Listen, c.POP3.Listen, c.POP3.ListenTLS = []string{"127.0.0.1:0"}, nil, nil
	c.SMTP.MaxMessageSize, c.SMTP.MaxErrors, c.SMTP.MaxRefused, c.SMTP.RejectHurried = fuzzMessageLimit, 200, 200, false
	c.Limits.Pause, c.Log.Level = 0, slog.LevelDebug
	if err := os.Mkdir(c.DataDir, 0o700); err != nil {
		f.Fatal(err)
	}
	log, level := newLog(&s.log, c)
	var err error
	if s.server, err = start(context.Background(), c, log, level); err != nil {
		f.Fatal(err)
	}
	if err := s.populate(); err != nil {
		f.Fatal(err)
	}
	settings := s.smtpConfig(c)
	settings.Traced = func(netip.Addr, string) bool { return true }
	settings.Exempt = func(netip.Addr) bool { return true } // each session by itself
	s.smtp = smtpd.NewServer(settings, recipients{s.users},
		recorder{deliveries{mail: s.mail, users: s.users, fill: new(fillLevels), log: log}, s}, log)
	served := make(chan error)
	go func() { served <- s.smtp.Serve(memoryListener(s.conns)) }()
	f.Cleanup(func() {
		close(s.conns)
		<-served
		if err := s.close(); err != nil {
			f.Error(err)
		}
	})
	return s
}

func (s *fuzzServer) populate() error {
	ctx := context.Background()
	secret, err := auth.PlainSecret(testPassword)
	if err != nil {
		return err
	}
	if err := s.users.AddDomain(ctx, testDomain, ""); err != nil {
		return err
	}
	for _, user := range []string{"alice", "bob"} {
		if _, err := s.users.AddUser(ctx, user+"@"+testDomain, secret); err != nil {
			return err
		}
		drop, err := s.mail.OpenMaildrop(ctx, user+"@"+testDomain)
		if err != nil {
			return err
		}
		if err := drop.Close(); err != nil {
			return err
		}
	}
	return s.users.AddAlias(ctx, "team@"+testDomain, []string{"alice@" + testDomain, "bob@" + testDomain})
}

// A lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take gives what is in it and empties it.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

// A recorder notes what the storage has promised to keep.
type recorder struct {
	deliveries
	server *fuzzServer
}

func (r recorder) Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (int64, error) {
	size, err := r.deliveries.Deliver(ctx, id, mailboxes, message)
	if err == nil {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		r.server.delivered[id] = mailboxes
	}
	return size, err
}

// memoryListener gives the connections that are sent to it, until it is closed.
type memoryListener chan net.Conn

func (l memoryListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, io.EOF
	}
	return conn, nil
}

func (memoryListener) Close() error   { return nil }
func (memoryListener) Addr() net.Addr { return &net.TCPAddr{} }

// A memoryConn is one end of a connection that has two, of which each can be shut by
// itself, as with TCP. It has no deadlines.
type memoryConn struct {
	in  *io.PipeReader
	out *io.PipeWriter
}

func newMemoryConn() (client, server memoryConn) {
	client.in, server.out = io.Pipe()
	server.in, client.out = io.Pipe()
	return client, server
}

func (c memoryConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // a pipe would wait for a reader
	}
	return c.out.Write(p)
}

func (c memoryConn) Read(p []byte) (int, error)     { return c.in.Read(p) }
func (c memoryConn) CloseWrite() error              { return c.out.Close() }
func (c memoryConn) Close() error                   { return errors.Join(c.out.Close(), c.in.Close()) }
func (memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711} }
func (memoryConn) SetDeadline(time.Time) error      { return nil }
func (memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (memoryConn) SetWriteDeadline(time.Time) error { return nil }
