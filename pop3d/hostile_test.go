package pop3d

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestThrottled: a login that is not looked at ends the connection, and the reply
// has the code of a failed one.
func TestThrottled(t *testing.T) {
	mail := newFakeMail()
	mail.authErr = fmt.Errorf("192.0.2.7/32 is refused: %w", ErrThrottled)
	c := callIn(t, serve(t, Config{AllowPlaintext: everywhere}, mail))
	c.ask("", "+OK")
	c.ask("USER "+testUser, "+OK")
	c.ask("PASS x", "-ERR [AUTH] too many failed logins, try again later")
	c.ended()
}

func TestCommandsBeforeLogin(t *testing.T) {
	c := callIn(t, serve(t, Config{AllowPlaintext: everywhere, MaxCommands: 5}, newFakeMail()))
	c.ask("", "+OK")
	for range 5 {
		c.ask("USER x", "+OK")
	}
	c.ask("USER x", "-ERR too many commands without a login, closing the connection")
	c.ended()

	c = callIn(t, serve(t, Config{AllowPlaintext: everywhere, MaxCommands: 5}, newFakeMail("x\r\n")))
	c.ask("", "+OK")
	c.ask("USER "+testUser, "+OK")
	c.ask("PASS "+testPassword, "+OK")
	for range 50 {
		c.ask("STAT", "+OK 1 3")
	}
}

// TestTire: the fourth error and those after it are answered ever later.
func TestTire(t *testing.T) {
	const pause = 20 * time.Millisecond
	c := callIn(t, serve(t, Config{AllowPlaintext: everywhere, Pause: pause}, newFakeMail()))
	c.ask("", "+OK")
	for i := range 8 {
		began := time.Now()
		c.ask("NONSENSE", "-ERR")
		if took, least := time.Since(began), time.Duration(max(0, i-2))*pause; took < least {
			t.Errorf("error %d was answered after %v, not %v", i+1, took, least)
		}
	}
}

// TestHandshakeTimeout: who begins TLS and says nothing is let go.
func TestHandshakeTimeout(t *testing.T) {
	c := callIn(t, serve(t, Config{TLS: testTLS(t), HandshakeTimeout: 20 * time.Millisecond}, newFakeMail()))
	c.ask("", "+OK")
	c.ask("STLS", "+OK")
	c.ended()
}

func TestKick(t *testing.T) {
	mail := newFakeMail("x\r\n")
	s, address := start(t, Config{AllowPlaintext: everywhere}, mail, nil)
	idle, user := callIn(t, address), callIn(t, address)
	idle.ask("", "+OK")
	user.ask("", "+OK")
	user.ask("USER "+testUser, "+OK")
	user.ask("PASS "+testPassword, "+OK")
	user.ask("DELE 1", "+OK")
	if n := len(s.Sessions()); n != 2 {
		t.Errorf("%d sessions", n)
	}
	if n := s.Kick(func(v Session) bool { return v.Mailbox == testUser && v.Client.IsLoopback() && v.TLS == "none" }); n != 1 {
		t.Errorf("%d were ended", n)
	}
	user.ended()
	eventually(t, "the maildrop is free", func() bool { return !mail.isLocked() })
	if len(mail.left()) != 1 {
		t.Error("a session that was ended has removed a message")
	}
	idle.ask("QUIT", "+OK")
}

// speaker is a client that speaks raw POP3.
type speaker struct {
	net.Conn
	t *testing.T
}

func callIn(t *testing.T, address string) speaker {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return speaker{conn, t}
}

// ask sends a command, unless it is empty, and wants a reply that begins so.
func (c speaker) ask(command, want string) {
	c.t.Helper()
	if command != "" {
		if _, err := c.Write([]byte(command + "\r\n")); err != nil {
			c.t.Fatal(err)
		}
	}
	var line strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(line.String(), "\r\n"); line.Write(b) {
		if _, err := c.Read(b); err != nil {
			c.t.Fatalf("%s: %v after %q", command, err, line.String())
		}
	}
	if !strings.HasPrefix(line.String(), want) {
		c.t.Errorf("%s: got %q, want %q", command, line.String(), want)
	}
}

func (c speaker) ended() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		c.t.Error("the connection goes on")
	}
}
