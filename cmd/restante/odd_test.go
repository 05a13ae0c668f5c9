package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// TestOddPasswords: what people choose works in each way to log in, however their
// program writes an accent.
func TestOddPasswords(t *testing.T) {
	s := newServer(t, serverOptions{})
	for _, c := range []struct{ set, given string }{
		{"two  spaces", "two  spaces"},
		{" leading", " leading"},
		{"trailing ", "trailing "},
		{"pässwört ✉", "pässwört ✉"},
		{"p\u00e4sswort", "pa\u0308sswort"}, // one letter, or a letter and its dots
		{"pa\u0308sswort", "p\u00e4sswort"},
		{`"quoted" \ back`, `"quoted" \ back`},
		{"=", "="},
	} {
		restante(t, s.config, c.set+"\n", "user", "passwd", "alice@"+testDomain, "--password-stdin")
		plain := base64.StdEncoding.EncodeToString([]byte("\x00alice@" + testDomain + "\x00" + c.given))
		for _, login := range []string{"USER alice@" + testDomain + "\r\nPASS " + c.given, "AUTH PLAIN " + plain} {
			d := s.talk(t, "pop3s")
			d.write(login + "\r\nSTAT\r\nQUIT\r\n") // all at once, as some do
			if strings.HasPrefix(login, "USER") {
				d.want("", "+OK")
			}
			for _, what := range []string{"login", "STAT", "QUIT"} {
				if line := d.line(); !strings.HasPrefix(line, "+OK") {
					t.Errorf("%q for %q, %.9s: %s: %s", c.given, c.set, login, what, line)
				}
			}
		}
		d := s.talk(t, "pop3s")
		d.want("USER alice@"+testDomain, "+OK")
		d.want("PASS "+strings.ToUpper(c.given)+"x", "-ERR [AUTH]")
	}
}

// TestNUL: octets that no program should send are kept.
func TestNUL(t *testing.T) {
	s := newServer(t, serverOptions{})
	message := []byte("Subject: x\x00y\r\n\r\n\x00\r\n\x00.\x00\r\n")
	s.deliver(t, message, "alice@"+testDomain)
	d := s.talk(t, "pop3s").logIn("alice")
	size := strings.Fields(d.want("LIST 1", "+OK 1 "))[2]
	d.want("TOP 1 99", "+OK")
	whole := d.multiline()
	d.want("RETR 1", "+OK")
	sameOctets(t, d.multiline(), whole)
	if fmt.Sprint(len(whole)) != size || !bytes.HasSuffix(whole, message) {
		t.Errorf("%s octets announced, %d came: %q", size, len(whole), whole)
	}
}
