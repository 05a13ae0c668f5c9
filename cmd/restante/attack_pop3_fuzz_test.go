package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fuzzedTalk is one session and what a client knows of it, from the RFCs alone.
type fuzzedTalk struct {
	t        *testing.T
	server   *fuzzedServer
	conn     net.Conn
	in       *bufio.Reader
	hurried  bool // all lines were sent at once
	loggedIn bool
	exchange bool // the next line is a response of AUTH
	over     bool
	last     string // the first line of the last reply
	deleted  []bool
	removed  []bool // by a QUIT that was answered
}

func (s *fuzzedServer) talk(t *testing.T) *fuzzedTalk {
	t.Helper()
	conn, err := net.Dial("tcp", s.pop3Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // a failure must not hold the mailbox
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	k := &fuzzedTalk{t: t, server: s, conn: conn, in: bufio.NewReader(conn),
		deleted: make([]bool, len(s.files)), removed: make([]bool, len(s.files))}
	k.reply("")
	return k
}

// closeWrite says that nothing more comes.
func (k *fuzzedTalk) closeWrite() {
	if half, ok := k.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it may be closed
	}
}

func (k *fuzzedTalk) send(text string) {
	_, _ = io.WriteString(k.conn, text) // the server may have closed it: its replies tell
}

// line reads one line of the server's.
func (k *fuzzedTalk) line(after string) (line string, ok bool) {
	line, err := k.in.ReadString('\n')
	if err != nil {
		if line != "" || os.IsTimeout(err) {
			k.t.Fatalf("after %.80q: %q and %v", after, line, err)
		}
		k.over = true
		return "", false
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") && !k.loggedIn {
		k.t.Fatalf("after %.80q: malformed %q", after, line)
	}
	return text, true
}

var fuzzedReply = regexp.MustCompile(`^(\+OK|-ERR|\+)( [ -~]*)?$`)

// reply reads the reply to a line and follows the session.
func (k *fuzzedTalk) reply(line string) {
	k.t.Helper()
	first, ok := k.line(line)
	if !ok {
		return
	}
	if !fuzzedReply.MatchString(first) || len(first) > 510 {
		k.t.Fatalf("%.80q: malformed reply %q", line, first)
	}
	k.last = first
	inExchange := k.exchange
	k.exchange = strings.HasPrefix(first, "+ ") || first == "+"
	if strings.HasPrefix(first, "+OK maildrop has") && !k.loggedIn { // RSET says so, too
		k.loggedIn = true
		return
	}
	if inExchange || !strings.HasPrefix(first, "+OK") || line == "" {
		return
	}
	verb, args, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
	verb, args = strings.ToUpper(verb), strings.Trim(args, " ")
	if slices.Contains([]string{"CAPA", "RETR", "TOP"}, verb) || args == "" && slices.Contains([]string{"LIST", "UIDL", "AUTH", "LANG"}, verb) {
		k.body(line, verb, args)
	}
	switch {
	case verb == "STLS":
		k.startTLS()
	case verb == "QUIT" && k.loggedIn:
		copy(k.removed, k.deleted)
	case verb == "DELE":
		k.deleted[k.number(line, args)] = true
	case verb == "RSET":
		clear(k.deleted)
	}
}

// number is the index of the message that arguments begin with.
func (k *fuzzedTalk) number(line, args string) int {
	n, err := strconv.Atoi(strings.Fields(args)[0])
	if err != nil || n < 1 || n > len(k.deleted) || k.deleted[n-1] {
		k.t.Fatalf("%.80q is answered +OK", line)
	}
	return n - 1
}

// body reads the lines of a reply up to the dot.
func (k *fuzzedTalk) body(line, verb, args string) {
	var body []byte
	for {
		text, ok := k.line(line)
		if !ok {
			k.t.Fatalf("%.80q: the reply has no end", line)
		}
		if text == "." {
			break
		}
		body = append(append(body, strings.TrimPrefix(text, ".")...), "\r\n"...)
	}
	if verb == "RETR" {
		if want := wireForm(k.server.files[k.number(line, args)].content); !bytes.Equal(body, want) {
			k.t.Fatalf("%.80q: %.80q, want %.80q", line, body, want)
		}
	}
}

