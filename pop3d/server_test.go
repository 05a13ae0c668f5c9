package pop3d

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var makeTestTLS = sync.OnceValues(func() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, err
})

func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	c, err := makeTestTLS()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a server until the end of the test.
func start(t testing.TB, c Config, mail *fakeMail, change func(*Server)) (s *Server, address string) {
	t.Helper()
	s = NewServer(c, mail, mail, testSASL(), nil)
	if change != nil {
		change(s)
	}
	return s, listen(t, s, s.Serve)
}

// serve is start for tests that need only the address.
func serve(t testing.TB, c Config, mail *fakeMail) string {
	t.Helper()
	_, address := start(t, c, mail, nil)
	return address
}

// listen gives a server a listener; at the end of the test it checks that the
// server ends as it says.
func listen(t testing.TB, s *Server, serve func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		s.running.Wait()
	})
	return l.Addr().String()
}

// A message is not cut into small TLS records, each with a write of its own, not
// even at the beginning of a session.
func TestMessageIsOneRecord(t *testing.T) {
	config := plain()
	config.TLS = testTLS(t)
	mail := newFakeMail(strings.Repeat(strings.Repeat("x", 70)+"\r\n", 100))
	c, counted := pipe(t, NewServer(config, mail, mail, testSASL(), nil))
	c.lines(t, 1)
	c.write(t, "STLS\r\n")
	c.lines(t, 1)
	c.startTLS(t)
	c.write(t, "AUTH PLAIN "+testPlain+"\r\n")
	c.lines(t, 1)
	before, _ := counted.counts()
	c.write(t, "RETR 1\r\n")
	c.lines(t, 1+100+1)
	if writes, _ := counted.counts(); writes-before != 1 {
		t.Errorf("%d writes", writes-before)
	}
	if config.TLS.DynamicRecordSizingDisabled {
		t.Error("the configuration of the caller was changed")
	}
}

