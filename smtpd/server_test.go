package smtpd

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// eventually waits for a state that comes without being told of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never came: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.wires)
}

func TestLostInsideMessage(t *testing.T) {
	for _, part := range []string{"", "Subject: x\r\n\r\nhalf", "Subject: x\r\n", "Subject: x\r\n.", "Subject: x\r\n.\r", "a\n.\n"} {
		r := newRig(t, testConfig())
		c := r.dial(t)
		c.begin("ann@example.org")
		c.send(part)
		c.Close()
		eventually(t, "end of connection", func() bool { return r.open() == 0 })
		if got := r.store.deliveries(); len(got) > 0 {
			t.Errorf("after %q: delivered %q", part, got)
		}
		if log := r.log.String(); !strings.Contains(log, "message refused") {
			t.Errorf("after %q: not in the log:\n%s", part, log)
		}
	}
}

func TestLostHalfway(t *testing.T) {
	r := newRig(t, testConfig())
	c := r.dial(t)
	c.begin("ann@example.org")
	c.send("Subject: x\r\n\r\nhalf")
	c.Conn.(*net.TCPConn).CloseWrite()
	c.expect("421 4.4.2 Connection lost inside a message, it was not delivered")
	if got := r.store.deliveries(); len(got) > 0 {
		t.Errorf("delivered %q", got)
	}
}

func TestTimeouts(t *testing.T) {
	quick := 20 * time.Millisecond
	t.Run("command", func(t *testing.T) {
		c := testConfig()
		c.GreetingTimeout = quick
		newRig(t, c).dial(t).expect("220 *", "421 4.4.2 *", "")
	})
	t.Run("command after a message", func(t *testing.T) {
		c := testConfig()
		c.GreetingTimeout = time.Second
		d := newRig(t, c).dial(t)
		d.begin("ann@example.org")
		d.do(".", "250")
		d.SetReadDeadline(time.Now().Add(2 * c.GreetingTimeout))
		if n, err := d.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("not left alone after a message: %d octets, %v", n, err)
		}
	})
	for _, name := range []string{"data", "message"} {
		t.Run(name, func(t *testing.T) {
			config := testConfig()
			if name == "data" {
				config.DataTimeout = quick
			} else {
				config.MessageTimeout = quick
			}
			r := newRig(t, config)
			c := r.dial(t)
			c.begin("ann@example.org")
			c.send("Subject: x\r\n\r\nhalf")
			c.expect("421 4.4.2 Waited too long, closing", "")
			if got := r.store.deliveries(); len(got) > 0 {
				t.Errorf("delivered %q", got)
			}
		})
	}
}

func TestShutdown(t *testing.T) {
	config := testConfig()
	config.TLS = certificate()
	r := newRig(t, config)
	r.store.reading = make(chan struct{})
	fresh, waiting, secure, busy := r.dial(t), r.dial(t), r.dial(t), r.dial(t)
	fresh.expect("220 *")
	waiting.do("", "220", "HELO x.example", "250", "MAIL FROM:<s@sender.example>", "250")
	secure.do("", "220", "STARTTLS", "220")
	secure.secure()
	secure.do("NOOP", "250")
	busy.begin("ann@example.org")
	busy.send("Subject: x\r\n")
	<-r.store.reading

	done := make(chan error, 1)
	go func() { done <- r.Shutdown(context.Background()) }()
	for _, c := range []*client{fresh, waiting, secure} {
		c.expect("421 4.3.2 Shutting down, try again later", "")
	}
	if err := <-r.ended; !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	busy.send("\r\nbody\r\n.\r\nMAIL FROM:<s@sender.example>\r\n")
	busy.expect("250 2.0.0 OK *")
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if got := r.store.deliveries(); len(got) != 1 {
		t.Errorf("delivered %q", got)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("still listening")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Serve(l); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestShutdownCutShort(t *testing.T) {
	for _, rcpt := range []string{"ann@example.org", "stuck@example.org"} {
		r := newRig(t, testConfig())
		r.store.reading = make(chan struct{})
		c := r.dial(t)
		c.begin(rcpt)
		c.send("Subject: x\r\n")
		if rcpt == "stuck@example.org" {
			c.send(".\r\n")
		}
		<-r.store.reading
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		<-r.idle
		if got := r.store.deliveries(); len(got) > 0 {
			t.Errorf("delivered %q", got)
		}
	}
}

func TestReconfigure(t *testing.T) {
	config := testConfig()
	r := newRig(t, config)
	old := r.dial(t)
	old.expect("220 mx.example.org *")
	config.Hostname = "new.example.org"
	r.Reconfigure(config)
	r.dial(t).expect("220 new.example.org *")
	old.do("HELO x.example", "250 mx.example.org")
}

// failing is a listener whose Accept fails for good.
type failing struct{ net.Listener }

func (failing) Accept() (net.Conn, error) { return nil, os.ErrPermission }

func TestServeFails(t *testing.T) {
	r := newRig(t, testConfig())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Serve(failing{l}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Serve: %v", err)
	}
}

func TestLog(t *testing.T) {
	r := newRig(t, testConfig())
	c := r.dial(t)
	c.begin("ann@example.org")
	c.send("Subject: top secret\r\n.\r\n")
	id := strings.TrimPrefix(c.line(), "250 2.0.0 OK ")
	if len(id) != 16 {
		t.Errorf("message id %q", id)
	}
	long := strings.Repeat("x", 200)
	c.do("MAIL FROM:<s@sender.example>", "250", "RCPT TO:<broken+"+long+"@example.org>", "451", "QUIT", "221")
	eventually(t, "end of connection", func() bool { return r.open() == 0 })
	log := r.log.String()
	for _, want := range []string{"connection opened", "connection closed", "messages=1", "message accepted",
		"id=" + id, "from=s@sender.example", "to=ann@example.org", "helo=client.example", "remote=127.0.0.1",
		"recipient refused", "on fire", "level=ERROR", "tls=none"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "session=") {
			t.Errorf("no session in %q", line)
		}
	}
	if strings.Contains(log, "top secret") {
		t.Errorf("content in the log:\n%s", log)
	}
}

// writes counts what reaches the network.
type writes struct {
	net.Conn
	each []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.each = append(w.each, string(p))
	return w.Conn.Write(p)
}

func TestRepliesOfAGroupInOneWrite(t *testing.T) {
	server := NewServer(testConfig(), users{}, &memory{}, nil)
	defer server.Close()
	near, far := net.Pipe()
	defer near.Close()
	counted := &writes{Conn: far}
	go server.Serve(&once{conn: counted})
	c := &client{t: t, Conn: near}
	c.expect("220 *")
	c.send("EHLO client.example\r\n")
	c.expect("250-*", "250-*", "250-*", "250-*", "250-*", "250 *")
	c.send("MAIL FROM:<s@sender.example>\r\nRCPT TO:<ann@example.org>\r\nRCPT TO:<u@example.org>\r\nDATA\r\n")
	c.expect("250 *", "250 *", "550 *", "354 *")
	c.send(".\r\nQUIT\r\n")
	c.expect("250 *", "221 *", "")
	if len(counted.each) != 4 {
		t.Errorf("%d writes: %q", len(counted.each), counted.each)
	}
}
