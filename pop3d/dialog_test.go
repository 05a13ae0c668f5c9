package pop3d

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The dialogs in testdata are played twice: on the session alone and over a
// loopback socket. Lines after ">" are sent, lines after "<" are the whole
// reply, and lines after "=" prepare or check what is around.

var dialogMessages = []string{
	"From: bea@example.org\r\nSubject: one\r\n\r\nHello,\r\n.dot\r\n..\r\n",
	"Subject: two\r\n\r\n",
	"no header\r\n\r\n1\r\n2\r\n33\r\n",
}

var dialogWords = strings.NewReplacer(
	"$USER64", base64.StdEncoding.EncodeToString([]byte(testUser)),
	"$PASS64", base64.StdEncoding.EncodeToString([]byte(testPassword)),
	"$USER", testUser, "$PASS", testPassword, "$PLAIN", testPlain,
	`\0`, "\x00", `\s`, " ",
)

// party is the server as a dialog meets it.
type party interface {
	greeting(t *testing.T) string
	send(t *testing.T, line string, replyLines int) string
	handshake(t *testing.T)
	closed(t *testing.T) bool
}

func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name+"/session", func(t *testing.T) { playDialog(t, string(text), newSessionParty) })
		t.Run(name+"/socket", func(t *testing.T) { playDialog(t, string(text), newSocketParty) })
	}
}

func playDialog(t *testing.T, text string, meet func(*testing.T, Config, *fakeMail) party) {
	mail := newFakeMail(dialogMessages...)
	mail.messages = append([]string(nil), dialogMessages...)
	c := Config{Hostname: "mail.example.org"}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		configureDialog(t, &c, line)
	}
	p := meet(t, c, mail)
	if got, want := p.greeting(t), "+OK mail.example.org POP3 server ready\r\n"; got != want {
		t.Fatalf("greeting %q", got)
	}
	for i, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case ">":
			want, n := expected(lines[i+1:])
			if got := p.send(t, dialogWords.Replace(rest), n); got != want {
				t.Fatalf("line %d: %s\ngot  %q\nwant %q", i+1, line, got, want)
			}
		case "=":
			directDialog(t, p, mail, rest)
		case "<", "#", "":
		default:
			t.Fatalf("line %d: %q", i+1, line)
		}
	}
}

// expected collects the reply at the head of lines.
func expected(lines []string) (reply string, n int) {
	for _, line := range lines {
		if line != "<" && !strings.HasPrefix(line, "< ") {
			break
		}
		reply += dialogWords.Replace(strings.TrimPrefix(strings.TrimPrefix(line, "<"), " ")) + "\r\n"
		n++
	}
	return reply, n
}

// configureDialog does what must be done before the greeting.
func configureDialog(t *testing.T, c *Config, line string) {
	switch {
	case line == "= plaintext":
		c.AllowPlaintext = everywhere
	case line == "= tls":
		c.TLS = testTLS(t)
	case strings.HasPrefix(line, "= errors "):
		c.MaxErrors = atoi(t, strings.TrimPrefix(line, "= errors "))
	}
}

func directDialog(t *testing.T, p party, mail *fakeMail, directive string) {
	verb, rest, _ := strings.Cut(directive, " ")
	failure := map[string]error{"fails": errors.New("disk on fire"), "works": nil}[rest]
	switch verb {
	case "plaintext", "tls", "errors":
	case "login":
		if got := p.send(t, "AUTH PLAIN "+testPlain, 1); !strings.HasPrefix(got, "+OK") {
			t.Fatalf("login: %q", got)
		}
	case "handshake":
		p.handshake(t)
	case "closed":
		eventually(t, "closed", func() bool { return p.closed(t) })
	case "locked":
		if locked := mail.isLocked(); locked != (rest == "yes") {
			t.Fatalf("locked: %t", locked)
		}
	case "left":
		var want []string
		for field := range strings.FieldsSeq(rest) {
			want = append(want, dialogMessages[atoi(t, field)-1])
		}
		if got := mail.left(); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("left %q, want %q", got, want)
		}
	default:
		mail.mu.Lock()
		defer mail.mu.Unlock()
		switch verb {
		case "auth":
			mail.authErr = failure
		case "open":
			mail.openErr = failure
		case "remove":
			mail.removeErr = failure
		case "lock", "unlock":
			mail.locked = verb == "lock"
		case "vanish":
			mail.vanished[atoi(t, rest)-1] = true
		case "keeps":
			mail.keeps = atoi(t, rest)
		case "dead":
			mail.dead = true
		default:
			t.Fatalf("unknown directive %q", directive)
		}
	}
}

func atoi(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sessionParty is a session without a socket.
type sessionParty struct{ *player }

func newSessionParty(_ *testing.T, c Config, mail *fakeMail) party {
	return sessionParty{newPlayer(c, mail)}
}

func (p sessionParty) greeting(t *testing.T) string {
	text, err := p.render(p.session.greeting())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (p sessionParty) send(t *testing.T, line string, _ int) string { return p.must(t, line) }

func (p sessionParty) handshake(t *testing.T) {
	if p.state != negotiation {
		t.Fatalf("state %d", p.state)
	}
	p.secured()
}

func (p sessionParty) closed(*testing.T) bool { return p.state == closed }

// socketParty is a server on loopback, seen by a client.
type socketParty struct{ *client }

func newSocketParty(t *testing.T, c Config, mail *fakeMail) party {
	return socketParty{dial(t, serve(t, c, mail))}
}

func (p socketParty) greeting(t *testing.T) string { return p.lines(t, 1) }

func (p socketParty) send(t *testing.T, line string, n int) string {
	p.write(t, line+"\r\n")
	return p.lines(t, n)
}

func (p socketParty) handshake(t *testing.T) { p.startTLS(t) }

func (p socketParty) closed(*testing.T) bool {
	_, err := p.r.ReadByte()
	return errors.Is(err, io.EOF)
}

// client is a client over a socket.
type client struct {
	c net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newClient(c)
}

func newClient(c net.Conn) *client { return &client{c, bufio.NewReader(c)} }

func (c *client) startTLS(t testing.TB) {
	t.Helper()
	secure := tls.Client(c.c, &tls.Config{InsecureSkipVerify: true})
	if err := secure.HandshakeContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.c, c.r = secure, bufio.NewReader(secure)
}

func (c *client) write(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c.c, text); err != nil {
		t.Fatal(err)
	}
}

// lines reads n lines as they come.
func (c *client) lines(t testing.TB, n int) string {
	t.Helper()
	var text strings.Builder
	for range n {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%q after %q: %v", line, text.String(), err)
		}
		text.WriteString(line)
	}
	return text.String()
}

// logIn reads the greeting and logs in.
func (c *client) logIn(t testing.TB) {
	t.Helper()
	c.lines(t, 1)
	c.write(t, "AUTH PLAIN "+testPlain+"\r\n")
	if got := c.lines(t, 1); !strings.Contains(got, "maildrop has") {
		t.Fatalf("login: %q", got)
	}
}
