package smtpd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// Room is kept for those who are sending a message, once for each mailbox, and for
// nobody else: a stranger without one could keep others out.
func TestReservations(t *testing.T) {
	const (
		begin = "EHLO c.example\r\nMAIL FROM:<a@b.example> SIZE=100\r\n"
		rcpt  = "RCPT TO:<ann@example.org>\r\nRCPT TO:<list@example.org>\r\nRCPT TO:<full@example.org>\r\n"
	)
	for _, c := range []struct {
		name string
		rest []string
		held map[string]int64 // when the last piece was heard
	}{
		{"envelope", nil, nil},
		{"DATA", []string{"DATA\r\n"}, map[string]int64{"ann@example.org": 101, "bob@example.org": 101}},
		{"half a message", []string{"DATA\r\nSubject: x\r\n"}, map[string]int64{"ann@example.org": 101, "bob@example.org": 101}},
		{"message", []string{"DATA\r\n", "Subject: x\r\n\r\n.\r\n"}, nil},
		{"RSET", []string{"RSET\r\n"}, nil},
		{"next envelope", []string{"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n"}, nil},
	} {
		store := new(memory)
		held := func() map[string]int64 {
			store.mu.Lock()
			defer store.mu.Unlock()
			return maps.Clone(store.reserved)
		}
		var atEnd map[string]int64
		conn := &canned{pieces: append([]string{begin + rcpt}, c.rest...), atEnd: func() { atEnd = held() }}
		lines := conn.play(NewServer(testConfig(), users{}, store, nil))
		if !maps.Equal(atEnd, c.held) {
			t.Errorf("%s: %v are held, want %v\n%s", c.name, atEnd, c.held, strings.Join(lines, "\n"))
		}
		if left := held(); len(left) != 0 {
			t.Errorf("%s: after the connection %v are held", c.name, left)
		}
	}
}

// TestFullMeanwhile: other mail may take the room between RCPT and the message. The
// message is refused for the time being, and the connection goes on.
func TestFullMeanwhile(t *testing.T) {
	store := &filling{}
	conn := &canned{pieces: []string{"HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n",
		"DATA\r\nSubject: x\r\n\r\n.\r\nNOOP\r\nQUIT\r\n"}}
	lines := conn.play(NewServer(testConfig(), users{}, store, nil))
	got := strings.Join(lines[len(lines)-4:], "\n")
	if want := "354 Go ahead, end with <CR><LF>.<CR><LF>\n452 4.2.2 Mailbox is full, try again later\n250 2.0.0 OK\n221 2.0.0 Bye"; got != want {
		t.Errorf("got\n%s", got)
	}
	if len(store.kept) != 0 {
		t.Error("it was delivered")
	}
}

// filling is a Store that is full after its first answer.
type filling struct {
	memory
	asked int
}

func (f *filling) Reserve(context.Context, []string, int64) (func(), error) {
	if f.asked++; f.asked > 1 {
		return nil, ErrOverQuota
	}
	return func() {}, nil
}

// What goes wrong in making room is our fault, whatever it wraps.
func TestReserveErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		reply string
	}{
		{fmt.Errorf("secret: %w", ErrOverQuota), "452 4.2.2 Mailbox is full, try again later"},
		{errors.New("secret"), "451 4.3.0 A fault on our side, try again later"},
		{fmt.Errorf("secret: %w", ErrNoSuchUser), "451 4.3.0 A fault on our side, try again later"},
	} {
		conn := &canned{pieces: []string{"HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n"}}
		lines := conn.play(NewServer(testConfig(), users{}, &cramped{err: c.err}, nil))
		if len(lines) != 4 || lines[3] != c.reply {
			t.Errorf("%v: %q", c.err, lines)
		}
	}
}

type cramped struct {
	memory
	err error
}

func (c *cramped) Reserve(context.Context, []string, int64) (func(), error) { return nil, c.err }
