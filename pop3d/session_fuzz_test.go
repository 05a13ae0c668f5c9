package pop3d

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// model is a client's idea of a maildrop, from RFC 1939 alone.
type model struct {
	in      bool // logged in
	all     []string
	deleted []bool
}

func newModel(messages []string) *model {
	return &model{all: messages, deleted: make([]bool, len(messages))}
}

func (m *model) each(f func(n int, message string)) {
	for i, message := range m.all {
		if !m.deleted[i] {
			f(i+1, message)
		}
	}
}

func (m *model) stat() string {
	n, octets := 0, 0
	m.each(func(_ int, message string) { n++; octets += len(message) })
	return fmt.Sprintf("+OK %d %d\r\n", n, octets)
}

// listed is the reply to LIST or UIDL without its first line.
func (m *model) listed(item func(n int, message string) string) string {
	var b strings.Builder
	m.each(func(n int, message string) { fmt.Fprintf(&b, "%d %s\r\n", n, item(n, message)) })
	return b.String() + ".\r\n"
}

func size(_ int, message string) string { return strconv.Itoa(len(message)) }
func uid(n int, _ string) string        { return fmt.Sprintf("uid-%d", n+99) }

// numericCommand is a keyword and numbers. Spaces after the keyword may be many.
var numericCommand = regexp.MustCompile(`^([A-Za-z]{3,4})(?: +([0-9]+))?(?: +([0-9]+))? *$`)

// number reads digits as a message number or a count; one that no maildrop and
// no message of the test reaches is as good as any other.
func number(digits string) int {
	digits = strings.TrimLeft(digits, "0")
	if len(digits) > 6 {
		return 1_000_000
	}
	n, _ := strconv.Atoi(digits)
	return n
}

// check compares the reply to a line with what the model expects, and follows
// the session. A line that is no command with numbers must be refused.
func (m *model) check(t *testing.T, line, got string) {
	t.Helper()
	if !wellFormed(got) {
		t.Fatalf("%q: malformed reply %q", line, got)
	}
	if !m.in {
		m.in = strings.HasPrefix(got, "+OK maildrop has ")
		return
	}
	parts := numericCommand.FindStringSubmatch(line)
	if parts == nil {
		m.same(t, line, got[:min(4, len(got))], "-ERR")
		return
	}
	n := number(parts[2])
	there := n >= 1 && n <= len(m.all) && !m.deleted[n-1]
	_, after, _ := strings.Cut(got, "\r\n")
	switch verb := strings.ToUpper(parts[1]); {
	case verb == "STAT" && parts[2] == "":
		m.same(t, line, got, m.stat())
	case verb == "RSET" && parts[2] == "":
		clear(m.deleted)
	case verb == "LIST" && parts[2] == "":
		m.same(t, line, after, m.listed(size))
	case verb == "UIDL" && parts[2] == "":
		m.same(t, line, after, m.listed(uid))
	case !slices.Contains([]string{"LIST", "UIDL", "RETR", "DELE", "TOP"}, verb):
	case parts[2] == "" || (parts[3] != "") != (verb == "TOP") || !there:
		if !strings.HasPrefix(got, "-ERR ") {
			t.Fatalf("%q: %q", line, got)
		}
	default:
		m.one(t, verb, line, got, n, parts[3])
	}
}

// one checks a command about message n, which is there.
func (m *model) one(t *testing.T, verb, line, got string, n int, lines string) {
	t.Helper()
	message := m.all[n-1]
	first, after, _ := strings.Cut(got, "\r\n")
	switch verb {
	case "LIST":
		m.same(t, line, got, fmt.Sprintf("+OK %d %d\r\n", n, len(message)))
	case "UIDL":
		m.same(t, line, got, fmt.Sprintf("+OK %d %s\r\n", n, uid(n, "")))
	case "DELE":
		m.same(t, line, got[:4], "+OK ")
		m.deleted[n-1] = true
	case "RETR":
		m.same(t, line, first, fmt.Sprintf("+OK %d octets", len(message)))
		body, _, _ := unstuff([]byte(after))
		m.same(t, line, string(body), message)
	case "TOP":
		body, _, _ := unstuff([]byte(after))
		m.same(t, line, string(body), topOf(message, number(lines)))
	}
}

func (m *model) same(t *testing.T, line, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%q: %q, want %q", line, got, want)
	}
}

// wellFormed checks a whole reply: one line, or lines up to a dot alone.
func wellFormed(reply string) bool {
	first, rest, complete := strings.Cut(reply, "\r\n")
	if !complete || len(first) > 510 || strings.ContainsAny(first, "\r\n\x00") {
		return false
	}
	if strings.HasPrefix(first, "+OK") && rest != "" {
		_, after, whole := unstuff([]byte(rest))
		return whole && len(after) == 0
	}
	known := first == "+OK" || strings.HasPrefix(first, "+OK ") || strings.HasPrefix(first, "-ERR ") || strings.HasPrefix(first, "+ ")
	return known && rest == ""
}

func FuzzSession(f *testing.F) {
	login := "USER " + testUser + "\nPASS " + testPassword + "\n"
	for _, lines := range []string{
		"STAT\nLIST\nUIDL\nRETR 1\nTOP 1 1\nDELE 1\nLIST\nUIDL 2\nRSET\nNOOP\nQUIT",
		"DELE 1\nDELE 2\nDELE 2\nSTAT\nQUIT now\nQUIT",
		"DELE 3\nRETR 3\nRETR 4\nTOP 2 0\nCAPA",
		login + "DELE 2\nQUIT",
		"AUTH PLAIN\n" + testPlain + "\nSTAT\nSTLS",
		"AUTH\nAUTH LOGIN\n*\nAUTH PLAIN =\nSTLS\n" + login,
		"DELE  3\nRETR 3\nDELE 0000000002\nSTAT\n STAT\nQUIT",
		"list 01\nRETR 99999999999999999999\n\x00\nDELE\x001\nQUIT",
	} {
		f.Add(true, lines)
		f.Add(false, lines)
	}
	f.Fuzz(func(t *testing.T, loggedIn bool, script string) {
		mail := newFakeMail(slices.Clone(dialogMessages)...)
		p := newPlayer(Config{AllowPlaintext: everywhere, MaxErrors: 1000, TLS: testTLS(t)}, mail)
		m := newModel(dialogMessages)
		if loggedIn {
			p.logInNow(t)
			m.in = true
		}
		asked := false
		for line := range strings.SplitSeq(script, "\n") {
			before := p.state
			got := p.must(t, line)
			m.check(t, line, got)
			if m.in != (p.drop != nil) && p.state != closed {
				t.Fatalf("%q: logged in %t, but maildrop %v", line, m.in, p.drop)
			}
			asked = before == transaction && strings.EqualFold(strings.TrimRight(line, " "), "QUIT")
			if p.state == negotiation {
				p.secured()
			}
			if p.state == closed {
				break
			}
			if mail.removals > 0 {
				t.Fatalf("%q: removed before QUIT", line)
			}
		}
		p.end("connection lost")
		m.checkEnd(t, mail, asked)
	})
}

// checkEnd compares what is left: without QUIT, everything.
func (m *model) checkEnd(t *testing.T, mail *fakeMail, asked bool) {
	t.Helper()
	if !asked {
		clear(m.deleted)
	}
	var want []string
	m.each(func(_ int, message string) { want = append(want, message) })
	if got := mail.left(); !slices.Equal(got, want) {
		t.Fatalf("left %q, want %q (QUIT: %t)", got, want, asked)
	}
	if mail.locked {
		t.Fatal("still locked")
	}
}
