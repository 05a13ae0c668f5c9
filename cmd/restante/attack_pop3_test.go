package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
)

// TestAttackSTLS: what somebody slipped in between a client and the server before
// TLS is neither carried out under TLS nor remembered.
func TestAttackSTLS(t *testing.T) {
	s := newServer(t, serverOptions{settings: allowPlaintext})
	s.deliver(t, []byte("Subject: stays\r\n\r\nx\r\n"), "alice@"+testDomain)
	login := "USER alice@" + testDomain + "\r\nPASS " + testPassword + "\r\n"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00alice@" + testDomain + "\x00" + testPassword))
	for _, behind := range []string{
		"NOOP\r\n", login + "DELE 1\r\nQUIT\r\n", "AUTH PLAIN " + plain + "\r\nDELE 1\r\nQUIT\r\n", "STLS\r\n" + login,
		"USER alice@" + testDomain + "\r\n", "AUTH LOGIN\r\n", "PA", "\r\n\r\n\r\n", "\x16\x03\x01\x00\x05hello",
	} {
		d := s.talk(t, "pop3")
		d.write("STLS\r\n" + behind) // one segment
		d.want("", "+OK begin TLS")
		conn := tls.Client(d.conn, s.clientTLS())
		if err := conn.Handshake(); err != nil {
			t.Errorf("with %q behind STLS: %v", behind, err)
			continue
		}
		d.conn, d.lines = conn, bufio.NewReader(conn)
		d.want("STAT", "-ERR log in first") // the first answer is to the first command of the client's
		d.want("PASS "+testPassword, "-ERR send USER first")
		d.want("CAPA", "+OK")
		if capa := d.multiline(); bytes.Contains(capa, []byte("STLS")) {
			t.Errorf("under TLS STLS is offered again: %q", capa)
		}
		d.want("STLS", "-ERR TLS is on already")
		d.want("QUIT", "+OK")
	}

	// What was said before is forgotten, too.
	d := s.talk(t, "pop3")
	d.want("USER alice@"+testDomain, "+OK")
	d.secure(s.clientTLS())
	d.want("PASS "+testPassword, "-ERR send USER first")
	d.logIn("alice")
	d.want("STLS", "-ERR")
	d.want("STAT", "+OK 1 ")
	d.want("QUIT", "+OK")

	// More than the server reads at once: the rest meets the handshake.
	d = s.talk(t, "pop3")
	d.write("STLS\r\n" + strings.Repeat("NOOP\r\n", 5000))
	d.want("", "+OK begin TLS")
	if said, _ := io.ReadAll(d.lines); bytes.Contains(said, []byte("+OK")) || bytes.Contains(said, []byte("-ERR")) {
		t.Errorf("commands behind STLS are answered: %q", said)
	}
	s.keeps(t, "alice", 1)
}

// keeps expects so many messages of a user.
func (s *testServer) keeps(t *testing.T, user string, n int) {
	t.Helper()
	eventually(t, "the mailbox of "+user+" is free", func() bool {
		d := s.talk(t, "pop3s")
		d.want("USER "+user+"@"+testDomain, "+OK")
		if strings.HasPrefix(d.ask("PASS "+testPassword), "-ERR [IN-USE]") {
			return false
		}
		d.want("STAT", fmt.Sprintf("+OK %d ", n))
		d.want("QUIT", "+OK")
		return true
	})
}

// oneReply sends a line and expects one line of answer that has nothing of it.
func (d *caller) oneReply(line string) {
	d.t.Helper()
	d.write(line + "\r\n")
	answer := d.line()
	if !regexp.MustCompile(`^(\+OK|-ERR|\+)( [ -~]*)?$`).MatchString(answer) {
		d.t.Errorf("%.40q is answered %q", line, answer)
	}
	if strings.Contains(answer, "INJECTED") {
		d.t.Errorf("%.40q comes back: %q", line, answer)
	}
	if d.lines.Buffered() > 0 {
		rest, _ := d.lines.Peek(d.lines.Buffered())
		d.t.Errorf("%.40q has more than one answer: %q and %q", line, answer, rest)
	}
}

// TestAttackReplies: nothing that a client says forges a line of an answer, or of
// the log.
func TestAttackReplies(t *testing.T) {
	s := newServer(t, serverOptions{env: []string{"RESTANTE_POP3_MAX_ERRORS=1000", "RESTANTE_POP3_MAX_FAILED_LOGINS=100"}})
	forged := "x\r+OK INJECTED\r\x00\x0b\x85\u2028\u202e"
	encoded := base64.StdEncoding.EncodeToString([]byte("\x00alice\r\n+OK INJECTED\r\n.\r\n\x00pass\r\nword"))
	d := s.talk(t, "pop3s")
	for _, line := range []string{
		"USER " + forged, "USER alice\r+OK INJECTED", "PASS " + forged, "USER INJECTED\x1b[2J", "PASS INJECTED", forged, "\r+OK INJECTED",
		"LANG INJECTED", "LANG " + forged, "UTF8 INJECTED", "STLS INJECTED", "CAPA INJECTED", "AUTH INJECTED", "AUTH " + forged,
		"AUTH PLAIN " + encoded, "AUTH PLAIN INJECTED", "AUTH LOGIN", base64.StdEncoding.EncodeToString([]byte(forged)), encoded,
		"", " ", "\x00", "\xff\xfe", "USER", "USER ", "PASS ", "RETR 1", "DELE -1",
	} {
		d.oneReply(line)
	}
	// Bounds of a session with only errors are elsewhere; after login:
	d = s.talk(t, "pop3s").logIn("alice")
	for _, line := range []string{
		"RETR INJECTED", "RETR 1\r+OK INJECTED", "TOP 1 -1", "TOP 1 99999999999999999999", "LIST 0", "UIDL -1", "UIDL 1\x00",
		"DELE 1 INJECTED", "DELE 18446744073709551617", "DELE 4294967297", "NOOP INJECTED", "QUIT INJECTED", "XTND INJECTED", forged,
	} {
		d.oneReply(line)
	}
	d.want("QUIT", "+OK")
	for line := range strings.Lines(s.log.text()) {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("a line of the log was forged: %q", line)
		}
	}
}

