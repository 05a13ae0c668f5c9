package pop3d

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// countingConn counts the writes to a connection and its read deadlines.
type countingConn struct {
	net.Conn
	mu        sync.Mutex
	writes    int
	deadlines int
}

func (c *countingConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadlines++
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *countingConn) counts() (writes, deadlines int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.deadlines
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// oneListener accepts one connection, then waits for its end.
type oneListener struct {
	net.Listener
	conn  chan net.Conn
	close sync.Once
}

func listenOne(c net.Conn) *oneListener {
	l := &oneListener{conn: make(chan net.Conn, 1)}
	l.conn <- c
	return l
}

func (l *oneListener) Accept() (net.Conn, error) {
	if c, ok := <-l.conn; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error {
	l.close.Do(func() { close(l.conn) })
	return nil
}

// pipe connects a client to a server without a network.
func pipe(t *testing.T, s *Server) (*client, *countingConn) {
	t.Helper()
	near, far := net.Pipe()
	counting := &countingConn{Conn: far}
	l := listenOne(counting)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		near.Close()
	})
	return newClient(near), counting
}

func plain() Config { return Config{Hostname: "mail.example.org", AllowPlaintext: everywhere} }

// Commands that come together are answered together.
func TestPipelinedRepliesAreOneWrite(t *testing.T) {
	mail := newFakeMail("a\r\n\r\nb\r\n", "c\r\n\r\n.d\r\n")
	s := NewServer(plain(), mail, mail, testSASL(), nil)
	c, counted := pipe(t, s)
	c.logIn(t)
	before, _ := counted.counts()
	c.write(t, "STAT\r\nLIST\r\nRETR 1\r\nRETR 2\r\nDELE 1\r\nNOOP\r\nNO")
	got := c.lines(t, 1+4+5+5+1+1)
	c.write(t, "OP\r\n")
	got += c.lines(t, 1)
	if !strings.HasSuffix(got, "+OK 9 octets\r\nc\r\n\r\n..d\r\n.\r\n+OK message 1 deleted\r\n+OK\r\n+OK\r\n") {
		t.Errorf("%q", got)
	}
	if writes, _ := counted.counts(); writes-before != 2 {
		t.Errorf("%d writes", writes-before)
	}
}

// The time for a command is not renewed by its octets one at a time.
func TestOneDeadlineForALine(t *testing.T) {
	mail := newFakeMail()
	c, counted := pipe(t, NewServer(plain(), mail, mail, testSASL(), nil))
	c.logIn(t)
	c.write(t, "N") // returns when it was read, so the deadline is set
	_, before := counted.counts()
	for _, octet := range []string{"O", "O", "P", "\r"} {
		c.write(t, octet)
	}
	if _, after := counted.counts(); after != before {
		t.Errorf("%d deadlines more", after-before)
	}
	c.write(t, "\n")
	if got := c.lines(t, 1); got != "+OK\r\n" {
		t.Errorf("%q", got)
	}
}

func TestLineEndsAndLengths(t *testing.T) {
	c := dial(t, serve(t, plain(), newFakeMail("a\r\n")))
	c.lines(t, 1)
	exact := "USER " + strings.Repeat("u", commandLimit-len("USER \r\n"))
	for _, test := range []struct{ line, want string }{
		{"NOOP\n", "-ERR log in first\r\n"},
		{"NOOP\r\r\n", "-ERR unknown command\r\n"},
		{exact + "\r\n", "+OK send PASS\r\n"},
		{exact + "u\r\n", "-ERR line too long\r\n"},
		{strings.Repeat("x", readBuffer) + "\r\n", "-ERR line too long\r\n"},
		{strings.Repeat("x", floodLimit-readBuffer) + "\n", "-ERR line too long\r\n"},
		{"AUTH PLAIN\n", "+ \r\n"},
		{strings.Repeat("A", responseLimit-2) + "\r\n", "-ERR malformed response\r\n"},
		{"AUTH PLAIN\n", "+ \r\n"},
		{strings.Repeat("A", responseLimit) + "\r\n", "-ERR line too long\r\n"},
		{"AUTH PLAIN\n", "+ \r\n"},
		{testPlain + "\n", "+OK maildrop has 1 message (3 octets)\r\n"},
		{"QUIT\n", "+OK bye\r\n"},
	} {
		c.write(t, test.line)
		if got := c.lines(t, 1); got != test.want {
			t.Errorf("%.20q (%d octets): %q, want %q", test.line, len(test.line), got, test.want)
		}
	}
}

