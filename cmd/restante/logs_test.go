package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"
)

// one finds the only record with this message and these attributes.
func (l *serverLog) one(t *testing.T, msg string, attrs map[string]any) map[string]any {
	t.Helper()
	eventually(t, fmt.Sprintf("a line %q %v", msg, attrs), func() bool { return len(l.find(msg, attrs)) > 0 })
	found := l.find(msg, attrs)
	if len(found) != 1 {
		t.Fatalf("%d lines %q %v", len(found), msg, attrs)
	}
	return found[0]
}

// has expects attributes that are there and not empty.
func has(t *testing.T, record map[string]any, names ...string) {
	t.Helper()
	for _, name := range names {
		if value, ok := record[name]; !ok || value == "" {
			t.Errorf("%q is missing in %v", name, record)
		}
	}
}

// TestLogsMessage follows one message through the log, the reply, its header
// and the name of its file.
func TestLogsMessage(t *testing.T) {
	s := newServer(t, serverOptions{})
	d := s.talk(t, "smtp")
	d.secure(s.clientTLS())
	d.envelope("Alice+Detail@"+testDomain, "bob@"+testDomain)
	d.write("Subject: x\r\n\r\nbody\r\n")
	id := strings.TrimPrefix(d.want(".", "250 2.0.0 OK "), "250 2.0.0 OK ")
	d.want("QUIT", "221 ")
	d.ended()

	r := s.log.one(t, "message accepted", map[string]any{"id": id})
	has(t, r, "time", "level", "session", "remote", "helo", "duration")
	for name, want := range map[string]string{
		"from": "sender@client.example", "to": "alice+detail@example.org bob@example.org", "tls": "TLS 1.3", "helo": "client.example",
	} {
		if got := fmt.Sprint(r[name]); got != want {
			t.Errorf("%s is %q in the log, want %q", name, got, want)
		}
	}
	files := append(s.files("alice"), s.files("bob")...)
	if len(files) != 2 {
		t.Fatalf("%d files for two recipients", len(files))
	}
	for _, file := range files {
		if part := strings.Split(filepath.Base(file), "."); len(part) < 3 || part[1] != id {
			t.Errorf("%s does not have the id %s", filepath.Base(file), id)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^Received: .*(\n\t.*)*\n\tid ` + id + "[ ;]").Match(text) {
			t.Errorf("the id %s is not in the Received header of\n%s", id, text)
		}
		if got := fmt.Sprint(r["size"]); got != fmt.Sprint(len(text)) {
			t.Errorf("size %s in the log, %d octets on disk", got, len(text))
		}
	}
	session := map[string]any{"session": r["session"]}
	has(t, s.log.one(t, "connection opened", session), "remote")
	has(t, s.log.one(t, "connection closed", session), "remote", "messages", "errors", "refused", "tls", "duration")
}

// TestLogsRefusedRecipient: who was refused, why, and in which session.
func TestLogsRefusedRecipient(t *testing.T) {
	s := newServer(t, serverOptions{})
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	d.want("MAIL FROM:<sender@client.example>", "250")
	sessions := map[any]bool{}
	for recipient, answer := range map[string]string{
		"nobody@" + testDomain: "550 5.1.1 ",
		"alice@example.com":    "550 5.7.1 ",
	} {
		d.want("RCPT TO:<"+recipient+">", answer)
		r := s.log.one(t, "recipient refused", map[string]any{"to": recipient})
		has(t, r, "session", "remote", "error")
		sessions[r["session"]] = true
		if reply := fmt.Sprint(r["reply"]); !strings.HasPrefix(reply, answer) {
			t.Errorf("reply %q in the log, want %q...", reply, answer)
		}
		if from := r["from"]; from != "sender@client.example" {
			t.Errorf("from %q in the log", from)
		}
	}
	if len(sessions) != 1 {
		t.Errorf("one connection is the sessions %v", sessions)
	}
}

// TestLogsPOP3 follows logins and the summary of sessions.
func TestLogsPOP3(t *testing.T) {
	s := newServer(t, serverOptions{})
	for range 3 {
		s.deliver(t, []byte("Subject: x\r\n\r\n"), "alice@"+testDomain)
	}
	d := s.talk(t, "pop3s")
	d.want("USER nobody@"+testDomain, "+OK")
	d.want("PASS wrong", "-ERR [AUTH] ")
	failed := s.log.one(t, "login failed", map[string]any{"user": "nobody@" + testDomain})
	has(t, failed, "session", "remote", "tls", "reason", "mechanism")
	if reason := fmt.Sprint(failed["reason"]); !strings.HasSuffix(reason, ": no such user") {
		t.Errorf("the reason is %q", reason)
	}
	if failed["level"] != "WARN" {
		t.Errorf("a failed login has level %v", failed["level"])
	}
	d.logIn("alice")
	session := map[string]any{"session": failed["session"]}
	login := s.log.one(t, "login", session)
	has(t, login, "remote", "user", "mailbox", "mechanism", "tls", "messages")
	d.want("RETR 1", "+OK")
	d.multiline()
	d.want("RETR 2", "+OK")
	d.multiline()
	d.want("DELE 1", "+OK")
	d.want("QUIT", "+OK")
	d.ended()
	closed := s.log.one(t, "connection closed", session)
	has(t, closed, "remote", "reason", "tls", "mailbox", "octets", "duration")
	for name, want := range map[string]string{"retrieved": "2", "deleted": "1", "left": "2", "reason": "quit"} {
		if got := fmt.Sprint(closed[name]); got != want {
			t.Errorf("%s is %q in the summary, want %q", name, got, want)
		}
	}

	lost := s.talk(t, "pop3s").logIn("alice")
	lost.want("DELE 1", "+OK")
	lost.conn.Close()
	closed = s.log.one(t, "connection closed", map[string]any{"reason": "connection lost"})
	for name, want := range map[string]string{"deleted": "0", "left": "2", "mailbox": "alice@" + testDomain} {
		if got := fmt.Sprint(closed[name]); got != want {
			t.Errorf("%s is %q in the summary of a lost connection, want %q", name, got, want)
		}
	}
}

// TestLogsOneName: both protocols call the same thing by the same name, with
// the same kind of value, so that one filter finds everything.
func TestLogsOneName(t *testing.T) {
	s := newServer(t, serverOptions{})
	d := s.talk(t, "smtp")
	d.secure(s.clientTLS())
	d.want("QUIT", "")
	s.fetchAll(t, "alice")
	smtp := s.log.one(t, "connection closed", map[string]any{"protocol": "smtp"})
	pop3 := s.log.one(t, "connection closed", map[string]any{"protocol": "pop3"})
	for _, name := range []string{"session", "remote", "tls", "duration"} {
		if a, b := fmt.Sprintf("%T", smtp[name]), fmt.Sprintf("%T", pop3[name]); a != b {
			t.Errorf("%s is %v from SMTP and %v from POP3", name, smtp[name], pop3[name])
		}
	}
	if a, b := fmt.Sprint(smtp["remote"]), fmt.Sprint(pop3["remote"]); strings.Count(a, ":") != strings.Count(b, ":") {
		t.Errorf("remote is %q from SMTP and %q from POP3", a, b)
	}
}

// TestLogsNoSecrets: whatever the way of a login and the level of the log, no
// password and nothing of a message gets into it, and each line about a client
// has its session.
func TestLogsNoSecrets(t *testing.T) {
	s := newServer(t, serverOptions{settings: allowPlaintext, env: []string{"RESTANTE_LOG_LEVEL=debug"}})
	const wrong, header, body = "Wrong-Secret-7f3a", "Header-Secret-7f3a", "Body-Secret-7f3a"
	base64Of := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	alice := "alice@" + testDomain
	s.deliver(t, []byte("Subject: "+header+"\r\nX-"+header+": 1\r\n\r\n"+body+"\r\n"), alice)
	for _, password := range []string{wrong, testPassword} {
		d := s.talk(t, "pop3")
		d.want("USER "+alice, "+OK")
		d.ask("PASS " + password)
		d.ask("QUIT")
		d = s.talk(t, "pop3")
		d.ask("AUTH PLAIN " + base64Of("\x00"+alice+"\x00"+password))
		d.ask("QUIT")
		d = s.talk(t, "pop3")
		d.want("AUTH LOGIN", "+ ")
		d.want(base64Of(alice), "+ ")
		d.ask(base64Of(password))
		d.ask("RETR 1")
		d.conn.Close()
		d = s.talk(t, "pop3")
		d.want("PASS "+password, "-ERR") // out of order
		d.want("PAS "+password, "-ERR")  // unknown
		d.want("AUTH X-UNKNOWN "+base64Of(password), "-ERR")
		d.want("AUTH PLAIN "+base64Of(password), "-ERR") // malformed
		d.ask("QUIT")
		m := s.talk(t, "smtp")
		m.want("EHLO client.example", "250")
		m.want("AUTH PLAIN "+base64Of("\x00"+alice+"\x00"+password), "50")
		m.want("QUIT", "221")
	}
	// A message that is refused and one that is cut off.
	d := s.talk(t, "smtp").envelope(alice)
	d.write(strings.Repeat("Received: from "+header+"\r\n", 60) + "\r\n" + body + "\r\n")
	d.want(".", "554 5.4.6 ")
	d.want("QUIT", "221")
	d = s.talk(t, "smtp").envelope(alice)
	d.write("Subject: " + header + "\r\n\r\n" + body)
	d.conn.Close()
	eventually(t, "the lost connections are in the log", func() bool {
		return len(s.log.find("connection closed", map[string]any{"protocol": "smtp"})) == 5 &&
			len(s.log.find("connection closed", map[string]any{"protocol": "pop3"})) == 8
	})
	s.stop(syscall.SIGTERM)

	text := s.log.text()
	for _, secret := range []string{wrong, testPassword, header, body} {
		for _, form := range []string{secret, base64Of(secret), base64Of("\x00" + alice + "\x00" + secret)} {
			if strings.Contains(text, form) {
				t.Errorf("%q is in the log", form)
			}
		}
	}
	own := []string{"checkpoint", "listening", "stopping", "stopped", "serving as root, as the settings say", "landlock in force"}
	for line := range strings.Lines(text) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		if msg, _ := r["msg"].(string); !slices.Contains(own, msg) {
			has(t, r, "session")
		}
	}
}

// TestLogsEscape puts control characters wherever a client may write text.
func TestLogsEscape(t *testing.T) {
	const (
		escape  = "\x1b[2J\x1b]0;x\x07"
		control = "\x01\x08\x7f"
		wide    = "\u0085\u009b\u2028"
		invalid = "\xff\x9b"
	)
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			s := prepareServer(t, serverOptions{})
			s.startAny(t, "RESTANTE_LOG_FORMAT="+format, "RESTANTE_LOG_LEVEL=debug")
			for _, evil := range []string{escape, control, wide, invalid, "\rlevel=ERROR msg=forged", "x\nlevel=ERROR msg=forged"} {
				d := s.talk(t, "smtp")
				for _, command := range []string{"HELO " + evil, "EHLO " + evil + ".example", "EHLO client.example",
					"MAIL FROM:<" + evil + "@client.example>", `MAIL FROM:<"` + evil + `"@client.example> SMTPUTF8`, "RSET",
					"MAIL FROM:<sender@client.example> SMTPUTF8", "RCPT TO:<" + evil + "@" + testDomain + ">",
					`RCPT TO:<"` + evil + `"@` + testDomain + ">", "RCPT TO:<alice@" + evil + ">", evil} {
					d.ask(command)
				}
				d.ask("QUIT")
				p := s.talk(t, "pop3s")
				p.ask("USER " + strings.ReplaceAll(evil, "\n", "")) // LF ends a command of POP3
				p.ask("PASS wrong")
				p.ask("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+evil+"\x00wrong")))
				p.ask("QUIT")
			}
			s.stop(syscall.SIGTERM)
			text := s.log.text()
			if n := strings.Count(text, "login failed"); n != 12 {
				t.Errorf("%d failed logins of 12 are in the log", n)
			}
			for line := range strings.Lines(text) {
				line = strings.TrimSuffix(line, "\n")
				if !strings.HasPrefix(line, "time=") && !strings.HasPrefix(line, `{"time":`) {
					t.Errorf("not a line of the server: %q", line)
				}
				if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
					t.Errorf("not escaped: %q", line)
				}
			}
		})
	}
}

// startAny is start for either format of the log.
func (s *testServer) startAny(t *testing.T, env ...string) {
	t.Helper()
	s.log, s.exited = serverLog{}, make(chan struct{})
	s.cmd = exec.Command("restante", "--config", s.config, "serve")
	s.cmd.Env = append(serveEnv(s.config), env...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.log.follow(stderr)
		_ = s.cmd.Wait() // its status is read from ProcessState
		close(s.exited)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.exited
	})
	listening := regexp.MustCompile(`protocol\W+(smtp|pop3|pop3s)\W+address\W+(127\.0\.0\.1:\d+)`)
	var found [][]string
	eventually(t, "the server listens on its three ports", func() bool {
		found = listening.FindAllStringSubmatch(s.log.text(), -1)
		return len(found) == 3
	})
	for _, f := range found {
		switch f[1] {
		case "smtp":
			s.smtp = f[2]
		case "pop3":
			s.pop3 = f[2]
		case "pop3s":
			s.pop3s = f[2]
		}
	}
}
