package smtpd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// users is a Directory: local parts of example.org with what they do.
type users struct{}

func (users) Resolve(_ context.Context, local, domain string) (Recipient, error) {
	local, domain = strings.ToLower(local), strings.ToLower(domain)
	if domain == "" || domain == "münchen.example" {
		domain = "example.org"
	}
	if domain != "example.org" {
		return Recipient{}, errors.Join(errors.New("foreign"), ErrRelayDenied)
	}
	user, _, _ := strings.Cut(local, "+")
	r := Recipient{Address: address{local, domain}.String(), Mailboxes: []string{user + "@example.org"}}
	switch user {
	case "ann", "bob", "a b", "postmaster", "jürgen", `q"\@`, "stuck", "sunk", "panic", "early", "lazy", "full":
		return r, nil
	case "list":
		r.Mailboxes = []string{"ann@example.org", "bob@example.org"}
		return r, nil
	case "dora":
		return r, ErrDisabled
	case "bad":
		return r, ErrBadAddress
	case "broken":
		return r, errors.New("secret: /var/lib/db is on fire")
	case "wild":
		r.Address = "wild\r\nX-Injected: yes@example.org"
		return r, nil
	case "boom":
		panic("boom")
	}
	return r, ErrNoSuchUser
}

// A delivery is what a Store was given and promised to keep.
type delivery struct {
	id        string
	mailboxes []string
	message   string
}

// boundless is the part of a Store that has room for everything.
type boundless struct{}

func (boundless) Fits(context.Context, []string, int64) error { return nil }

// memory is a Store. What it does depends on the first mailbox.
type memory struct {
	mu      sync.Mutex
	kept    []delivery
	reading chan struct{} // closed at the first read, if set
	first   sync.Once

	asked []question
}

func (m *memory) Fits(_ context.Context, mailboxes []string, size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, question{strings.Join(mailboxes, " "), size})
	if mailboxes[0] == "full@example.org" {
		return fmt.Errorf("secret: %w", ErrOverQuota)
	}
	return nil
}

// A question is what Fits was asked.
type question struct {
	mailboxes string
	size      int64
}

func (m *memory) Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (int64, error) {
	user, _, _ := strings.Cut(mailboxes[0], "@")
	switch user {
	case "early":
		return 0, errors.New("secret: disk full")
	case "lazy":
		io.ReadFull(message, make([]byte, 10))
		return 10, nil
	case "panic":
		io.ReadFull(message, make([]byte, 10))
		panic("store")
	}
	if m.reading != nil {
		m.first.Do(func() { close(m.reading) })
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, message); err != nil {
		return 0, err
	}
	switch user {
	case "sunk":
		return 0, io.ErrUnexpectedEOF // of its own
	case "stuck":
		<-ctx.Done()
		return 0, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = append(m.kept, delivery{id, mailboxes, b.String()})
	return int64(b.Len()), nil
}

func (m *memory) deliveries() []delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]delivery(nil), m.kept...)
}

// body is a delivered message without its trace header.
func (d delivery) body(t testing.TB) string {
	t.Helper()
	i := strings.Index(d.message, "Received: ")
	if i < 0 {
		t.Fatalf("no trace header in %q", d.message)
	}
	rest := d.message[i:]
	for range 4 { // from, by, id, date
		_, rest, _ = strings.Cut(rest, "\r\n")
	}
	return rest
}

// A journal is a log to look into.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// A rig is a server on loopback.
type rig struct {
	*Server
	store *memory
	log   *journal
	addr  string
	ended chan error // of Serve
}

func testConfig() Config {
	return Config{Hostname: "mx.example.org", RejectOwnName: true, LocalDomain: func(context.Context) string { return "example.org" }}
}

func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	r := &rig{store: &memory{}, log: &journal{}, ended: make(chan error, 1)}
	r.Server = NewServer(c, users{}, r.store, slog.New(slog.NewTextHandler(r.log, nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	go func() { r.ended <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		<-r.idle
	})
	return r
}

func (r *rig) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t: t, Conn: conn}
}

// A client speaks raw SMTP.
type client struct {
	net.Conn
	t  testing.TB
	in []byte
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("send %q: %v", s, err)
	}
}

// line reads one line; "" is the end of the connection.
func (c *client) line() string {
	c.t.Helper()
	for {
		if i := bytes.IndexByte(c.in, '\n'); i >= 0 {
			line := string(c.in[:i+1])
			c.in = c.in[i+1:]
			if !strings.HasSuffix(line, "\r\n") {
				c.t.Fatalf("reply line %q does not end with CRLF", line)
			}
			return strings.TrimSuffix(line, "\r\n")
		}
		p := make([]byte, 4096)
		n, err := c.Read(p)
		c.in = append(c.in, p[:n]...)
		if n == 0 && err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				c.t.Fatalf("no reply (read %q)", c.in)
			}
			return ""
		}
	}
}

// expect reads a reply and compares; a * at the end of want stands for anything.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		got := c.line()
		if prefix, glob := strings.CutSuffix(w, "*"); got != w && !(glob && strings.HasPrefix(got, prefix)) {
			c.t.Fatalf("got reply %q, want %q", got, w)
		}
	}
}

// do sends lines and expects the beginning of the reply to each.
func (c *client) do(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != "" {
			c.send(pairs[i] + "\r\n")
		}
		c.t.Log("C:", pairs[i])
		c.expect(pairs[i+1] + "*")
	}
}

// begin says hello and opens an envelope for one recipient up to 354.
func (c *client) begin(rcpt string) {
	c.t.Helper()
	c.do("", "220", "HELO client.example", "250", "MAIL FROM:<s@sender.example>", "250",
		"RCPT TO:<"+rcpt+">", "250", "DATA", "354")
}

var certificate = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.org"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// secure does the client's part of the handshake.
func (c *client) secure() {
	c.t.Helper()
	conn := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.Conn = conn
}

// once is a listener with one connection.
type once struct{ conn net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, io.EOF
	}
	conn := o.conn
	o.conn = nil
	return conn, nil
}

func (*once) Close() error   { return nil }
func (*once) Addr() net.Addr { return &net.TCPAddr{} }

// canned is a connection without a network: the client's pieces come in turn,
// again and again.
type canned struct {
	script
	pieces []string
	next   int
	rounds int
	quiet  bool   // the replies are thrown away
	asked  []int  // sizes of the reads, unless quiet
	atEnd  func() // called when the server wants more than there is, if set
}

func (c *canned) Read(p []byte) (int, error) {
	if !c.quiet {
		c.asked = append(c.asked, len(p))
	}
	if c.next == len(c.pieces) {
		if c.rounds--; c.rounds <= 0 {
			if c.atEnd != nil {
				c.atEnd()
			}
			return 0, io.EOF
		}
		c.next = 1 // after EHLO
	}
	piece := c.pieces[c.next]
	n := copy(p, piece)
	if c.pieces[c.next] = piece[n:]; n == len(piece) {
		c.pieces[c.next] = piece
		c.next++
	}
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) {
	if c.quiet {
		return len(p), nil
	}
	return c.script.Write(p)
}

// play is the whole conversation: it gives the lines of the server.
func (c *canned) play(s *Server) []string {
	c.rounds, c.closed = 1, make(chan struct{})
	c.pieces = slices.Clone(c.pieces)
	_ = s.Serve(&once{conn: c})
	<-c.closed
	return strings.Split(strings.TrimSuffix(c.out.String(), "\r\n"), "\r\n")
}
