package smtpd

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is a connection whose input is known before: it comes in pieces of
// size octets and then ends.
type script struct {
	in     *bytes.Reader
	size   int
	out    bytes.Buffer
	closed chan struct{}
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p[:min(len(p), s.size)]) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { close(s.closed); return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// converse plays input to a server and gives its lines and deliveries.
func converse(t testing.TB, c Config, input []byte, size int) ([]string, []delivery) {
	store := &memory{}
	server := NewServer(c, users{}, store, nil)
	conn := &script{in: bytes.NewReader(input), size: size, closed: make(chan struct{})}
	server.Serve(&once{conn: conn})
	select {
	case <-conn.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("hangs")
	}
	out := conn.out.String()
	if !strings.HasSuffix(out, "\r\n") {
		t.Fatalf("output ends inside a line: %q", out)
	}
	return strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n"), store.deliveries()
}

var replyLine = regexp.MustCompile(`^[245]\d\d( [245]\.\d\.\d+)? [ -~]+$|^250-[ -~]+$|^250 [ -~]+$|^354 [ -~]+$`)

// follow reads input as the replies say it was read: a line for each reply, a
// chunk for BDAT, a message after 354. It gives the messages that were
// answered 250, by the plainest reading of RFC 5321, and what is left.
func follow(t *testing.T, input string, lines []string) (messages []string, rest string) {
	inMessage, first := false, true
	for i, line := range lines {
		if !replyLine.MatchString(line) {
			t.Fatalf("reply %q", line)
		}
		if line[3] == '-' {
			continue
		}
		switch {
		case first:
			first = false
		case line[:3] == "421" || line[:3] == "221":
			return messages, ""
		case inMessage && line[:3] == "552" && farTooLarge(input):
			if i != len(lines)-1 {
				t.Fatalf("%q after a message that was not read to its end", lines[i+1])
			}
			return messages, ""
		case inMessage:
			inMessage = false
			var body string
			body, input = plainMessage(t, input)
			if line[:3] == "250" {
				messages = append(messages, body)
			}
		default:
			command, after, _ := strings.Cut(input, "\r\n")
			input = after
			if n, ok := chunkSize(command); ok && line[:3] == "502" {
				input = input[n:]
			}
			inMessage = line[:3] == "354"
		}
	}
	if inMessage {
		t.Fatal("no reply to a message")
	}
	return messages, input
}

func chunkSize(command string) (int, bool) {
	f := strings.Split(strings.TrimRight(command, " \t"), " ")
	if len(f) < 2 || !strings.EqualFold(f[0], "BDAT") {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.Split(strings.Trim(strings.Join(f[1:], " "), " \t"), " ")[0]))
	return n, err == nil
}

// fuzzLimit is the size of a message that the fuzzed server takes.
const fuzzLimit = 200

// farTooLarge tells whether the message is beyond what the server reads of it.
func farTooLarge(s string) bool {
	if end := strings.Index("\r\n"+s, "\r\n.\r\n"); end >= 0 {
		s = s[:end]
	}
	return len(strings.ReplaceAll("\r\n"+s, "\r\n.", "\r\n"))-2 > fuzzLimit*swallowFactor
}

