package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestOversizeCommands: what is too long is refused and the next command is one.
func TestOversizeCommands(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	d.want("MAIL FROM:<sender@client.example>", "250 ")
	for _, n := range []int{4096 - len("\r\n"), 4096, 10_000, 300_000} {
		long := strings.Repeat("a", n)
		for _, command := range []string{
			long, "NOOP " + long, "EHLO " + long, "HELO " + long + ".example", "EHLO [" + long + "]", "MAIL FROM:<" + long + "@client.example>",
			"MAIL FROM:<sender@client.example> " + long, "MAIL FROM:<sender@client.example> SIZE=" + strings.Repeat("9", n),
			"MAIL FROM:<sender@client.example> X=" + long, "MAIL FROM:<sender@client.example>" + strings.Repeat(" A=b", n/4),
			"RCPT TO:<" + long + "@example.org>", "RCPT TO:<alice+" + long + "@example.org>", `RCPT TO:<"` + strings.Repeat(`\a`, n/2) + `"@example.org>`,
			"RCPT TO:<alice@" + long + ">", "RCPT TO:<" + strings.Repeat("@example.org,", n/13) + "@example.org:alice@example.org>",
			"RCPT TO:<alice@example.org> " + strings.Repeat("A", n), "RCPT TO:<alice@" + strings.Repeat("a.", n/2) + "example.org>",
			"AUTH PLAIN " + long, "AUTH " + long, long + " " + long, "VRFY" + long, "BDAT " + strings.Repeat("1", n), "DATA " + long,
			strings.Repeat("\x00", n), strings.Repeat("\r", n), strings.Repeat("\xff", n), strings.Repeat(" ", n), strings.Repeat("\xe2\x80\xa8", n/3),
		} {
			d.allow(deadline)
			if got := d.ask(command); got[0] != '5' {
				t.Errorf("%d octets, %.40q: answered %q", len(command), command, got)
			}
			if got := d.ask(sentinel); !strings.HasPrefix(got, sentinelAnswer) {
				t.Fatalf("after %d octets, %.40q: answered %q", len(command), command, got)
			}
		}
	}
	d.want("RCPT TO:<alice@example.org>", "250 ") // the transaction is what it was
	d.want("DATA", "354 ")
	d.want(".", "250 ")
}

// TestOversizeEndless: a line without an end ends the connection.
func TestOversizeEndless(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	before := peakMemory(t, s.cmd.Process.Pid)
	for _, endless := range []string{"x", "\r", "\x00", "NOOP ", "AUTH PLAIN ", "\xff", "a\n", "MAIL FROM:<a", "\r\n."} {
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250 ")
		d.allow(deadline)
		sent := flood(d, endless, 64<<20)
		if _, err := io.ReadAll(d.lines); sent > 48<<20 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the server took %d octets: %v", endless, sent, err)
		}
	}
	if grown := peakMemory(t, s.cmd.Process.Pid) - before; grown > 16<<20 {
		t.Errorf("%d octets more memory", grown)
	}
	s.talk(t, "smtp").want(sentinel, sentinelAnswer)
}

// flood writes the same up to so many octets, or until the server hangs up.
func flood(d *caller, what string, most int) (sent int) {
	piece := strings.Repeat(what, 64<<10/len(what))
	for sent < most {
		n, err := io.WriteString(d.conn, piece)
		if sent += n; err != nil {
			break
		}
	}
	return sent
}

// TestOversizeLine: a line of 10 MiB is mail as any other, in header and body.
func TestOversizeLine(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	for _, line := range []string{"Subject: " + strings.Repeat("long ", 2<<20), "\r\n" + strings.Repeat(".", 1<<20),
		"\r\n" + strings.Repeat("\r", 1<<20) + "x", "\r\n" + strings.Repeat("\x00", 1<<20)} {
		message := []byte("From: x\r\n" + line + "\r\n\r\nend\r\n") // in the form of the wire
		s.deliver(t, message, "alice@"+testDomain)
		got := s.fetchAll(t, "alice")
		if len(got) != 1 {
			t.Fatalf("%d messages", len(got))
		}
		sameOctets(t, withoutTrace(t, got[0]), message)
	}
}

// TestOversizeMessage: over the limit it is refused and what follows it is commands;
// without end it is dropped.
func TestOversizeMessage(t *testing.T) {
	t.Parallel()
	const limit, swallowed = 64 << 10, 3 * 64 << 10
	s := newServer(t, tolerant("RESTANTE_SMTP_MAX_MESSAGE_SIZE=64KiB"))
	d := s.talk(t, "smtp")
	for _, size := range []int{limit + 1, limit + 2, 2 * limit, swallowed - 1, swallowed} {
		for _, filling := range []string{"x", ".", "\r", "\n", "\x00", "\r\n.MAIL"} {
			d.envelope("alice@" + testDomain)
			text := strings.Repeat(filling, size/len(filling)+1)[:size-2] + "\r\n"
			text = strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:] // it has its size without these dots
			d.write(text + ".\r\n" + sentinel + "\r\n")
			d.want("", "552 5.3.4 ")
			d.want("", sentinelAnswer)
		}
	}
	for _, filling := range []string{"x", "x\r\n", "..\r\n", "\r", "\r\n", "."} {
		d := s.talk(t, "smtp").envelope("alice@" + testDomain)
		if sent := flood(d, filling, 64<<20); sent > 16<<20 {
			t.Errorf("%q: the server took %d octets", filling, sent)
		}
		if rest, err := io.ReadAll(d.lines); err == nil && !bytes.HasPrefix(rest, []byte("552 5.3.4 ")) {
			t.Errorf("%q: ended with %q", filling, rest)
		}
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages came", n)
	}
	if left := names(t, s.dir+"/data/mail/.tmp"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestOversizeChunk: BDAT is refused, and its chunk is not read as commands; one that
// is beyond all measure ends the connection, and so does one that does not come.
func TestOversizeChunk(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant("RESTANTE_SMTP_MAX_MESSAGE_SIZE=64KiB", "RESTANTE_SMTP_COMMAND_TIMEOUT=2s"))
	chunk := strings.Repeat("RCPT TO:<alice@example.org>\r\nDATA\r\n.\r\n", 1000)
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	d.want("MAIL FROM:<sender@client.example>", "250 ")
	for _, last := range []string{"", " LAST", " last", " X"} {
		d.write(fmt.Sprintf("BDAT %d%s\r\n%s%s\r\n", len(chunk), last, chunk, sentinel))
		d.want("", "502 5.5.1 ")
		d.want("", sentinelAnswer)
	}
	for _, size := range []string{"", " LAST", " -1", " +1", " 0x10", " 1e3", " 18446744073709551616", " 9223372036854775808", " 1 LAST\x00"} {
		d.want("BDAT"+size, "50")
		d.want(sentinel, sentinelAnswer)
	}
	for _, size := range []string{"9223372036854775807", "1000000000"} {
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250 ")
		d.want("BDAT "+size+" LAST", "421 ")
		d.ended()
	}
	d = s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	began := time.Now()
	d.want("BDAT 1000 LAST\r\nx", "421 4.4.2 ")
	d.ended()
	if took := time.Since(began); took > deadline/2 {
		t.Errorf("waited %v for a chunk", took)
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages came", n)
	}
}
