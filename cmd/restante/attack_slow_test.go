package main

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAttackSlow: who says nothing, or next to nothing, is let go in time, wherever
// in the protocol that is. Others are served meanwhile.
func TestAttackSlow(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{env: []string{"RESTANTE_POP3_LOGIN_TIMEOUT=3s", "RESTANTE_POP3_HANDSHAKE_TIMEOUT=2s",
		"RESTANTE_POP3_MAX_COMMANDS=10000", "RESTANTE_POP3_MAX_ERRORS=10000"}})
	s.deliver(t, []byte("Subject: x\r\n\r\nx\r\n"), "alice@"+testDomain)
	hello := clientHello(t)
	stalls := map[string]func() net.Conn{
		"says nothing":                func() net.Conn { return s.talk(t, "pop3").conn },
		"does not even read":          func() net.Conn { return s.dial(t, "pop3").conn },
		"after a name":                func() net.Conn { return s.after(t, "pop3s", "USER alice@"+testDomain) },
		"within AUTH PLAIN":           func() net.Conn { return s.after(t, "pop3s", "AUTH PLAIN") },
		"within AUTH LOGIN":           func() net.Conn { return s.after(t, "pop3s", "AUTH LOGIN", "YWxpY2U=") },
		"no handshake on 995":         func() net.Conn { return s.dial(t, "pop3s").conn },
		"no handshake after STLS":     func() net.Conn { return s.after(t, "pop3", "STLS") },
		"half a command":              func() net.Conn { c := s.talk(t, "pop3"); c.write("USE"); return c.conn },
		"an octet now and then":       func() net.Conn { return drip(s.talk(t, "pop3").conn, strings.Repeat("x", 600)) },
		"a command now and then":      func() net.Conn { return drip(s.talk(t, "pop3").conn, strings.Repeat("CAPA\r\n", 200)) },
		"a slow handshake on 995":     func() net.Conn { return drip(s.dial(t, "pop3s").conn, hello) },
		"a slow handshake after STLS": func() net.Conn { return drip(s.after(t, "pop3", "STLS"), hello) },
		"a slow exchange":             func() net.Conn { return drip(s.after(t, "pop3s", "AUTH PLAIN"), strings.Repeat("A", 600)) },
		"empty lines without end":     func() net.Conn { return drip(s.talk(t, "pop3").conn, strings.Repeat("\r\n", 300)) },
		"TLS, and then nothing":       func() net.Conn { return s.talk(t, "pop3s").conn },
		"a hello that has no end": func() net.Conn {
			return drip(s.dial(t, "pop3s").conn, "\x16\x03\x01\x3f\xff"+strings.Repeat("\x01", 600))
		},
		"plain text on the port for TLS": func() net.Conn { c := s.dial(t, "pop3s"); c.write("CAPA\r\n"); return c.conn },
	}
	const patience = 15 * time.Second // less than any of them goes on, and than the test waits for an answer
	var all sync.WaitGroup
	for what, stall := range stalls {
		began := time.Now()
		conn := stall()
		all.Go(func() {
			_, _ = io.Copy(io.Discard, conn) // to the end, in order or not
			if took := time.Since(began); took > patience {
				t.Errorf("%s: held the connection for %v", what, took.Round(time.Millisecond))
			}
		})
	}
	s.keeps(t, "alice", 1)
	all.Wait()
	eventually(t, "all connections are closed", func() bool {
		return len(s.log.find("connection closed", map[string]any{"protocol": "pop3"})) == len(s.log.find("connection opened", map[string]any{"protocol": "pop3"}))
	})
	if n := len(s.log.find("TLS handshake failed", nil)); n != 6 {
		t.Errorf("%d handshakes failed, want 6", n)
	}
}

// after is a connection on which the server has answered these lines.
func (s *testServer) after(t *testing.T, port string, lines ...string) net.Conn {
	t.Helper()
	d := s.talk(t, port)
	for _, line := range lines {
		d.want(line, "+")
	}
	return d.conn
}

// drip sends an octet every 50 ms, for as long as it can.
func drip(conn net.Conn, text string) net.Conn {
	go func() {
		for i := range len(text) {
			time.Sleep(50 * time.Millisecond) // this is the attack
			if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
				return
			}
		}
	}()
	return conn
}

// clientHello is the first thing that a client says in TLS.
func clientHello(t *testing.T) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "localhost"}).Handshake() // ends when ours is closed
		theirs.Close()
	}()
	hello := make([]byte, 16<<10)
	n, err := ours.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return string(hello[:n])
}

// TestAttackNeverReads: a client that asks for much and takes none of it holds its own
// mailbox and nothing else, until its owner or a shutdown ends it. It deletes nothing.
func TestAttackNeverReads(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{})
	large := []byte("Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 20<<10))
	s.deliver(t, large, "alice@"+testDomain)
	s.deliver(t, []byte("Subject: of bob\r\n\r\n"), "bob@"+testDomain)
	before := peakMemory(t, s.cmd.Process.Pid)
	var stuck []*caller
	for range 20 {
		if d := s.talk(t, "pop3s"); len(stuck) == 0 {
			stuck = append(stuck, d.logIn("alice"))
		} else {
			stuck = append(stuck, d)
		}
	}
	stuck[0].write("DELE 1\r\nRSET\r\n" + strings.Repeat("RETR 1\r\n", 100) + "DELE 1\r\nQUIT\r\n")
	for _, d := range stuck[1:] {
		d.write(strings.Repeat("CAPA\r\n", 40))
	}
	d := s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	d.want("PASS "+testPassword, "-ERR [IN-USE]")
	s.keeps(t, "bob", 1)
	if grown := peakMemory(t, s.cmd.Process.Pid) - before; grown > 24<<20 {
		t.Errorf("%d MiB more memory for a reply of 2 GiB that nobody takes", grown>>20)
	}
	if out := restante(t, s.config, "", "sessions", "kick", "alice@"+testDomain); !strings.HasPrefix(out, "ended 1 ") {
		t.Errorf("kick: %q", out)
	}
	s.keeps(t, "alice", 1)
	s.log.one(t, "connection closed", map[string]any{"reason": "ended by the owner of the server", "deleted": 0})
}
