package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A slowClient holds a connection as long as it is let: it begins, then drips.
type slowClient struct {
	name  string
	begin func(d *caller)
	drip  string
	last  string // the beginning of what the server says at last

	conn  net.Conn
	got   []byte
	ended time.Duration // 0: not yet
}

// tick drips, and sees whether the server has hung up.
func (c *slowClient) tick(t *testing.T, began time.Time) {
	t.Helper()
	if c.ended > 0 {
		return
	}
	_, _ = c.conn.Write([]byte(c.drip)) // the read tells
	if err := c.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1000)
	n, err := c.conn.Read(answer)
	c.got = append(c.got, answer[:n]...)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.ended = time.Since(began)
	}
}

const timeout = "421 4.4.2 "

func slowClients(t *testing.T, s *testServer) []*slowClient {
	envelope := func(d *caller) { d.envelope("alice@" + testDomain) }
	hello := func(d *caller) { d.want("EHLO client.example", "250 ") }
	startTLS := func(d *caller) { hello(d); d.want("STARTTLS", "220 ") }
	secure := func(d *caller) { d.secure(s.clientTLS()) }
	then := func(begin func(*caller), more string) func(*caller) {
		return func(d *caller) { begin(d); d.write(more) }
	}
	nothing := func(*caller) {}
	record := clientHello(t)
	return []*slowClient{
		{name: "nothing", begin: nothing, last: timeout},
		{name: "first command", begin: nothing, drip: "N", last: timeout},
		{name: "first command, CR only", begin: nothing, drip: "\r", last: timeout},
		{name: "nothing after EHLO", begin: hello, last: timeout},
		{name: "command", begin: hello, drip: "N", last: timeout},
		{name: "long line", begin: then(hello, string(bytes.Repeat([]byte("x"), 5000))), drip: "x", last: timeout},
		{name: "faulty line", begin: then(hello, "NOOP\nNOOP"), drip: "x", last: timeout},
		{name: "nothing after MAIL", begin: then(hello, "MAIL FROM:<sender@client.example>\r\n"), last: timeout},
		{name: "chunk", begin: then(hello, "BDAT 100000 LAST\r\n"), drip: "x", last: timeout},
		{name: "no handshake", begin: startTLS},
		{name: "half a handshake", begin: then(startTLS, record[:len(record)/2])},
		{name: "handshake by the octet", begin: then(startTLS, record[:5]), drip: "\x01"},
		{name: "no end of the handshake", begin: then(startTLS, record)},
		{name: "nothing under TLS", begin: secure, last: timeout},
		{name: "command under TLS", begin: secure, drip: "N", last: timeout},
		{name: "half a record", begin: func(d *caller) {
			secure(d)
			d.conn = d.conn.(*tls.Conn).NetConn()
			d.write("\x17\x03\x03\x00")
		}},
		{name: "nothing after DATA", begin: envelope, last: timeout},
		{name: "half a message", begin: then(envelope, "Subject: x\r\n\r\nx\r\n."), last: timeout},
		{name: "half of what is too large", begin: then(envelope, string(bytes.Repeat([]byte("x"), 100<<10))), last: timeout},
	}
}

// TestSlow: in each phase the server gives up a client that lets it wait, and serves
// others meanwhile.
func TestSlow(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant("RESTANTE_SMTP_GREETING_TIMEOUT=2s", "RESTANTE_SMTP_COMMAND_TIMEOUT=2s", "RESTANTE_SMTP_DATA_TIMEOUT=2s",
		"RESTANTE_SMTP_HANDSHAKE_TIMEOUT=2s", "RESTANTE_SMTP_MAX_MESSAGE_SIZE=64KiB"))
	clients := slowClients(t, s)
	for _, c := range clients {
		d := s.talk(t, "smtp")
		c.begin(d)
		c.conn = d.conn
	}
	const patience = 15 * time.Second
	began, served := time.Now(), 0
	open := func() (names []string) {
		for _, c := range clients {
			if c.tick(t, began); c.ended == 0 {
				names = append(names, c.name)
			}
		}
		return names
	}
	for left := open(); len(left) > 0; left = open() {
		if time.Since(began) > patience {
			t.Fatalf("still connected after %v: %q", patience, left)
		}
		before := time.Now()
		s.deliver(t, []byte("Subject: in time\r\n\r\n"), "bob@"+testDomain)
		if took := time.Since(before); took > patience {
			t.Errorf("another client had to wait for %v", took)
		}
		served++
	}
	for _, c := range clients {
		if !bytes.Contains(append([]byte("\n"), c.got...), []byte("\n"+c.last)) {
			t.Errorf("%s: the last words were %q", c.name, c.got)
		}
	}
	if n := len(s.files("bob")); n != served {
		t.Errorf("%d messages for %d others", n, served)
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages of slow clients", n)
	}
}

// TestSlowReader: a client that does not take its answers is let go.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant("RESTANTE_SMTP_COMMAND_TIMEOUT=1s"))
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	d.allow(3 * deadline)
	began := time.Now()
	flood(d, "EHLO client.example\r\n", 1<<30) // what fits between the two is answered first
	if took := time.Since(began); took > 2*deadline {
		t.Errorf("it took %v", took)
	}
	eventually(t, "the connection is closed", func() bool { return len(s.log.find("connection closed", nil)) == 1 })
}

// TestSlowMessage drips a message that no silence ends: the least rate does, after the
// minute that everybody has.
func TestSlowMessage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes more than a minute")
	}
	s := newServer(t, tolerant("RESTANTE_SMTP_DATA_TIMEOUT=10s", "RESTANTE_SMTP_MIN_RATE=1KiB"))
	c := &slowClient{drip: "x", conn: s.talk(t, "smtp").envelope("alice@" + testDomain).conn}
	began := time.Now()
	if err := c.conn.SetDeadline(began.Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	for c.ended == 0 && time.Since(began) < 2*time.Minute {
		c.tick(t, began)
		time.Sleep(100 * time.Millisecond) // the pace of the attack
	}
	if c.ended < 55*time.Second || c.ended > 90*time.Second || !bytes.HasPrefix(c.got, []byte(timeout)) {
		t.Errorf("ended after %v with %q", c.ended, c.got)
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages came", n)
	}
}
