package main

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// traced are the lines of a trace, "client: USER alice".
func traced(s *testServer) (lines []string) {
	for _, r := range s.log.find("trace", nil) {
		lines = append(lines, r["from"].(string)+": "+r["line"].(string))
	}
	return lines
}

// TestTrace follows a user's dialogs, and shows neither passwords nor mail.
func TestTrace(t *testing.T) {
	const secret = "a-secret-of-the-body"
	s := newServer(t, serverOptions{env: []string{"RESTANTE_LOG_LEVEL=debug", "RESTANTE_LOG_TRACE=Alice@example.org"}})
	s.log.one(t, "dialogs are logged", map[string]any{"of": "alice@example.org"})
	s.deliver(t, []byte("Subject: "+secret+"\r\n\r\n"+secret+"\r\n"), "bob@"+testDomain)
	if lines := traced(s); len(lines) != 0 {
		t.Errorf("bob is traced: %q", lines)
	}
	s.deliver(t, []byte("Subject: "+secret+"\r\n\r\n"+secret+"\r\n"), "alice@"+testDomain)

	d := s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	d.want("PASS "+testPassword, "+OK")
	d.want("RETR 1", "+OK")
	d.multiline()
	d.want("QUIT", "+OK")
	d = s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	d.want("pas "+testPassword, "-ERR") // a slip
	d.want("AUTH NONSENSE", "-ERR")
	d.want(base64.StdEncoding.EncodeToString([]byte(testPassword)), "-ERR")
	d.want("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00alice@"+testDomain+"\x00"+testPassword)), "+OK")
	d.want("QUIT", "+OK")
	d = s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	d.want("AUTH LOGIN", "+")
	d.want(base64.StdEncoding.EncodeToString([]byte("alice@"+testDomain)), "+")
	d.want(base64.StdEncoding.EncodeToString([]byte(testPassword)), "+OK")
	d.want("QUIT", "+OK")
	eventually(t, "the last line is in the log", func() bool {
		lines := traced(s)
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, "client: QUIT") {
				n++
			}
		}
		return n == 4
	})
	lines := traced(s)
	for _, want := range []string{
		"client: RCPT TO:<alice@example.org>", "server: 250 2.1.5 Recipient OK", "client: DATA",
		"client: (from here on: alice@example.org)", "client: PASS (hidden)", "client: RETR 1", "client: (hidden)",
		"client: AUTH PLAIN (hidden)", "client: AUTH LOGIN", "server: + (hidden)", "client: QUIT",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in the trace", want)
		}
	}
	for _, hidden := range []string{testPassword, secret, base64.StdEncoding.EncodeToString([]byte(testPassword))} {
		if strings.Contains(s.log.text(), hidden) {
			t.Errorf("%q is in the log", hidden)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(lines, "\n"))
	}
}

// TestTraceOfAddress has all of a client's dialogs, at level debug only.
func TestTraceOfAddress(t *testing.T) {
	for _, level := range []string{"debug", "info"} {
		s := newServer(t, serverOptions{env: []string{"RESTANTE_LOG_LEVEL=" + level, "RESTANTE_LOG_TRACE=127.0.0.0/8"}})
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250")
		d.want("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "5")
		d.want("AGFsaWNlAHNlY3JldA==", "5")
		d.want("QUIT", "221")
		s.log.one(t, "connection closed", nil)
		lines := traced(s)
		if level == "info" {
			if len(lines) != 0 {
				t.Errorf("traced at level info: %q", lines)
			}
			s.log.one(t, "log.trace is of no effect unless log.level is debug", nil)
			continue
		}
		for _, want := range []string{"server: 220 localhost ESMTP ready", "client: EHLO client.example", "server: 250-localhost", "client: AUTH (hidden)", "client: (hidden)", "client: QUIT"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%q is not in the trace %q", want, lines)
			}
		}
		if strings.Contains(s.log.text(), "AGFsaWNlAHNlY3JldA") {
			t.Error("a password is in the log")
		}
	}
}

// TestTraceHides: nothing that a client writes in the wrong place is shown.
func TestTraceHides(t *testing.T) {
	const secret = "hunter2secret"
	response := base64.StdEncoding.EncodeToString([]byte("\x00alice@" + testDomain + "\x00" + testPassword))
	s := newServer(t, serverOptions{env: []string{"RESTANTE_LOG_LEVEL=debug", "RESTANTE_LOG_TRACE=127.0.0.0/8"}})
	d := s.talk(t, "pop3s")
	for _, line := range []string{"AUTH " + response, "AUTH PLAIN\t" + response, "TOP " + secret + " phrase", "NOOP " + secret} {
		d.want(line, "-ERR")
	}
	d.want("USER alice@"+testDomain+" "+secret, "+OK")
	d.want("QUIT", "+OK")
	d = s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	for _, line := range []string{"DATA", "BDAT x " + secret, "Send the money to " + secret, "Mail from: " + secret, "EHLO " + secret + "!"} {
		d.want(line, "50")
	}
	d.want("NOOP "+secret, "250")
	d.want("MAIL FROM:<a@client.example> BODY=8BITMIME "+secret, "5")
	d.want("QUIT", "221")
	eventually(t, "both connections have ended", func() bool { return len(s.log.find("connection closed", nil)) == 2 })
	lines := traced(s)
	for _, want := range []string{
		"client: AUTH (hidden)", "client: AUTH PLAIN (hidden)", "client: TOP (hidden)", "client: USER alice@" + testDomain + " (hidden)",
		"client: BDAT (hidden)", "client: Send (hidden)", "client: Mail (hidden)", "client: EHLO client.example",
		"client: MAIL FROM:<a@client.example> BODY=8BITMIME (hidden)",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in the trace", want)
		}
	}
	for _, line := range lines {
		if strings.Contains(line, secret) || strings.Contains(line, response) {
			t.Errorf("in the trace: %q", line)
		}
	}
}

// TestTraceOfFailedLogins: those are what a trace is made for, also when the name is
// written in another way.
func TestTraceOfFailedLogins(t *testing.T) {
	response := func(user string) string {
		return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00wrong"))
	}
	for _, c := range []struct{ setting, user string }{
		{"alice@" + testDomain, "Alice@" + testDomain},
		{"alice@" + testDomain, "alice"},
		{"a@MÜNCHEN.example", "a@xn--mnchen-3ya.example"},
		{"a@xn--mnchen-3ya.example", "a@münchen.example"},
	} {
		s := newServer(t, serverOptions{env: []string{"RESTANTE_LOG_LEVEL=debug", "RESTANTE_LOG_TRACE=" + c.setting}})
		d := s.talk(t, "pop3s")
		d.want("AUTH PLAIN "+response("somebody@else.example"), "-ERR [AUTH]")
		d.want("AUTH PLAIN "+response(c.user), "-ERR [AUTH]")
		d.want("QUIT", "+OK")
		s.log.one(t, "connection closed", nil)
		want := []string{"client: (from here on: " + c.user + ")", "server: -ERR [AUTH] wrong user name or password", "client: QUIT", "server: +OK bye"}
		if lines := traced(s); !slices.Equal(lines, want) {
			t.Errorf("%s, tracing %s: %q", c.user, c.setting, lines)
		}
	}
}