// A line that never ends is not read for ever.
func TestLineWithoutEnd(t *testing.T) {
	c := dial(t, serve(t, plain(), newFakeMail()))
	c.lines(t, 1)
	// The server may hang up while this is written.
	_, _ = io.WriteString(c.c, strings.Repeat("x", 2*floodLimit))
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		t.Errorf("answered %q", rest)
	}
}

// Whatever cuts a session off, nothing is removed and the lock is released.
func TestLostSessionsRemoveNothing(t *testing.T) {
	for _, test := range []struct {
		name, last string
		cut        func(*testing.T, *Server, *client)
	}{
		{"closed", "", func(t *testing.T, _ *Server, c *client) { c.c.Close() }},
		{"half closed", "", halfClose},
		{"QUIT cut off", "QUIT", halfClose},
		{"QUIT cut off after CR", "QUIT\r", halfClose},
		{"reset", "", func(t *testing.T, _ *Server, c *client) {
			c.c.(*net.TCPConn).SetLinger(0)
			c.c.Close()
		}},
		{"server closed", "", func(t *testing.T, s *Server, _ *client) { s.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			mail := newFakeMail("a\r\n", "b\r\n")
			mail.closed = make(chan struct{}, 1)
			s, address := start(t, plain(), mail, nil)
			c := dial(t, address)
			c.logIn(t)
			c.write(t, "DELE 1\r\nDELE 2\r\n"+test.last)
			c.lines(t, 2)
			test.cut(t, s, c)
			<-mail.closed
			if mail.removals > 0 || len(mail.left()) != 2 {
				t.Errorf("left %q", mail.left())
			}
		})
	}
}

