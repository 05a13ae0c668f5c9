package loadgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Message returns a message of so many octets, at least 512, with its header,
// as it goes over the wire: CRLF ends its lines, and none begins with a dot.
func Message(octets int) []byte {
	const header = "From: Sender <sender@example.org>\r\nTo: Reader <reader@example.org>\r\n" +
		"Subject: A message to measure with\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
	const line = 70
	m := append([]byte(header), bytes.Repeat([]byte("0123456789 "), octets/11+1)...)[:octets]
	for i := len(header) + line; i < octets-4; i += line + 2 {
		copy(m[i:], "\r\n")
	}
	copy(m[octets-2:], "\r\n")
	return m
}

// sender is an SMTP client that sends one message again and again.
type sender struct {
	conn     *conn
	envelope []byte
	data     []byte
}

// OpenSMTP connects to address and delivers message to a mailbox once. Each Do
// of the Task delivers it again; its wait is the time from the end of the data
// to the reply. Commands are pipelined as far as SMTP allows.
func OpenSMTP(ctx context.Context, address, to string, message []byte) (Task, error) {
	c, err := dial(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	s := &sender{
		conn:     c,
		envelope: fmt.Appendf(nil, "MAIL FROM:<sender@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n", to),
		data:     append(bytes.Clone(message), ".\r\n"...),
	}
	if err := s.hello(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, _, err := s.Do(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (s *sender) hello() error {
	if err := s.reply("greeting", '2'); err != nil {
		return err
	}
	if _, err := io.WriteString(s.conn, "EHLO localhost\r\n"); err != nil {
		return err
	}
	return s.reply("EHLO", '2')
}

func (s *sender) Do() (int, time.Duration, error) {
	if _, err := s.conn.Write(s.envelope); err != nil {
		return 0, 0, err
	}
	for _, step := range []struct {
		command string
		digit   byte
	}{{"MAIL", '2'}, {"RCPT", '2'}, {"DATA", '3'}} {
		if err := s.reply(step.command, step.digit); err != nil {
			return 0, 0, err
		}
	}
	if _, err := s.conn.Write(s.data); err != nil {
		return 0, 0, err
	}
	sent := time.Now()
	if err := s.reply("message", '2'); err != nil {
		return 0, 0, err
	}
	return 1, time.Since(sent), nil
}

// reply reads a reply of one or more lines, whose code must begin with digit.
func (s *sender) reply(to string, digit byte) error {
	for {
		l, err := s.conn.line()
		if err != nil {
			return err
		}
		if len(l) < 3 || l[0] != digit {
			return unexpected(to, l)
		}
		if len(l) == 3 || l[3] == ' ' {
			return nil
		}
	}
}

// Close hangs up: between two messages that loses nothing.
func (s *sender) Close() error { return s.conn.Close() }