// startTLS goes on under TLS. What was sent behind STLS must come to nothing.
func (k *fuzzedTalk) startTLS() {
	if k.hurried {
		k.over = true
		k.closeWrite()
		rest, _ := io.ReadAll(k.in)
		if bytes.Contains(rest, []byte("+OK")) || bytes.Contains(rest, []byte("-ERR")) {
			k.t.Fatalf("what was sent behind STLS is answered: %q", rest)
		}
		return
	}
	secure := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		k.t.Fatal(err)
	}
	k.conn, k.in, k.loggedIn = secure, bufio.NewReader(secure), false
}

// Bits of how a script is played.
const (
	fuzzLogIn  = 1 << iota // a login comes first
	fuzzHurry              // all at once
	fuzzAbrupt             // closed at the end, without a word
)

// play sends the lines of a script. What comes after the last LF is no line.
func (k *fuzzedTalk) play(how byte, script string) {
	k.hurried = how&fuzzHurry != 0
	if k.hurried {
		go k.send(script)
	}
	for line := range strings.SplitAfterSeq(script, "\n") {
		if !k.hurried {
			k.send(line)
		}
		text, complete := strings.CutSuffix(line, "\n")
		if !complete || k.over {
			break
		}
		k.reply(text)
	}
	if how&fuzzAbrupt == 0 && !k.over {
		k.closeWrite()
		if rest, _ := io.ReadAll(k.in); len(rest) > 0 {
			k.t.Fatalf("more replies than lines: %q", rest)
		}
	}
	k.conn.Close()
}

// FuzzPOP3Session plays whole sessions against the whole server, and looks at its mail
// after each: a message is gone if it was deleted in a session that ended with QUIT, and
// all others are as they were.
func FuzzPOP3Session(f *testing.F) {
	login := "USER " + fuzzedUser + "\r\nPASS " + testPassword + "\r\n"
	for _, script := range []string{
		"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nRETR 5\r\nTOP 2 1\r\nDELE 1\r\nLIST\r\nUIDL 2\r\nNOOP\r\nQUIT\r\n",
		"DELE 1\r\nDELE 2\r\nDELE 2\r\nSTAT\r\nQUIT now\r\nQUIT\r\n", "DELE 3\r\nRSET\r\nDELE 4\r\nQUIT", "DELE 1\nDELE 3\nDELE 4\nDELE 5\nDELE 2\nQUIT\n",
		"DELE 5\r\nQUIT\r", "DELE 4\r\nquit  \r\nRETR 1\r\n", login + "DELE 2\r\nQUIT\r\n", login + "DELE 2\r\nSTLS\r\nQUIT\r\n",
		"STLS\r\n" + login + "DELE 1\r\nQUIT\r\n", "AUTH PLAIN\r\nAGZ1enpAZXhhbXBsZS5vcmcAY29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\nDELE 1\r\nQUIT\r\n",
		"AUTH PLAIN AGZ1enpAZXhhbXBsZS5vcmcAY29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\nRETR 3\r\nQUIT\r\n", "AUTH LOGIN\r\nQUIT\r\nCAPA\r\n", "AUTH\r\nLANG\r\nUTF8\r\nCAPA\r\n*\r\n",
		"USER x\r\nPASS y\r\n" + login, "DELE\x001\r\nQUIT\r\n", strings.Repeat("A", 300) + "\r\nDELE 1\r\nQUIT\r\n", strings.Repeat("X\r\n", 30), "GET / HTTP/1.1\r\n\r\n",
		"DELE 1\rQUIT\r\n", "TOP 1 99999999999999999999\r\nDELE 0000000000002\r\nDELE  3 \r\nQUIT\r\n",
	} {
		for how := range byte(fuzzAbrupt << 1) {
			f.Add(how, script)
		}
	}
	s := startFuzzed(f)
	f.Fuzz(func(t *testing.T, how byte, script string) {
		if len(script) > 4096 {
			t.Skip("too long")
		}
		k := s.talk(t)
		if how&fuzzLogIn != 0 {
			k.send(login)
			for line := range strings.Lines(login) {
				k.reply(strings.TrimSpace(line))
			}
			if !k.loggedIn {
				t.Fatalf("the user cannot log in: %q; errors in the log: %q", k.last, s.faults.take())
			}
		}
		k.play(how, script)
		s.settle(t, k.removed)
		again := s.talk(t) // it still answers
		again.play(0, "QUIT\r\n")
		if fmt.Sprint(again.removed) != fmt.Sprint(make([]bool, len(s.files))) {
			t.Error("a QUIT without a login removes")
		}
	})
}
