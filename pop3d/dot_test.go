package pop3d

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// unstuff reads a multi-line body octet by octet as a client does, up to the
// termination octet, and returns it with what follows.
func unstuff(wire []byte) (body, rest []byte, whole bool) {
	for len(wire) > 0 {
		end := bytes.IndexByte(wire, '\n')
		if end < 0 {
			return body, wire, false
		}
		line := wire[:end+1]
		wire = wire[end+1:]
		if string(line) == ".\r\n" {
			return body, wire, true
		}
		if line[0] == '.' {
			line = line[1:]
		}
		body = append(body, line...)
	}
	return body, nil, false
}

// stuff runs a message through sendMessage in pieces of the given length.
func stuff(tb testing.TB, message string, lines, piece int) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := bufio.NewWriterSize(&out, 16)
	r := io.Reader(&pieces{text: message, length: piece})
	if piece == 0 {
		r = strings.NewReader(message)
	}
	if err := sendMessage(w, r, int64(len(message)), lines); err != nil {
		tb.Fatalf("%q: %v", message, err)
	}
	w.WriteString(".\r\n")
	w.Flush()
	return out.Bytes()
}

// pieces yields a text a few octets at a time.
type pieces struct {
	text   string
	length int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(b, p.text[:min(p.length, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

func TestDotStuffing(t *testing.T) {
	for _, test := range []struct{ message, want string }{
		{"", ".\r\n"},
		{"\r\n", "\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{"..\r\n", "...\r\n.\r\n"},
		{"a.\r\n.b\r\n", "a.\r\n..b\r\n.\r\n"},
		{"\r\n.\r\n.\r\n", "\r\n..\r\n..\r\n.\r\n"},
		{"a\r.b\r\n", "a\r.b\r\n.\r\n"},
	} {
		for piece := range 4 {
			if got := stuff(t, test.message, wholeMessage, piece); string(got) != test.want {
				t.Errorf("%q in pieces of %d: %q, want %q", test.message, piece, got, test.want)
			}
		}
	}
}

func TestTop(t *testing.T) {
	const message = "From: a\r\nX: y\r\n\r\n.one\r\n\r\nthree\r\n"
	for _, test := range []struct {
		message string
		lines   int
		want    string
	}{
		{message, 0, "From: a\r\nX: y\r\n\r\n"},
		{message, 1, "From: a\r\nX: y\r\n\r\n.one\r\n"},
		{message, 2, "From: a\r\nX: y\r\n\r\n.one\r\n\r\n"},
		{message, 3, message},
		{message, 4, message},
		{"From: a\r\n", 0, "From: a\r\n"},
		{"From: a\r\n\r\n", 5, "From: a\r\n\r\n"},
		{"\r\nbody\r\n", 0, "\r\n"},
		{"a\r\nb\r\n", 1, "a\r\nb\r\n"},
		{"", 0, ""},
	} {
		for piece := range 5 {
			body, rest, whole := unstuff(stuff(t, test.message, test.lines, piece))
			if string(body) != test.want || len(rest) > 0 || !whole {
				t.Errorf("TOP %d of %q in pieces of %d: %q %q %t, want %q",
					test.lines, test.message, piece, body, rest, whole, test.want)
			}
		}
	}
}

// A message that is not what was announced must not look whole.
func TestSendMessageRefusesWrongSize(t *testing.T) {
	for _, test := range []struct {
		name   string
		text   string
		end    error
		octets int64
	}{
		{"short", "a\r\n", io.EOF, 4},
		{"long", "ab\r\n", io.EOF, 3},
		{"no last line end", "ab", io.EOF, 2},
		{"read error", "a\r\n", io.ErrUnexpectedEOF, 3},
	} {
		for _, lines := range []int{wholeMessage, 9} {
			message := io.MultiReader(strings.NewReader(test.text), iotest.ErrReader(test.end))
			if err := sendMessage(bufio.NewWriter(io.Discard), message, test.octets, lines); err == nil {
				t.Errorf("%s, %d lines: no error", test.name, lines)
			}
		}
	}
}

func FuzzDot(f *testing.F) {
	f.Add("a\r\n.\r\n..\r\n", uint8(0), 0)
	f.Add("From: x\n\n.a\n..\n", uint8(3), 1)
	f.Add(".", uint8(1), 7)
	f.Fuzz(func(t *testing.T, text string, piece uint8, lines int) {
		message := wireForm(text)
		body, rest, whole := unstuff(stuff(t, message, wholeMessage, int(piece)))
		if string(body) != message || len(rest) > 0 || !whole {
			t.Errorf("%q came back as %q, then %q, %t", message, body, rest, whole)
		}
		lines = max(lines, 0)
		body, rest, whole = unstuff(stuff(t, message, lines, int(piece)))
		if want := topOf(message, lines); string(body) != want || len(rest) > 0 || !whole {
			t.Errorf("TOP %d of %q: %q, then %q, %t, want %q", lines, message, body, rest, whole, want)
		}
	})
}

// wireForm makes any text a message in wire form.
func wireForm(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, "\r\n") + "\r\n")
	}
	return b.String()
}

// topOf is TOP by its definition: header, blank line, lines.
func topOf(message string, lines int) string {
	var b strings.Builder
	body := false
	for line := range strings.Lines(message) {
		if body {
			if lines == 0 {
				break
			}
			lines--
		}
		b.WriteString(line)
		body = body || line == "\r\n"
	}
	return b.String()
}
