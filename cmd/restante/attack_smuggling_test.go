package main

import (
	"fmt"
	"strings"
	"testing"
)

// smuggled is what a server that sees the end of a message too early takes for
// commands. Its own end is the true one of the message around it.
const smuggled = "MAIL FROM:<smuggler@client.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\n%s\r\n.\r\n"

// sequences are all those of n octets out of CR, LF, NUL and the dot.
func sequences(n int) []string {
	if n == 0 {
		return []string{""}
	}
	var all []string
	for _, rest := range sequences(n - 1) {
		for _, octet := range "\r\n\x00." {
			all = append(all, string(octet)+rest)
		}
	}
	return all
}

// classicEnds are the ends of data that some server has taken for one, and others.
func classicEnds() []string {
	return []string{"\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\x00\n",
		"\r\x00\n.\r\n", "\r\r\n.\r\r\n", "\r\n.\r\r\n", "\n\n.\r\n", "\n\r.\r\n", "\n\r\n\r.\n\r", "\r\n.\n\n", "\r\n..\r\n", "\r\n.\v\r\n",
		"\r\n. \r\n", "\r\n .\r\n", "\x85.\x85", "\u2028.\u2028", "\r\n\u3002\r\n", "\r\n.\r\\n", "\f.\f"}
}

// firstMessage is the plainest reading of RFC 5321: what s has up to CRLF "." CRLF,
// without the dots at the beginnings of lines, and what comes after it.
func firstMessage(t *testing.T, s string) (message, rest string) {
	t.Helper()
	for {
		line, after, ok := strings.Cut(s, "\r\n")
		if !ok {
			t.Fatalf("no end in %q", s)
		}
		if s = after; line == "." {
			return message, after
		}
		message += strings.TrimPrefix(line, ".") + "\r\n"
	}
}

// smuggling sends messages with something in them that may look like their end.
type smuggling struct {
	server *testServer
	client *caller
	sent   int
	want   map[string]int // messages of alice, without traces
	open   int            // messages for bob after true ends
}

func newSmuggling(t *testing.T, s *testServer, secure bool) *smuggling {
	t.Helper()
	m := &smuggling{server: s, client: s.talk(t, "smtp"), want: make(map[string]int)}
	if secure {
		m.client.secure(s.clientTLS())
	}
	m.client.want("EHLO client.example", "250")
	return m
}

// whole is where a message is not divided.
const whole = -1

// try sends one message for alice, in two segments if cut is a place in the variant.
func (m *smuggling) try(t *testing.T, before, variant string, cut int) {
	t.Helper()
	d := m.client
	d.allow(deadline)
	d.write("MAIL FROM:<sender@client.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
	for _, code := range []string{"250 ", "250 ", "354 "} {
		d.want("", code)
	}
	m.sent++
	text := before + variant + fmt.Sprintf(smuggled, fmt.Sprintf("number %d", m.sent))
	from := 0
	if cut != whole {
		from = len(before) + cut
		d.segments(m.server, text[:from])
	}
	d.write(text[from:] + "RSET\r\n")
	message, rest := firstMessage(t, text)
	m.want[string(wireForm([]byte(message)))]++
	answers, want := codes(d.replies()), "250 250"
	switch {
	case strings.HasPrefix(rest, "MAIL"): // it was a true end
		want = "250 250 250 354 250 250"
	case rest != "": // and something between
		want = answers
	}
	if answers != want {
		t.Errorf("%q after %q, cut at %d: the answers are %s, not %s", variant, before, cut, answers, want)
	}
	if strings.Contains("\r\n"+rest, "\r\nMAIL") {
		m.open++
	}
}

// check fetches what came.
func (m *smuggling) check(t *testing.T) {
	t.Helper()
	for _, message := range m.server.fetchAll(t, "alice") {
		text := string(withoutTrace(t, message))
		if m.want[text]--; m.want[text] < 0 {
			t.Errorf("came, and was not sent: %q", text)
		}
	}
	for text, n := range m.want {
		if n > 0 {
			t.Errorf("did not come: %q", text)
		}
	}
	if n := len(m.server.fetchAll(t, "bob")); n != m.open {
		t.Errorf("%d messages were smuggled", n-m.open)
	}
	clear(m.want)
	m.open = 0
}

// where an end of data may be tried: in the middle of a line, and where a message begins.
func places() []string { return []string{"Subject: variant\r\n\r\nx", ""} }

// TestSmugglingAll tries every sequence of CR, LF, NUL and dot up to a length as an
// end of data. Only those that hold CRLF "." CRLF are one.
func TestSmugglingAll(t *testing.T) {
	t.Parallel()
	m := newSmuggling(t, newServer(t, tolerant()), false)
	for n := 1; n <= 5; n++ {
		for _, variant := range sequences(n) {
			for _, before := range places() {
				m.try(t, before, variant, whole)
			}
		}
		m.check(t)
	}
}

// TestSmugglingSegments divides messages at each octet of the variant and at both its
// ends, so that the server reads the parts one after the other.
func TestSmugglingSegments(t *testing.T) {
	t.Parallel()
	m := newSmuggling(t, newServer(t, tolerant()), false)
	variants := classicEnds()
	for n := 1; n <= 3; n++ {
		for _, variant := range sequences(n) {
			if strings.Contains(variant, ".") {
				variants = append(variants, variant)
			}
		}
	}
	for _, variant := range append(variants, "\r\n.\r\n") {
		for _, before := range places() {
			for cut := range len(variant) + 1 {
				m.try(t, before, variant, cut)
			}
		}
	}
	m.check(t)
}

// TestSmugglingTLS: a record of TLS is as little a line as a segment is.
func TestSmugglingTLS(t *testing.T) {
	t.Parallel()
	m := newSmuggling(t, newServer(t, tolerant()), true)
	for _, variant := range append(classicEnds(), "\r\n.\r\n") {
		for _, before := range places() {
			for cut := whole; cut <= len(variant); cut++ {
				m.try(t, before, variant, cut)
			}
		}
	}
	m.check(t)
}