// plainMessage is the reference for the end of a message and its dots.
func plainMessage(t *testing.T, s string) (body, rest string) {
	var b strings.Builder
	for {
		line, after, ok := strings.Cut(s, "\r\n")
		if !ok {
			t.Fatalf("answered a message that has no end: %q", s)
		}
		if s = after; line == "." {
			return b.String(), s
		}
		b.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
}

func FuzzWire(f *testing.F) {
	hello := "HELO c.example\r\nMAIL FROM:<s@s.example>\r\nRCPT TO:<ann@example.org>\r\n"
	for _, seed := range []string{
		"", "\r\n", "\n", "NOOP\nNOOP\r\n", "NOOP\r\n\r\nQUIT\r\nNOOP\r\n", "NOOP", "EHLO x\r\nBDAT 5\r\nabcdeNOOP\r\n", "STARTTLS\r\nNOOP\r\n",
		hello + "DATA\r\n.\r\n", hello + "DATA\r\nA: b\r\n\r\n..\r\n.\n.\r.\r\n.\r\nMAIL FROM:<x@y.example>\r\n",
		hello + "DATA\r\nReturn-Path: x\r\n y\r\n.\r\nQUIT\r\n", hello + "DATA\r\nno end\r\n.\r", hello + "RCPT TO:<boom@example.org>\r\n",
		hello + "RSET\r\nMAIL FROM:<> SIZE=999\r\nRCPT TO:<\"a b\"@[127.0.0.1]>\r\nDATA\r\n" + strings.Repeat("x", 300) + "\r\n.\r\nNOOP\r\n",
		hello + "BDAT 3 LAST\r\nabcDATA\r\n.\r\n", strings.Repeat("y", 5000) + "\r\nNOOP\r\n", hello + "DATA\r\n" + strings.Repeat("z", 900),
		hello + "RCPT TO:<lazy@example.org>\r\nRCPT TO:<early@example.org>\r\nDATA\r\n1234567890\r\n.\r\nNOOP\r\n",
	} {
		f.Add([]byte(seed), byte(7))
	}
	config := testConfig()
	config.MaxMessageSize, config.MaxErrors, config.MaxRefused = fuzzLimit, 1000, 1000
	f.Fuzz(func(t *testing.T, input []byte, size byte) {
		lines, kept := converse(t, config, input, int(size)+1)
		messages, rest := follow(t, string(input), lines)
		last := lines[len(lines)-1][:3]
		command, after, whole := strings.Cut(rest, "\r\n")
		if n, ok := chunkSize(command); ok && n > len(after) {
			whole = false
		}
		if whole && last != "421" && last != "221" {
			t.Fatalf("no reply to %q", rest)
		}
		if len(messages) != len(kept) {
			t.Fatalf("%d messages sent whole and answered 250, %d delivered", len(messages), len(kept))
		}
		for i, d := range kept {
			if got, want := d.body(t), plainHeader(messages[i]); got != want {
				t.Fatalf("delivered %q, want %q", got, want)
			}
		}
	})
}

// plainHeader is the reference for what a header leaves out.
func plainHeader(s string) string {
	lines := strings.SplitAfter(s, "\n")
	for returnPath.MatchString(lines[0]) {
		for lines = lines[1:]; len(lines) > 0 && strings.HasPrefix(strings.Replace(lines[0], "\t", " ", 1), " "); {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			return ""
		}
	}
	return strings.Join(lines, "")
}

var returnPath = regexp.MustCompile(`^(?i)return-path[ \t]*:`)

// FuzzMessage reads messages in arbitrary pieces into arbitrary buffers.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{"", ".\r\n", "..\r\n.\r\n", "a\r\n.\r\nNOOP\r\n", "a\n.\r\n.\r\r\n.\r\n\r\n.\n\r\n.\r\n", "\r\n\r\n..\r\n..a\r\n.b\r\n\r.\r\n.\r\n", ".\r.\r\n.\r\nX"} {
		f.Add([]byte(seed), byte(0), byte(3))
	}
	f.Fuzz(func(t *testing.T, input []byte, piece, window byte) {
		src := &script{in: bytes.NewReader(input), size: int(piece) + 1}
		pool := &sync.Pool{New: func() any { return new(make([]byte, 4+int(window))) }}
		in := newBuffer(src.Read, 1+int(window)/2, pool)
		m := newMessage(&in, int64(len(input))+1)
		var got bytes.Buffer
		_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{m}, make([]byte, 1+int(window)/3))
		end := bytes.Index(append([]byte("\r\n"), input...), []byte("\r\n.\r\n"))
		if end < 0 {
			if err == nil {
				t.Fatalf("%q has no end but was read as %q", input, got.Bytes())
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", input, err)
		}
		want, rest := plainMessage(t, string(input))
		if got.String() != want {
			t.Fatalf("%q was read as %q, want %q", input, got.String(), want)
		}
		left, err := io.ReadAll(src.in)
		if after := string(in.bytes()) + string(left); err != nil || after != rest {
			t.Fatalf("%q: %q is left, want %q", input, after, rest)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"<>", "<a@b>", "a@b SIZE=1", `<"a\"b c"@b.example>`, "<@a,@[::1]:a@[192.0.2.1]>", "<postmaster>", "<jürgen@münchen.example>",
		"<a@[IPv6:::1]>", "<..@b>", "<\"\r\n\"@b>", "<a@b@c>", "<a@b..c>", "<a@b\x00>", "<\xff@b>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, ok := parsePath(s)
		if !ok {
			return
		}
		if !strings.HasSuffix(s, rest) || rest != "" && rest[0] != ' ' {
			t.Fatalf("%q leaves %q", s, rest)
		}
		if !isText(a.String()) || len(a.String()) > maxAddress {
			t.Fatalf("%q gives %q", s, a)
		}
		again, rest, ok := parsePath("<" + a.String() + ">")
		if !ok || again != a || rest != "" {
			t.Fatalf("%q gives %#v, which reads as %#v %q", s, a, again, rest)
		}
		if strings.ContainsAny(a.domain, "@<>\" ") {
			t.Fatalf("%q has domain %q", s, a.domain)
		}
	})
}

