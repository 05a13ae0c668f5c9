package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// random is seeded with the time; the seed is in the log of a test that fails.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// randomMessage has the octets that matter on the way more often than others.
func randomMessage(r *rand.Rand) []byte {
	pieces := []string{"\r\n", "\r\n.", "\r\n..", "\n", "\n.", "\r", "\r\r\n", ".", "\x00", "\xff", "\t", " ", "x", "From ", "\r\n.\r", strings.Repeat("y", 2000)}
	var b bytes.Buffer
	b.WriteString("Subject: any octets\r\n\r\n")
	for range r.IntN([]int{5, 50, 500}[r.IntN(3)]) {
		if r.IntN(3) == 0 {
			b.WriteByte(byte(r.Uint32()))
		} else {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
	}
	return b.Bytes()
}

// arrived is what a reader gets of a message that was sent, its trace header aside.
func arrived(message []byte) []byte {
	if !bytes.HasSuffix(message, []byte("\r\n")) {
		message = append(bytes.Clone(message), "\r\n"...) // deliver adds it
	}
	return wireForm(message)
}

// TestAnyOctets: whatever comes in by SMTP goes out by POP3, equal but for the
// line ends, and of the size that LIST said.
func TestAnyOctets(t *testing.T) {
	s := newServer(t, serverOptions{})
	r := random(t)
	var sent [][]byte
	for range 60 {
		message := randomMessage(r)
		s.deliver(t, message, "alice@"+testDomain)
		sent = append(sent, arrived(message))
	}
	var got [][]byte
	for _, message := range s.fetchAll(t, "alice") {
		got = append(got, withoutTrace(t, message))
	}
	// Messages of one second come in no order that a sender could rely on.
	slices.SortFunc(sent, bytes.Compare)
	slices.SortFunc(got, bytes.Compare)
	if len(got) != len(sent) {
		t.Fatalf("%d messages of %d came", len(got), len(sent))
	}
	for i := range sent {
		sameOctets(t, got[i], sent[i])
	}
}

// drop is what RFC 1939 says of a maildrop, with the messages as they came once.
type drop struct {
	t        *testing.T
	messages [][]byte // whole, by number from 0
	uids     []string
	deleted  []bool
}

// TestRFC1939 has sessions of random commands answered as the model says, with mail
// that comes between them and sessions that are cut off.
func TestRFC1939(t *testing.T) {
	s := newServer(t, serverOptions{})
	r := random(t)
	known := make(map[string][]byte) // messages by UIDL
	expected := 0
	for range 60 {
		for range r.IntN(4) {
			s.deliver(t, randomMessage(r), "alice@"+testDomain)
			expected++
		}
		d := s.talk(t, "pop3s").logIn("alice")
		m := readDrop(t, d, known)
		if len(m.messages) != expected {
			t.Fatalf("%d messages instead of %d", len(m.messages), expected)
		}
		for range r.IntN(30) {
			m.step(d, r)
		}
		if r.IntN(3) == 0 { // no QUIT: nothing is removed
			d.conn.Close()
			eventually(t, "the session that was cut off lets go", func() bool {
				next := s.talk(t, "pop3s")
				next.want("USER alice@"+testDomain, "+OK")
				defer next.conn.Close()
				return strings.HasPrefix(next.ask("PASS "+testPassword), "+OK")
			})
			continue
		}
		d.want("QUIT", "+OK")
		d.ended()
		for i := range m.deleted {
			if m.deleted[i] {
				expected--
				delete(known, m.uids[i])
			}
		}
	}
}

// readDrop reads all that there is. A message keeps its UIDL and its octets from
// session to session.
func readDrop(t *testing.T, d *caller, known map[string][]byte) *drop {
	m := &drop{t: t}
	d.want("UIDL", "+OK")
	for line := range strings.Lines(string(d.multiline())) {
		number, uid, _ := strings.Cut(strings.TrimSpace(line), " ")
		if number != strconv.Itoa(len(m.uids)+1) {
			t.Fatalf("UIDL line %q as number %d", line, len(m.uids)+1)
		}
		m.uids = append(m.uids, uid)
	}
	m.deleted = make([]bool, len(m.uids))
	left := len(known)
	for i, uid := range m.uids {
		d.want(fmt.Sprintf("RETR %d", i+1), "+OK")
		message := d.multiline()
		if before, ok := known[uid]; ok {
			left--
			sameOctets(t, message, before)
		}
		known[uid] = message
		m.messages = append(m.messages, message)
	}
	if left != 0 {
		t.Fatalf("%d messages that nobody removed are gone", left)
	}
	return m
}

// step gives one command, often about a message that is there.
func (m *drop) step(d *caller, r *rand.Rand) {
	m.t.Helper()
	n := r.IntN(len(m.messages)+3) - 1 // from 0
	there := n >= 0 && n < len(m.messages) && !m.deleted[n]
	number := strconv.Itoa(n + 1)
	refused := func(command string) bool {
		if !there {
			d.want(command, "-ERR")
		}
		return !there
	}
	switch r.IntN(9) {
	case 0:
		count, octets := m.left()
		d.want("STAT", fmt.Sprintf("+OK %d %d", count, octets))
	case 1:
		d.want("NOOP", "+OK")
	case 2:
		d.want("RSET", "+OK")
		clear(m.deleted)
	case 3:
		if !refused("DELE " + number) {
			d.want("DELE "+number, "+OK")
			m.deleted[n] = true
		}
	case 4:
		if !refused("RETR " + number) {
			d.want("RETR "+number, "+OK")
			sameOctets(m.t, d.multiline(), m.messages[n])
		}
	case 5:
		lines := r.IntN(8)
		if command := fmt.Sprintf("TOP %s %d", number, lines); !refused(command) {
			d.want(command, "+OK")
			sameOctets(m.t, d.multiline(), top(m.messages[n], lines))
		}
	case 6:
		if !refused("LIST " + number) {
			d.want("LIST "+number, fmt.Sprintf("+OK %s %d", number, len(m.messages[n])))
		}
	case 7:
		m.listed(d, "LIST", func(i int) string { return strconv.Itoa(len(m.messages[i])) })
	case 8:
		m.listed(d, "UIDL", func(i int) string { return m.uids[i] })
	}
}

func (m *drop) left() (count, octets int) {
	for i, message := range m.messages {
		if !m.deleted[i] {
			count, octets = count+1, octets+len(message)
		}
	}
	return count, octets
}

func (m *drop) listed(d *caller, command string, what func(i int) string) {
	m.t.Helper()
	var want strings.Builder
	for i := range m.messages {
		if !m.deleted[i] {
			fmt.Fprintf(&want, "%d %s\r\n", i+1, what(i))
		}
	}
	d.want(command, "+OK")
	if got := string(d.multiline()); got != want.String() {
		m.t.Errorf("%s: %q, want %q", command, got, want.String())
	}
}

// top is the header of a message, the empty line and so many lines of the body.
func top(message []byte, lines int) []byte {
	header, body, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	out := append(bytes.Clone(header), "\r\n\r\n"...)
	for range lines {
		line, rest, whole := bytes.Cut(body, []byte("\r\n"))
		if out = append(out, line...); !whole {
			break
		}
		out, body = append(out, "\r\n"...), rest
	}
	return out
}