func halfClose(t *testing.T, _ *Server, c *client) {
	if err := c.c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// Once QUIT is answered the mailbox can be opened again.
func TestNextLoginAfterQuit(t *testing.T) {
	mail := newFakeMail("a\r\n")
	address := serve(t, plain(), mail)
	for range 50 {
		c := dial(t, address)
		c.logIn(t)
		c.write(t, "QUIT\r\n")
		c.lines(t, 1)
	}
}

// The two kinds of time-out end the connection without a word.
func TestTimeouts(t *testing.T) {
	for _, loggedIn := range []bool{false, true} {
		c := plain()
		c.LoginTimeout, c.IdleTimeout = time.Minute, time.Minute
		if loggedIn {
			c.IdleTimeout = 20 * time.Millisecond
		} else {
			c.LoginTimeout = 20 * time.Millisecond
		}
		mail := newFakeMail("a\r\n")
		client := dial(t, serve(t, c, mail))
		if loggedIn {
			client.write(t, "AUTH PLAIN "+testPlain+"\r\nDELE 1\r\n")
		}
		all, err := io.ReadAll(client.r)
		if err != nil || strings.Contains(string(all), "-ERR") {
			t.Errorf("logged in %t: %q, %v", loggedIn, all, err)
		}
		if len(mail.left()) != 1 || mail.isLocked() {
			t.Errorf("logged in %t: left %q, locked %t", loggedIn, mail.left(), mail.isLocked())
		}
	}
}

// A client that stops reading loses its session.
func TestClientStopsReading(t *testing.T) {
	mail := newFakeMail(strings.Repeat(strings.Repeat("x", 998)+"\r\n", 16<<10), "b\r\n")
	mail.closed = make(chan struct{}, 1)
	_, address := start(t, plain(), mail, func(s *Server) { s.patience = 100 * time.Millisecond })
	c := dial(t, address)
	c.logIn(t)
	c.write(t, "DELE 2\r\nRETR 1\r\nQUIT\r\n")
	<-mail.closed
	if len(mail.left()) != 2 {
		t.Error("message removed")
	}
}

// UPDATE waits until the replies before it are on their way.
func TestLostRepliesBeforeQuit(t *testing.T) {
	mail := newFakeMail("a\r\n", "b\r\n")
	mail.closed = make(chan struct{}, 1)
	c, _ := pipe(t, NewServer(plain(), mail, mail, testSASL(), nil))
	c.logIn(t)
	c.write(t, "RETR 1\r\nDELE 1\r\nQUIT\r\n")
	c.c.Close()
	<-mail.closed
	if mail.removals > 0 || len(mail.left()) != 2 {
		t.Errorf("left %q", mail.left())
	}
}

// stubbornConn takes a few octets of each write, then times out.
type stubbornConn struct {
	net.Conn
	takes  []int
	taken  strings.Builder
	renews int
}

func (c *stubbornConn) SetWriteDeadline(time.Time) error { c.renews++; return nil }

func (c *stubbornConn) Write(p []byte) (int, error) {
	n := min(c.takes[0], len(p))
	c.takes = c.takes[1:]
	c.taken.Write(p[:n])
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func TestProgressRenewsPatience(t *testing.T) {
	for _, test := range []struct {
		takes  []int
		want   string
		failed bool
	}{
		{[]int{6}, "abcdef", false},
		{[]int{1, 2, 3}, "abcdef", false},
		{[]int{1, 0, 9}, "a", true},
		{[]int{0, 9}, "", true},
	} {
		inner := &stubbornConn{takes: test.takes}
		c := &patientConn{Conn: inner, patience: time.Minute}
		n, err := c.Write([]byte("abcdef"))
		if n != len(test.want) || inner.taken.String() != test.want || (err != nil) != test.failed || (c.failed != nil) != test.failed {
			t.Errorf("%v: %d, %v, %q", test.takes, n, err, inner.taken.String())
		}
	}
}

// A message that breaks off must not look complete.
func TestMessageBreaksOff(t *testing.T) {
	mail := newFakeMail("a\r\nb\r\n")
	mail.message = func(int) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("a\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
	}
	c := dial(t, serve(t, plain(), mail))
	c.logIn(t)
	c.write(t, "RETR 1\r\nDELE 1\r\nQUIT\r\n")
	all, err := io.ReadAll(c.r)
	if err == nil && strings.Contains(string(all), ".\r\n") || len(mail.left()) != 1 || mail.isLocked() {
		t.Errorf("%q, %v, left %q, locked %t", all, err, mail.left(), mail.isLocked())
	}
}

// A panic ends one session only.
func TestPanicIsContained(t *testing.T) {
	mail := newFakeMail("a\r\n")
	mail.message = func(int) (io.ReadCloser, error) { panic("broken") }
	address := serve(t, plain(), mail)
	for range 2 {
		c := dial(t, address)
		c.logIn(t)
		c.write(t, "RETR 1\r\n")
		if all, _ := io.ReadAll(c.r); len(all) > 0 {
			t.Errorf("%q", all)
		}
	}
}

// What was sent in the clear after STLS is not answered inside TLS, and what
// was said before it is forgotten.
func TestSTLSInjection(t *testing.T) {
	config := plain()
	config.TLS = testTLS(t)
	mail := newFakeMail("a\r\n")
	c := dial(t, serve(t, config, mail))
	c.lines(t, 1)
	c.write(t, "USER "+testUser+"\r\nSTLS\r\nAUTH PLAIN "+testPlain+"\r\nDELE 1\r\n")
	c.lines(t, 2)
	c.startTLS(t)
	c.write(t, "PASS "+testPassword+"\r\nSTAT\r\n")
	if got := c.lines(t, 2); got != "-ERR send USER first\r\n-ERR log in first\r\n" {
		t.Errorf("%q", got)
	}
}

func TestImplicitTLS(t *testing.T) {
	mail := newFakeMail("a\r\n\r\n.b\r\n")
	s := NewServer(Config{Hostname: "mail.example.org", TLS: testTLS(t)}, mail, mail, testSASL(), nil)
	address := listen(t, s, s.ServeTLS)
	c := dial(t, address)
	c.startTLS(t)
	c.logIn(t)
	c.write(t, "CAPA\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
	all, err := io.ReadAll(c.r)
	if err != nil || strings.Contains(string(all), "STLS") || !strings.HasSuffix(string(all),
		"+OK 9 octets\r\na\r\n\r\n..b\r\n.\r\n+OK message 1 deleted\r\n+OK 1 message removed, bye\r\n") {
		t.Errorf("%q, %v", all, err)
	}
	if len(mail.left()) != 0 {
		t.Errorf("left %q", mail.left())
	}
	// A client that does not speak TLS learns nothing in the clear.
	c = dial(t, address)
	c.write(t, "CAPA\r\n")
	if all, _ := io.ReadAll(c.r); strings.Contains(string(all), "OK") || strings.Contains(string(all), "ERR") {
		t.Errorf("%q", all)
	}
}
