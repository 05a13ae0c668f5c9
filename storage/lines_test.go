package storage

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var lineEndExamples = []struct{ in, wire string }{
	{"", ""},
	{"\n", "\r\n"},
	{"\r\n", "\r\n"},
	{"\r\r\r\n", "\r\n"},
	{"\r", "\r\n"},
	{"\r\r", "\r\n"},
	{"a", "a\r\n"},
	{"a\r", "a\r\n"},
	{"a\rb", "a\rb\r\n"},
	{"a\r\rb\n", "a\r\rb\r\n"},
	{"a\r\r\nb", "a\r\nb\r\n"},
	{"a\nb\r\n\n\r\nc\n", "a\r\nb\r\n\r\n\r\nc\r\n"},
	{"\n\n\n", "\r\n\r\n\r\n"},
	{"\rx\n", "\rx\r\n"},
	{".\n..\n", ".\r\n..\r\n"},
	{"\x00\xff\n", "\x00\xff\r\n"},
}

func TestLineEnds(t *testing.T) {
	for _, c := range lineEndExamples {
		checkLineEnds(t, c.in, 1<<10, 1<<10)
		if got := wireForm(c.in); got != c.wire {
			t.Errorf("the test's own rule makes %q of %q, want %q", got, c.in, c.wire)
		}
	}
}

func TestLineEndsAtBufferEdges(t *testing.T) {
	for _, c := range lineEndExamples {
		for in := 1; in <= 4; in++ {
			for out := 1; out <= 4; out++ {
				checkLineEnds(t, c.in, in, out)
			}
		}
	}
}

// checkLineEnds converts message with an input buffer and reads of these sizes.
func checkLineEnds(t *testing.T, message string, in, out int) {
	t.Helper()
	for _, eol := range []string{diskLineEnd, wireLineEnd} {
		want := withLineEnds(message, eol)
		r := &lineReader{lineEnds: lineEnds{eol: eol}, src: strings.NewReader(message), in: make([]byte, in)}
		var got bytes.Buffer
		buf := make([]byte, out)
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, buf); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("%q with %q, buffers %d and %d: %q, want %q", message, eol, in, out, got.String(), want)
		}
		if n := strings.Count(want, "\n"); r.lines != int64(n) || r.raw != int64(len(message)) {
			t.Errorf("%q: %d lines, %d octets read, want %d and %d", message, r.lines, r.raw, n, len(message))
		}
		for _, text := range []string{message, want} { // the same on the wire
			octets, raw, err := wireSize(strings.NewReader(text), make([]byte, in), make([]byte, out))
			if err != nil || octets != int64(len(wireForm(message))) || raw != int64(len(text)) {
				t.Errorf("wire size of %q: %d of %d, %v, want %d", text, octets, raw, err, len(wireForm(message)))
			}
		}
	}
}

func TestLineReaderIsAReader(t *testing.T) {
	long := strings.Repeat("one line\r\nand\ranother\n\n", 1000)
	r := &lineReader{lineEnds: lineEnds{eol: wireLineEnd}, src: iotest.DataErrReader(strings.NewReader(long)), in: make([]byte, 64)}
	if err := iotest.TestReader(r, []byte(wireForm(long))); err != nil {
		t.Error(err)
	}
}

func TestManyCRsNeedNoMemory(t *testing.T) {
	const n = 10 << 20
	r := &lineReader{lineEnds: lineEnds{eol: wireLineEnd}, in: make([]byte, 1<<10)}
	r.src = io.MultiReader(io.LimitReader(repeat('\r'), n), strings.NewReader("x"))
	got, err := io.Copy(io.Discard, r)
	if err != nil || got != n+3 {
		t.Errorf("%d octets, %v, want %d", got, err, n+3)
	}
}

type repeat byte

func (c repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func TestLineReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	r := &lineReader{lineEnds: lineEnds{eol: wireLineEnd}, in: make([]byte, 8)}
	r.src = io.MultiReader(strings.NewReader("cut off"), iotest.ErrReader(broken))
	got, err := io.ReadAll(r)
	if !errors.Is(err, broken) || string(got) != "cut off" {
		t.Errorf("%q, %v: a failed read must not end the line", got, err)
	}
	r = &lineReader{src: stuck{}, in: make([]byte, 8)}
	if _, err := r.Read(make([]byte, 8)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("reader that brings nothing: %v", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func FuzzLineEnds(f *testing.F) {
	for _, c := range lineEndExamples {
		f.Add([]byte(c.in), uint8(3), uint8(2))
	}
	f.Fuzz(func(t *testing.T, message []byte, in, out uint8) {
		checkLineEnds(t, string(message), int(in)+1, int(out)+1)
	})
}
