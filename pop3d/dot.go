package pop3d

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// dotWriter byte-stuffs what is written to it (RFC 1939 section 3): a line that
// begins with the termination octet gets a second one. Lines end with LF, which
// the wire form has after CR only.
type dotWriter struct {
	w      *bufio.Writer
	inLine bool  // the last octet written was not a line end
	octets int64 // written to it, added dots not counted
}

func (d *dotWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		rest := p[done:]
		if !d.inLine && rest[0] == '.' {
			if err := d.w.WriteByte('.'); err != nil {
				return done, err
			}
		}
		if next := bytes.Index(rest, []byte("\n.")); next >= 0 {
			rest = rest[:next+1]
		}
		n, err := d.w.Write(rest)
		done += n
		d.octets += int64(n)
		if err != nil {
			return done, err
		}
		d.inLine = rest[len(rest)-1] != '\n'
	}
	return done, nil
}

// topWriter passes on the header, the blank line and a number of lines of the
// body (TOP, RFC 1939 section 7), then refuses more with errTopComplete.
type topWriter struct {
	to     io.Writer
	lines  int // of the body, still to come
	inBody bool
	octets int // of the current line so far
	done   bool
	err    error // of the writer behind it
}

var errTopComplete = errors.New("pop3d: enough lines")

func (t *topWriter) Write(p []byte) (int, error) {
	end := t.scan(p)
	n, err := t.to.Write(p[:end])
	t.err = err
	if err == nil && t.done {
		err = errTopComplete
	}
	return n, err
}

// scan counts the lines in p and returns how much of it belongs to the reply.
func (t *topWriter) scan(p []byte) int {
	for at := 0; at < len(p); {
		lf := bytes.IndexByte(p[at:], '\n')
		if lf < 0 {
			t.octets = min(t.octets+len(p)-at, math.MaxInt32)
			return len(p)
		}
		at += lf + 1
		blank := t.octets+lf+1 == len("\r\n")
		t.octets = 0
		switch {
		case t.inBody:
			t.lines--
		case blank:
			t.inBody = true
		}
		if t.inBody && t.lines == 0 {
			t.done = true
			return at
		}
	}
	return len(p)
}

// wholeMessage as a number of body lines asks for everything.
const wholeMessage = -1

// sendMessage copies a message in its wire form to w, byte-stuffed: all of it,
// or its header and as many lines of the body. An error means that what was
// written is not what was announced, so the reply must not be terminated.
func sendMessage(w *bufio.Writer, message io.Reader, octets int64, lines int) error {
	dots := &dotWriter{w: w}
	to := io.Writer(dots)
	top := &topWriter{to: dots, lines: lines}
	if lines != wholeMessage {
		to = top
	}
	_, err := io.Copy(to, message)
	if top.done {
		return top.err
	}
	if err != nil {
		return err
	}
	if dots.octets != octets || dots.inLine {
		return fmt.Errorf("message of %d octets gave %d, last line complete: %t", octets, dots.octets, !dots.inLine)
	}
	return nil
}
