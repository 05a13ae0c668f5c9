package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// injections are what somebody between client and server puts behind STARTTLS, in the
// clear, to have it done as if the client had said it under TLS.
func injections() []string {
	const mail = "MAIL FROM:<injected@client.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
	return []string{
		"NOOP\r\n",
		"QUIT\r\n",
		"STARTTLS\r\n",
		"EHLO injected.example\r\n",
		"EHLO injected.example\r\n" + mail,
		"EHLO injected.example\r\n" + mail + "Subject: injected\r\n\r\ninjected\r\n.\r\n",
		"EHLO injected.example\r\n" + mail + "Subject: injected\r\n\r\n", // the client's mail would be its rest
		mail + ".\r\n",
		"RSET\r\nRSET\r\n",
		"EHLO injected.example\r\nBDAT 100000 LAST\r\n",
		"AUTH PLAIN ",
		"NO", // the client's OP would make it whole
		"\r\n", "\n", "\x00", "\xff\xfe",
		"DATA\r\n", "RCPT TO:<bob@example.org>\r\n",
		strings.Repeat("NOOP\r\n", 100),
	}
}

// TestInjectSTARTTLS: nothing that came in the clear is answered or done under TLS,
// and of what was said before, nothing is known there.
func TestInjectSTARTTLS(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	for _, before := range []string{
		"",
		"MAIL FROM:<clear@client.example>\r\nRCPT TO:<bob@example.org>\r\n",
		"NOOP\r\nMAIL FROM:<clear@client.example>\r\n",
	} {
		for _, injected := range injections() {
			d := s.talk(t, "smtp")
			d.want("EHLO clear.example", "250 ")
			d.write(before + "STARTTLS\r\n" + injected)
			for range strings.Count(before, "\r\n") {
				d.want("", "250 ")
			}
			d.want("", "220 ")
			d.silent()
			d.handshake(s.clientTLS())
			d.untouched()
		}
	}
	if n := len(s.fetchAll(t, "bob")); n != 0 {
		t.Errorf("%d messages by injected commands", n)
	}
	for _, message := range s.fetchAll(t, "alice") {
		if text := string(message); !strings.Contains(text, "from tls.example (") || strings.Contains(text, "injected") || strings.Contains(text, "clear") {
			t.Errorf("%q has something from before TLS", text)
		}
	}
}

// silent expects that nothing came behind what was read.
func (d *caller) silent() {
	d.t.Helper()
	if n := d.lines.Buffered(); n > 0 {
		rest, _ := d.lines.Peek(n)
		d.t.Errorf("more answers than commands: %q", rest)
	}
}

// untouched expects a session in which nothing was said yet, and sends a message.
func (d *caller) untouched() {
	d.t.Helper()
	d.want(sentinel, sentinelAnswer)
	for _, command := range []string{"MAIL FROM:<a@b.example>", "RCPT TO:<alice@example.org>", "DATA"} {
		d.want(command, "503 5.5.1 ")
	}
	d.want("EHLO tls.example", "250 SMTPUTF8") // and no STARTTLS
	d.want("STARTTLS", "503 5.5.1 ")
	for _, command := range []string{"RCPT TO:<alice@example.org>", "DATA"} {
		d.want(command, "503 5.5.1 ")
	}
	d.want("MAIL FROM:<sender@client.example>", "250 ")
	d.want("RCPT TO:<alice@example.org>", "250 ")
	d.want("DATA", "354 ")
	d.write("Subject: true\r\n\r\n")
	d.want(".", "250 ")
	d.want("QUIT", "221 ")
}

// TestInjectBetween has the clear text come when the server waits for the handshake
// already: it spoils the handshake, and is no command.
func TestInjectBetween(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	for _, injected := range injections() {
		for _, cut := range []int{0, len(injected) / 2} {
			d := s.talk(t, "smtp")
			d.want("EHLO clear.example", "250")
			d.segments(s, "STARTTLS\r\n"+injected[:cut])
			_, _ = io.WriteString(d.conn, injected[cut:]) // the server may have hung up before its end
			d.want("", "220 ")
			d.silent()
			err := tls.Client(d.conn, s.clientTLS()).Handshake()
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%.40q in the clear: %v", injected, err)
			}
		}
	}
	if n := len(s.files("bob")) + len(s.files("alice")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestInjectNoTLS: after STARTTLS there is TLS or nothing.
func TestInjectNoTLS(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant("RESTANTE_SMTP_HANDSHAKE_TIMEOUT=1s"))
	for _, clear := range []string{"", "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n.\r\n",
		"\x16\x03\x01\x02\x00\x01", "\x15\x03\x01\x00\x02\x02\x28", "\x80\x2e\x01\x00\x02",
		strings.Repeat("NOOP\r\n", 10_000), strings.Repeat("x", 100_000)} {
		d := s.talk(t, "smtp")
		d.want("EHLO clear.example", "250")
		d.want("STARTTLS", "220 ")
		_, _ = io.WriteString(d.conn, clear) // the server may have hung up before its end
		got, err := io.ReadAll(d.lines)
		var reset *net.OpError
		if err != nil && !errors.As(err, &reset) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", clear, err)
		}
		const alert = 0x15
		if len(got) > 0 && got[0] != alert {
			t.Errorf("%q is answered with %q", clear, got)
		}
	}
	if n := len(s.files("bob")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestInjectForms: what looks like STARTTLS and is not is refused in the clear, where
// the dialog goes on.
func TestInjectForms(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	for command, answer := range map[string]string{
		"STARTTLS now": "501 5.5.4 ", "STARTTLS\x00": "500 5.5.2 ", "STARTTLS\rNOOP": "500 5.5.2 ", "STARTTLSNOOP": "500 5.5.1 ", "STARTTL\u017f": "500 5.5.1 ",
		"\ufeffSTARTTLS": "500 5.5.1 ", "START TLS": "500 5.5.1 ", " STARTTLS": "500 5.5.1 ", "STARTTLS\n": "500 5.5.2 ",
	} {
		d.want(command, answer)
		d.want(sentinel, sentinelAnswer)
	}
	d.want("starttls  ", "220 ")
	d.handshake(s.clientTLS())
	d.untouched()
}
