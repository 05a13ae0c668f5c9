package smtpd

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base32"
	"net/netip"
	"strings"
	"time"
)

// maxHops is how many Received fields a message may have: RFC 5321 section
// 6.3 wants at least 100 "normally", real paths have far fewer than 50 and
// loops are dear.
const maxHops = 50

// A trace is what the header fields say that delivery adds on top of a
// message (RFC 5321 section 4.4). Every text in it was validated before:
// nothing here can hold CR, LF or a control character.
type trace struct {
	id       string
	hostname string
	helo     string
	remote   netip.Addr // invalid: not known, and left out
	tls      *tls.ConnectionState
	esmtp    bool
	utf8     bool
	from     address
	to       string // the only recipient, "" if there are several
	at       time.Time
}

// header is what is added: Return-Path, Delivered-To for a single recipient,
// Received. Lines end with CRLF and are far shorter than 998 octets.
func (t trace) header() []byte {
	b := make([]byte, 0, 512)
	add := func(parts ...string) {
		for _, part := range parts {
			b = append(b, part...)
		}
	}
	add("Return-Path: <", t.from.String(), ">\r\n")
	if t.to != "" {
		add("Delivered-To: ", t.to, "\r\n")
	}
	add("Received: from ", t.helo)
	if t.remote.IsValid() {
		add(" (", literal(t.remote), ")")
	}
	add("\r\n\tby ", t.hostname, " with ", t.protocol())
	if t.tls != nil {
		add(" (", tlsVersion(t.tls), " cipher ", tls.CipherSuiteName(t.tls.CipherSuite), ")")
	}
	add("\r\n\tid ", t.id)
	if t.to != "" {
		add(" for <", t.to, ">")
	}
	add(";\r\n\t")
	b = t.at.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700")
	return append(b, crlf...)
}

// protocol is the "with" keyword of RFC 3848 or RFC 6531 section 4.3.
func (t trace) protocol() string {
	secure := ""
	if t.tls != nil {
		secure = "S"
	}
	switch {
	case t.utf8:
		return "UTF8SMTP" + secure
	case t.esmtp:
		return "ESMTP" + secure
	}
	return "SMTP" // HELO has no keyword for TLS; the comment tells
}

func tlsVersion(s *tls.ConnectionState) string {
	return strings.Replace(tls.VersionName(s.Version), "TLS ", "TLSv", 1)
}

// newMessageID gives the id of a message that began at a moment: 20 bits of its
// microsecond within the second, then 60 random ones, in lower-case base32hex,
// which sorts as the bits do. So messages of one second keep their order where
// they are sorted by second and id.
func newMessageID(at time.Time) string {
	var b [10]byte
	rand.Read(b[:]) // never fails: the program ends if there is no randomness
	us := at.Nanosecond() / 1000
	b[0], b[1], b[2] = byte(us>>12), byte(us>>4), byte(us<<4)|b[2]&0x0f
	return strings.ToLower(base32.HexEncoding.EncodeToString(b[:]))
}

// newSessionID gives the name of a connection in the log.
func newSessionID() string { return strings.ToLower(rand.Text()[:8]) }

// A header reads a message as it is to be stored: the trace header first. It
// looks at the message's own header section on the way: it leaves out Return-Path fields at the very top (they are those of an earlier
// delivery; RFC 5321 section 4.4 allows ours alone), and reads as replyLoop
// when there are more than maxHops Received fields. Nothing else changes.
//
// A line ends with LF here, because in the stored message it does: what
// readers will take for a header field must be counted as one.
type header struct {
	src  *bufio.Reader
	rest []byte // to be read next: the trace, then of a line in src's buffer
	hops int
	body bool // the empty line has passed
	top  bool // nothing but Return-Path fields has passed
	drop bool // in a Return-Path field at the top
	mid  bool // src is inside a line
	err  error
}

// headerWindow is the size of src: also the longest piece of a line that is
// dealt with at once.
const headerWindow = 4096

func newHeader(trace []byte, src *bufio.Reader) *header {
	return &header{rest: trace, src: src, top: true}
}

func (h *header) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(h.rest) == 0 {
			if h.err != nil || h.body {
				break
			}
			if n > 0 && h.src.Buffered() == 0 {
				break // don't wait while there is something to hand on
			}
			h.next()
			continue
		}
		k := copy(p[n:], h.rest)
		h.rest = h.rest[k:]
		n += k
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	if h.err == nil {
		n, h.err = h.src.Read(p)
	}
	return n, h.err
}

// next takes the next line of the header section, or a piece of a long one.
func (h *header) next() {
	line, err := h.src.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull {
		h.err = err
	}
	if !h.mid {
		h.begin(line)
	}
	h.mid = err != nil
	if !h.drop && h.err != replyLoop {
		h.rest = line
	}
}

// begin looks at the beginning of a line.
func (h *header) begin(line []byte) {
	switch {
	case len(bytes.TrimRight(line, "\r\n")) == 0:
		h.body, h.drop = true, false
	case line[0] == ' ' || line[0] == '\t': // goes with the line before
		h.top = h.top && h.drop
	case h.top && isField(line, "return-path"):
		h.drop = true
	default:
		h.top, h.drop = false, false
		if isField(line, "received") {
			if h.hops++; h.hops > maxHops {
				h.err = replyLoop
			}
		}
	}
}

// isField reports whether a line begins the header field of this name.
func isField(line []byte, name string) bool {
	if len(line) < len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return false
	}
	return bytes.HasPrefix(bytes.TrimLeft(line[len(name):], " \t"), []byte(":"))
}