// FuzzTrace has whatever passes the checks stand in a header: it must be
// three fields with short lines, and no more.
func FuzzTrace(f *testing.F) {
	f.Add("client.example", "<s@sender.example>", "<ann@example.org>", []byte{192, 0, 2, 1}, true)
	f.Add("[IPv6:::1]", "<>", "", []byte("0123456789abcdef"), false)
	f.Add("x\ry", "<\"\n\"@x>", "<a@b>", []byte{}, true)
	fields := regexp.MustCompile(`^Return-Path: <[^\r\n]*>\r\n(Delivered-To: [^\r\n]+\r\n)?` +
		`Received: from [^\r\n ]+( \(\[[0-9A-Fa-fIPv:.]+\]\))?\r\n\tby mx.example.org with (UTF8SMTP|ESMTP|SMTP)\r\n` +
		`\tid abc( for <[^\r\n]+>)?;\r\n\t\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n$`)
	f.Fuzz(func(t *testing.T, helo, from, to string, ip []byte, esmtp bool) {
		reverse, _, ok := parsePath(from)
		forward, _, ok2 := parsePath(to)
		if !ok || !isHello(helo) || to != "" && !ok2 {
			return
		}
		remote, _ := netip.AddrFromSlice(ip)
		header := trace{id: "abc", hostname: "mx.example.org", helo: helo, remote: remote, esmtp: esmtp,
			utf8: !reverse.ascii(), from: reverse, to: forward.String(), at: time.Unix(1e9, 0)}.header()
		if !fields.Match(header) {
			t.Fatalf("header %q", header)
		}
		for line := range bytes.Lines(header) {
			if len(line) > 998 {
				t.Fatalf("line of %d octets: %q", len(line), line)
			}
		}
	})
}

// FuzzHeader compares with the plain reading of a whole header section.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{"", "a", "Return-Path: x\r\n y\r\nA: b\r\n\r\nReturn-Path: z\r\n", "return-path :x\nReturn-Path:y", "\r\nReturn-Path: x\r\n",
		"Return-Path: " + strings.Repeat("long", 2000) + "\r\nB: c\r\n", strings.Repeat("Received: x\r\n", 51), " folded\r\nReturn-Path: x\r\n"} {
		f.Add([]byte(seed), byte(9))
	}
	received := regexp.MustCompile(`(?i)(^|\n)received[ \t]*:`)
	emptyLine := regexp.MustCompile(`(^|\n)\r*(\n|$)`)
	f.Fuzz(func(t *testing.T, input []byte, size byte) {
		h := newHeader(nil, bufio.NewReaderSize(&script{in: bytes.NewReader(input), size: int(size) + 1}, headerWindow))
		got, err := io.ReadAll(h)
		section := string(input)
		if loc := emptyLine.FindStringIndex(section); loc != nil {
			section = section[:loc[0]]
		}
		loop := len(received.FindAllString(section, -1)) > maxHops
		if loop != (err != nil) {
			t.Fatalf("loop %v, error %v", loop, err)
		}
		if want := plainHeader(string(input)); err == nil && string(got) != want {
			t.Fatalf("%q was read as %q, want %q", input, got, want)
		}
	})
}
