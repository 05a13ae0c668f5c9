package smtpd

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// yes is a session that takes everything.
type yes struct{}

func (yes) Reset()                                      {}
func (yes) Logout() error                               { return nil }
func (yes) Mail(from string, _ *smtp.MailOptions) error { return nil }
func (yes) Rcpt(to string, _ *smtp.RcptOptions) error   { return nil }

func (yes) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return accepted("id").smtp()
}

// boom is a session that panics.
type boom struct{ yes }

func (boom) Mail(string, *smtp.MailOptions) error { panic("boom") }

// steps drive go-smtp, set up as the server does it, through every branch
// that a line from the wire can reach. Each has the line that comes back.
var steps = []struct{ send, reply string }{
	{"", "220 x ESMTP Service Ready"},
	{"HELO x", "250 2.0.0 Hello x"},
	{"RCPT TO:<x@x>", "502 5.5.1 Missing MAIL FROM command."},
	{"DATA", "502 5.5.1 Missing RCPT TO command."},
	{"NOOP", "250 2.0.0 I have successfully done nothing"},
	{"VRFY x", "252 2.5.0 Cannot VRFY user, but will accept message"},
	{"RSET", "250 2.0.0 Session reset"},
	{"MAIL FROM:<x@x> SIZE=1=2", "501 5.5.4 Unable to parse MAIL ESMTP parameters"},
	{"MAIL FROM:<x@x> SIZE=a", "501 5.5.4 Unable to parse SIZE as an integer"},
	{"MAIL FROM:<x@x> BODY=PDF", "501 5.5.4 Unknown BODY value"},
	{"MAIL FROM:<x@x> BODY=BINARYMIME", "504 5.5.4 BINARYMIME is not implemented"},
	{"MAIL FROM:<x@x> REQUIRETLS", "504 5.5.4 REQUIRETLS is not implemented"},
	{"MAIL FROM:<x@x> RET=FULL", "504 5.5.4 RET is not implemented"},
	{"MAIL FROM:<x@x> ENVID=a", "504 5.5.4 ENVID is not implemented"},
	{"MAIL FROM:<x@x> AUTH=", "500 5.5.4 Malformed AUTH parameter value"},
	{"MAIL FROM:<x@x> AUTH=a@b", "250 2.0.0 Roger, accepting mail from <x@x>"},
	{"RSET", "250 2.0.0 Session reset"},
	{"MAIL FROM:<x@x> AUTH=a", "500 5.5.4 Malformed AUTH parameter mailbox"},
	{"MAIL FROM:<x@x> X", "500 5.5.4 Unknown MAIL FROM argument"},
	{"MAIL FROM:<x@x> SIZE=4294967295 BODY=8BITMIME SMTPUTF8", "250 2.0.0 Roger, accepting mail from <x@x>"},
	{"RCPT TO:<x@x> A=1=2", "501 5.5.4 Unable to parse RCPT ESMTP parameters"},
	{"RCPT TO:<x@x> NOTIFY=NEVER", "504 5.5.4 NOTIFY is not implemented"},
	{"RCPT TO:<x@x> ORCPT=rfc822;a", "504 5.5.4 ORCPT is not implemented"},
	{"RCPT TO:<x@x> RRVS=a", "504 5.5.4 RRVS is not implemented"},
	{"RCPT TO:<x@x> BY=1", "504 5.5.4 DELIVERBY is not implemented"},
	{"RCPT TO:<x@x> MT-PRIORITY=1", "504 5.5.4 MT-PRIORITY is not implemented"},
	{"RCPT TO:<x@x> X", "500 5.5.4 Unknown RCPT TO argument"},
	{"RCPT TO:<x@x>", "250 2.0.0 I'll make sure <x@x> gets this"},
	{"DATA", "354 Go ahead. End your data with <CR><LF>.<CR><LF>"},
	{".", "250 2.0.0 OK id"},
	{"EHLO x", "250 SIZE"},
	{"QUIT", "221 2.0.0 Bye"},
}

// talk plays steps to go-smtp and gives all lines it ends a reply with.
func talk(t *testing.T, session smtp.Session, steps []struct{ send, reply string }) map[string]bool {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	backend := func(*smtp.Conn) (smtp.Session, error) { return session, nil }
	go newLibrary(backend, slog.New(slog.DiscardHandler)).Serve(&once{conn: far})
	seen := make(map[string]bool)
	c := &client{t: t, Conn: near}
	for _, step := range steps {
		if step.send != "" {
			c.send(step.send + "\r\n")
		}
		got := c.line()
		for got != "" && got[3] == '-' {
			got = c.line()
		}
		if got != step.reply {
			t.Errorf("%q: go-smtp says %q, not %q", step.send, got, step.reply)
		}
		seen[got] = true
	}
	return seen
}

// TestLibrary pins the texts of go-smtp that replies are translated from.
func TestLibrary(t *testing.T) {
	seen := talk(t, yes{}, steps)
	for line := range talk(t, boom{}, []struct{ send, reply string }{
		{"", "220 x ESMTP Service Ready"},
		{"HELO x", "250 2.0.0 Hello x"},
		{"MAIL FROM:<x@x>", "421 4.0.0 Internal server error"},
	}) {
		seen[line] = true
	}
	for text := range library {
		if !seen[text] {
			t.Errorf("go-smtp never says %q", text)
		}
		delete(seen, text)
	}
	for _, own := range []string{"220 x ESMTP Service Ready", "250 2.0.0 Hello x", "250 SIZE", accepted("id").line()} {
		delete(seen, own)
	}
	for text := range seen {
		t.Errorf("no translation for %q", text)
	}
}

// TestPassedOn has the commands that are passed on meet lines that the steps
// above have.
func TestPassedOn(t *testing.T) {
	known := make(map[string]bool)
	for _, step := range steps {
		known[step.send+"\r\n"] = true
	}
	for verb, arg := range map[string]string{"EHLO": "a.example", "HELO": "a.example", "MAIL": "FROM:<a@b.example>  BODY=PDF",
		"RCPT": "TO:<a@b.example> X", "DATA": "", "RSET": "", "QUIT": "", "NOOP": "a", "VRFY": "a"} {
		w := &wire{helo: "x", config: Config{}.withDefaults()}
		if line := commands[verb](w, arg); !known[strings.ReplaceAll(line, "  ", " ")] {
			t.Errorf("%s %s: passes on %q", verb, arg, line)
		}
	}
}
