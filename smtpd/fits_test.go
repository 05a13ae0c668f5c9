package smtpd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestFits: the store is asked for each recipient on its own, with the size that was
// announced, once for each mailbox.
func TestFits(t *testing.T) {
	store := new(memory)
	conn := &canned{pieces: []string{"EHLO c.example\r\nMAIL FROM:<a@b.example> SIZE=100\r\n" +
		"RCPT TO:<ann@example.org>\r\nRCPT TO:<list@example.org>\r\nRCPT TO:<full@example.org>\r\nRCPT TO:<list@example.org>\r\n" +
		"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n"}}
	lines := conn.play(NewServer(testConfig(), users{}, store, nil))
	want := []question{{"ann@example.org", 100}, {"bob@example.org", 100}, {"full@example.org", 100}, {"ann@example.org", 0}}
	if !slices.Equal(store.asked, want) {
		t.Errorf("asked %v, want %v\n%q", store.asked, want, lines)
	}
}

// What goes wrong in looking for room is our fault, whatever it wraps.
func TestFitsErrors(t *testing.T) {
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

func (c *cramped) Fits(context.Context, []string, int64) error { return c.err }