func TestServeTLSNeedsCertificate(t *testing.T) {
	l := listenOne(nil)
	if err := NewServer(plain(), nil, nil, SASL{}, nil).ServeTLS(l); err == nil || errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

func TestShutdownTellsWaitingSessions(t *testing.T) {
	config := plain()
	config.TLS = testTLS(t)
	mail := newFakeMail("a\r\n")
	s, address := start(t, config, mail, nil)
	idle, in, secure, shaking := dial(t, address), dial(t, address), dial(t, address), dial(t, address)
	idle.lines(t, 1)
	in.logIn(t)
	in.write(t, "DELE 1\r\n")
	in.lines(t, 1)
	secure.lines(t, 1)
	secure.write(t, "STLS\r\n")
	secure.lines(t, 1)
	secure.startTLS(t)
	secure.write(t, "AUTH LOGIN\r\n")
	secure.lines(t, 1)
	shaking.lines(t, 1)
	shaking.write(t, "STLS\r\n")
	shaking.lines(t, 1)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{idle, in, secure} {
		all, err := io.ReadAll(c.r)
		if err != nil || string(all) != "-ERR [SYS/TEMP] server is shutting down\r\n" {
			t.Errorf("%q, %v", all, err)
		}
	}
	if all, err := io.ReadAll(shaking.r); err != nil || len(all) > 0 {
		t.Errorf("in the handshake: %q, %v", all, err)
	}
	if len(mail.left()) != 1 || mail.isLocked() {
		t.Errorf("left %q, locked %t", mail.left(), mail.isLocked())
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("still listening")
	}
}

// A command that runs is finished; one that does not end is cut off with ctx.
func TestShutdownWaitsForCommands(t *testing.T) {
	mail := newFakeMail("a\r\n")
	entered, release := make(chan struct{}), make(chan struct{})
	mail.message = func(int) (io.ReadCloser, error) {
		close(entered)
		<-release
		return io.NopCloser(strings.NewReader("a\r\n")), nil
	}
	s, address := start(t, plain(), mail, nil)
	c := dial(t, address)
	c.logIn(t)
	c.write(t, "RETR 1\r\n")
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	eventually(t, "draining", s.draining.Load)
	close(release)
	all, err := io.ReadAll(c.r)
	if err != nil || string(all) != "+OK 3 octets\r\na\r\n.\r\n-ERR [SYS/TEMP] server is shutting down\r\n" {
		t.Errorf("%q, %v", all, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	mail := newFakeMail("a\r\n")
	entered, release := make(chan struct{}), make(chan struct{})
	mail.message = func(int) (io.ReadCloser, error) {
		close(entered)
		<-release
		return nil, errors.New("too late")
	}
	s, address := start(t, plain(), mail, nil)
	c := dial(t, address)
	c.logIn(t)
	c.write(t, "RETR 1\r\n")
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	if all, _ := io.ReadAll(c.r); len(all) > 0 {
		t.Errorf("%q", all)
	}
}

// An UPDATE that has begun when the time is over has a moment to end, so that what it
// works on is not closed under it.
func TestShutdownWaitsForRemovals(t *testing.T) {
	mail := newFakeMail("a\r\n")
	entered := make(chan struct{})
	mail.removing = func(ctx context.Context) {
		close(entered)
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond) // of work
	}
	s, address := start(t, plain(), mail, nil)
	c := dial(t, address)
	c.logIn(t)
	c.write(t, "DELE 1\r\nQUIT\r\n")
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(mail.left()) != 0 || mail.isLocked() {
		t.Errorf("left %q, locked %t", mail.left(), mail.isLocked())
	}
}

// Nobody waits for the pause after an error to end when the server stops.
func TestShutdownEndsPauses(t *testing.T) {
	config := plain()
	config.Pause = time.Hour
	s, address := start(t, config, newFakeMail(), nil)
	c := dial(t, address)
	c.lines(t, 1)
	c.write(t, "X\r\nX\r\nX\r\n")
	c.lines(t, 3)
	c.write(t, "CAPA\r\nX\r\n")
	for c.lines(t, 1) != ".\r\n" { // what comes before the pause is sent
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestReconfigureIsForNewConnections(t *testing.T) {
	s, address := start(t, plain(), newFakeMail(), nil)
	old := dial(t, address)
	old.lines(t, 1)
	s.Reconfigure(Config{Hostname: "new.example.org"})
	fresh := dial(t, address)
	if got := fresh.lines(t, 1); got != "+OK new.example.org POP3 server ready\r\n" {
		t.Errorf("%q", got)
	}
	for c, want := range map[*client]string{old: "+OK", fresh: "-ERR"} {
		c.write(t, "USER x\r\n")
		if got := c.lines(t, 1); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// brokenListener cannot accept.
type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, syscall.EBADF }

func TestAcceptFails(t *testing.T) {
	s := NewServer(plain(), nil, nil, testSASL(), nil)
	if err := s.Serve(brokenListener{listenOne(nil)}); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
}

// lockedBuilder collects the log.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLog(t *testing.T) {
	var log lockedBuilder
	mail := newFakeMail("a\r\n", "b\r\n", "c\r\n")
	s := NewServer(plain(), mail, mail, testSASL(), slog.New(slog.NewTextHandler(&log, nil)))
	address := listen(t, s, s.Serve)
	c := dial(t, address)
	c.lines(t, 1)
	c.write(t, "USER evil\x1b[31m\r\nPASS sesame-wrong\r\nUSER "+testUser+"\r\nPASS "+testPassword+"\r\nRETR 1\r\nDELE 1\r\nDELE 2\r\nQUIT\r\n")
	c.lines(t, 4+3+3)
	eventually(t, "connection closed", func() bool { return strings.Contains(log.String(), "connection closed") })
	for _, want := range []string{
		`msg="connection opened"`, "remote=127.0.0.1 ", `msg="login failed"`, `user="evil\x1b[31m"`, `reason="`,
		"msg=login ", "user=" + testUser, "reason=quit", "retrieved=1", "octets=3", "deleted=2", "left=1",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, " session=") || strings.Contains(line, "sesame") {
			t.Errorf("%s", line)
		}
	}
}

func TestRefusal(t *testing.T) {
	if !wellFormed(Refusal()) || !strings.HasPrefix(Refusal(), "-ERR [SYS/TEMP] ") {
		t.Errorf("%q", Refusal())
	}
}

// A client that is hung up on gets the last reply and an orderly end, though it
// has sent more than was read.
func TestHangUpWithInputLeft(t *testing.T) {
	for _, secure := range []bool{false, true} {
		config := plain()
		config.TLS = testTLS(t)
		config.MaxErrors = 1
		c := dial(t, serve(t, config, newFakeMail()))
		c.lines(t, 1)
		if secure {
			c.write(t, "STLS\r\n")
			c.lines(t, 1)
			c.startTLS(t)
		}
		c.write(t, strings.Repeat("WHAT\r\n", 10*readBuffer))
		all, err := io.ReadAll(c.r)
		if err != nil || string(all) != "-ERR too many errors, closing the connection\r\n" {
			t.Errorf("TLS %t: %q, %v", secure, all, err)
		}
		c.c.Close()
	}
}