// TestAttackContent: no message ends its own answer.
func TestAttackContent(t *testing.T) {
	s := newServer(t, serverOptions{})
	const head = "Subject: x\r+OK forged\r\n\r\n"
	for _, body := range []string{
		".\r\n+OK forged\r\n", "\n.\n+OK forged\n", "\r.\r+OK forged\r", "\r\n.\r\n.\r\n+OK forged\r\n.\r\n", ".", "..\n.\n", "\r\r\n.\r\r\n+OK forged\r\n",
		"\x00.\r\n", ".\x00\r\n+OK forged\r\n", "\u2028.\u2028+OK forged\u2028", strings.Repeat(".\n", 20000),
	} {
		text := head + body
		restante(t, s.config, text, "mailbox", "deliver", "alice@"+testDomain)
		d := s.talk(t, "pop3s").logIn("alice")
		size := strings.Fields(d.want("LIST 1", "+OK 1 "))[2]
		for _, command := range []string{"RETR 1", "TOP 1 1000000"} {
			d.want(command, "+OK")
			if got := d.multiline(); fmt.Sprint(len(got)) != size || !bytes.Equal(got, wireForm([]byte(text))) {
				t.Errorf("%s of %.60q is %.80q, %s octets announced", command, text, got, size)
			}
		}
		d.want("DELE 1", "+OK") // the next answer is to the next command
		d.want("NOOP", "+OK")
		d.want("QUIT", "+OK 1 message removed")
	}
}

// TestAttackLines: lines that are too long are refused, and one without end ends the
// connection, in each state.
func TestAttackLines(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: stays\r\n\r\nx\r\n"), "alice@"+testDomain)
	states := map[string]func() *caller{
		"before the login": func() *caller { return s.talk(t, "pop3") },
		"in an exchange": func() *caller {
			d := s.talk(t, "pop3s")
			d.want("AUTH PLAIN", "+ ")
			return d
		},
		"logged in": func() *caller {
			d := s.talk(t, "pop3s").logIn("alice")
			d.want("DELE 1", "+OK")
			return d
		},
	}
	for state, reach := range states {
		d := reach()
		d.want(strings.Repeat("A", 20_000), "-ERR line too long")
		d.want("CAPA", "+OK") // an exchange has ended, a session goes on
		d.multiline()
		d.conn.Close()

		d = reach()
		sent := 0
		for ; sent < 4<<20; sent += 4096 {
			if _, err := io.WriteString(d.conn, strings.Repeat("A", 4096)); err != nil {
				break
			}
		}
		if sent >= 4<<20 {
			t.Errorf("%s: a line of %d octets was read", state, sent)
		}
		s.keeps(t, "alice", 1)
	}
	eventually(t, "the log tells of endless lines", func() bool {
		return len(s.log.find("connection closed", map[string]any{"reason": "line too long"})) == len(states)
	})

	// The longest that is taken, and one more.
	d := s.talk(t, "pop3s")
	d.want("USER "+strings.Repeat("a", 255-len("USER \r\n")), "+OK")
	d.want("USER "+strings.Repeat("a", 256-len("USER \r\n")), "-ERR line too long")
	d.want("AUTH PLAIN", "+ ")
	d.want(strings.Repeat("A", 12<<10), "-ERR")
	d.want("AUTH LOGIN", "+ ")
	d.want(strings.Repeat("QUFB", 3<<10), "+ ") // 9 KiB of a name
	d.want(strings.Repeat("QUFB", 3<<10), "-ERR [AUTH] wrong user name or password")
	d.want("QUIT", "+OK")
	for _, r := range s.log.find("login failed", nil) {
		if name, _ := r["user"].(string); len(name) > 255 {
			t.Errorf("a name of %d octets is in the log", len(name))
		}
	}
}

// TestAttackBeforeLogin: before a login commands are counted, all kinds together, and
// browsers are let go at once.
func TestAttackBeforeLogin(t *testing.T) {
	s := newServer(t, serverOptions{})
	for _, command := range []string{"CAPA", "UTF8", "LANG", "USER x", "AUTH"} {
		d := s.talk(t, "pop3s")
		d.write(strings.Repeat(command+"\r\n", 60))
		said, err := io.ReadAll(d.lines)
		if err != nil || !bytes.HasSuffix(said, []byte("-ERR too many commands without a login, closing the connection\r\n")) {
			t.Errorf("60 times %s: %v, %.200q", command, err, said)
		}
		if n := bytes.Count(said, []byte("+OK")); n != 50 {
			t.Errorf("%s was answered %d times", command, n)
		}
	}
	for _, verb := range []string{
		"GET / HTTP/1.1", "POST / HTTP/1.1", "HEAD / HTTP/1.0", "OPTIONS * HTTP/1.1", "CONNECT mail:25 HTTP/1.1", "PRI * HTTP/2.0", "get / HTTP/1.1",
	} {
		d := s.talk(t, "pop3")
		d.write(verb + "\r\nHost: x\r\n\r\nUSER alice@" + testDomain + "\r\nPASS " + testPassword + "\r\n")
		d.want("", "-ERR this is a mail server")
		d.ended()
	}
	s.keeps(t, "alice", 0)
}
