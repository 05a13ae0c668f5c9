package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
	"time"
)

// A reservation is for each mailbox once, and ends with the transaction.
func TestReservations(t *testing.T) {
	const (
		begin = "EHLO c.example\r\nMAIL FROM:<a@b.example> SIZE=100\r\n"
		rcpt  = "RCPT TO:<ann@example.org>\r\nRCPT TO:<list@example.org>\r\nRCPT TO:<full@example.org>\r\n"
	)
	for _, c := range []struct {
		name string
		end  []string
		held map[string]int64 // when the last command was heard
	}{
		{"envelope", nil, map[string]int64{"ann@example.org": 101, "bob@example.org": 101}},
		{"message", []string{"DATA\r\n", "Subject: x\r\n\r\n.\r\n"}, nil},
		{"RSET", []string{"RSET\r\n"}, nil},
		{"EHLO", []string{"EHLO again.example\r\n"}, nil},
		{"next envelope", []string{"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n"}, map[string]int64{"bob@example.org": 1}},
	} {
		store := new(memory)
		held := func() map[string]int64 {
			store.mu.Lock()
			defer store.mu.Unlock()
			return maps.Clone(store.reserved)
		}
		var atEnd map[string]int64
		conn := &canned{pieces: append([]string{begin + rcpt}, c.end...), atEnd: func() { atEnd = held() }}
		lines := conn.play(NewServer(testConfig(), users{}, store, nil))
		if !maps.Equal(atEnd, c.held) {
			t.Errorf("%s: %v are held, want %v\n%s", c.name, atEnd, c.held, strings.Join(lines, "\n"))
		}
		if left := held(); len(left) != 0 {
			t.Errorf("%s: after the connection %v are held", c.name, left)
		}
	}
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

// Room is kept for those who have a message: who has none is sent away in time,
// however many envelopes that are.
func TestRoomIsNotHeld(t *testing.T) {
	const (
		hello = "EHLO c.example\r\n"
		begin = "MAIL FROM:<a@b.example> SIZE=100\r\nRCPT TO:<ann@example.org>\r\n"
		rest  = "DATA\r\nSubject: x\r\n\r\n.\r\n"
	)
	config := testConfig()
	config.HoldTimeout = time.Nanosecond
	for _, c := range []struct {
		name   string
		pieces []string
		reply  string // the last one
	}{
		{"message", []string{hello + begin + rest, "QUIT\r\n"}, "221"},
		{"two messages", []string{hello + begin + rest, begin + rest, "QUIT\r\n"}, "221"},
		{"idle", []string{hello + begin, "NOOP\r\n", "QUIT\r\n"}, "421 4.4.2"},
		{"chunk", []string{hello + begin + "BDAT 1000\r\n", "x", "QUIT\r\n"}, "421 4.4.2"},
		{"let go in time", []string{hello + begin + "RSET\r\n", "NOOP\r\n", "QUIT\r\n"}, "221"},
		{"again", []string{hello + begin + "RSET\r\n" + begin, "NOOP\r\n", "QUIT\r\n"}, "421 4.4.2"},
		{"without quota", []string{hello + "MAIL FROM:<>\r\nRCPT TO:<postmaster@example.org>\r\n", "NOOP\r\n", "QUIT\r\n"}, "221"},
	} {
		store := new(memory)
		conn := &timely{canned: canned{pieces: c.pieces, rounds: 1}}
		conn.closed = make(chan struct{})
		_ = NewServer(config, users{}, store, nil).Serve(&once{conn: conn})
		<-conn.closed
		lines := strings.Split(strings.TrimSpace(conn.out.String()), "\r\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, c.reply) {
			t.Errorf("%s: the last reply is %q, want %s\n%s", c.name, last, c.reply, strings.Join(lines, "\n"))
		}
		if len(store.reserved) != 0 {
			t.Errorf("%s: %v are held", c.name, store.reserved)
		}
	}
}

// timely is a canned connection that heeds deadlines.
type timely struct {
	canned
	until time.Time
}

func (c *timely) SetReadDeadline(t time.Time) error {
	c.until = t
	return nil
}

func (c *timely) Read(p []byte) (int, error) {
	if time.Now().After(c.until) {
		return 0, os.ErrDeadlineExceeded
	}
	return c.canned.Read(p)
}

// One envelope after the other holds no room for ever either.
func TestRoomIsNotHeldAgainAndAgain(t *testing.T) {
	config := testConfig()
	config.HoldTimeout = 5 * time.Millisecond
	c := newRig(t, config).dial(t)
	c.do("", "220", "HELO c.example", "250")
	for round := 0; ; round++ {
		for _, line := range []string{"MAIL FROM:<>", "RCPT TO:<ann@example.org>", "RSET"} {
			if _, err := io.WriteString(c.Conn, line+"\r\n"); err != nil {
				return // it was closed after 421
			}
			switch got := c.line(); {
			case strings.HasPrefix(got, "421 4.4.2 "):
				return
			case !strings.HasPrefix(got, "250 "):
				t.Fatalf("round %d: %s is answered %q", round, line, got)
			}
		}
	}
}
