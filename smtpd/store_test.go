package smtpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// refusing is a Store that fails, before or after it has read the message.
type refusing struct {
	boundless
	err  error
	read bool
}

func (s refusing) Deliver(_ context.Context, _ string, _ []string, message io.Reader) (int64, error) {
	if s.read {
		if _, err := io.Copy(io.Discard, message); err != nil {
			return 0, err
		}
	}
	return 0, s.err
}

// TestStoreErrors has a full disk and a full mailbox told apart, and nothing else that a store
// may wrap.
func TestStoreErrors(t *testing.T) {
	const noSpace, fault = "452 4.3.1 No space left here, try again later", "451 4.3.0 A fault on our side, try again later"
	for _, test := range []struct {
		err   error
		reply string
	}{
		{ErrNoSpace, noSpace},
		{fmt.Errorf("secret: %w", ErrNoSpace), noSpace},
		{errors.Join(errors.New("secret"), replyLoop, ErrNoSuchUser, ErrNoSpace), noSpace},
		{errors.New("secret"), fault},
		{fmt.Errorf("secret: %v", ErrNoSpace), fault},
		{replyTooLarge, fault},
		{ErrNoSuchUser, fault},
		{fmt.Errorf("secret: %w", ErrOverQuota), "452 4.2.2 Mailbox is full, try again later"},
		{io.ErrUnexpectedEOF, fault},
		{context.Canceled, fault},
	} {
		for _, read := range []bool{false, true} {
			log := &journal{}
			server := NewServer(testConfig(), users{}, refusing{err: test.err, read: read}, slog.New(slog.NewTextHandler(log, nil)))
			conn := &canned{pieces: []string{"HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n",
				"Subject: x\r\n\r\nbody\r\n.\r\nNOOP\r\n"}}
			lines := conn.play(server)
			if len(lines) != 7 || lines[5] != test.reply || lines[6] != "250 2.0.0 OK" {
				t.Errorf("%v, read %v: %q", test.err, read, lines)
			}
			level := "level=ERROR"
			if errors.Is(test.err, ErrOverQuota) {
				level = "level=INFO" // nothing is wrong here
			}
			if text := log.String(); !strings.Contains(text, level) || !strings.Contains(text, test.err.Error()[:6]) {
				t.Errorf("%v, read %v: not in the log:\n%s", test.err, read, text)
			}
		}
	}
}

// TestMessageGoesBeforeStore has the fault of a message told to its sender
// even when the store has one of its own.
func TestMessageGoesBeforeStore(t *testing.T) {
	config := testConfig()
	config.MaxMessageSize = 10
	server := NewServer(config, users{}, overwhelmed{}, nil)
	conn := &canned{pieces: []string{"HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n", "0123456789\r\n.\r\n"}}
	if lines := conn.play(server); !strings.HasPrefix(lines[len(lines)-1], "552 5.3.4") {
		t.Errorf("%q", lines)
	}
}

// overwhelmed is a Store that takes every error for want of space.
type overwhelmed struct{ boundless }

func (overwhelmed) Deliver(_ context.Context, _ string, _ []string, message io.Reader) (int64, error) {
	_, err := io.Copy(io.Discard, message)
	return 0, errors.Join(err, ErrNoSpace)
}

// TestInputBuffers has a connection that waits do so with a small array, and
// a message come into a large one.
func TestInputBuffers(t *testing.T) {
	many := strings.Repeat("RCPT TO:<ann@example.org>\r\n", 2*waiting/27)
	conn := &canned{pieces: []string{"HELO c.example\r\n", "MAIL FROM:<>\r\n" + many, "DATA\r\n", "body\r\n", ".\r\n", "NOOP\r\n"}}
	lines := conn.play(NewServer(testConfig(), users{}, &memory{}, nil))
	if last := lines[len(lines)-1]; last != "250 2.0.0 OK" {
		t.Fatalf("%q", lines)
	}
	large := []bool{false, false, true, false, true, true, false, false} // HELO, a group, its rest, DATA, a message, NOOP, the end
	got := make([]bool, len(conn.asked))
	for i, n := range conn.asked {
		got[i] = n > waiting
	}
	if !slices.Equal(got, large) {
		t.Errorf("reads of %d octets, want those over %d to be %v", conn.asked, waiting, large)
	}
}

// FuzzBeforeDot compares with the plain search.
func FuzzBeforeDot(f *testing.F) {
	for _, seed := range []string{"", ".", "\r\n.", "a.b\r\n.c\r\n.", "\n.\r\n", "..\r\n..", "\r\n\r\n."} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		want := len(p)
		if before, _, found := bytes.Cut(p, crlfDot); found {
			want = len(before) + len(crlf)
		}
		if got := beforeDot(p); got != want {
			t.Fatalf("%q: %d, want %d", p, got, want)
		}
	})
}
