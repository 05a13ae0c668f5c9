package storage

import (
	"bytes"
	"io"
	"sync"
)

const (
	diskLineEnd = "\n"
	wireLineEnd = "\r\n"
)

// lineEnds rewrites the line ends of a message to eol. It alone decides what a
// line end is: any number of CRs and then LF are one, a CR elsewhere is content,
// and a last line without an end is given one. CRs that a message ends with
// belong to the end it is given, so the outcome does not change when it is
// rewritten again. A message without octets has no line and stays as it is.
//
// Sizes are counted, files written and messages sent through this one type;
// that is why an announced size is the size of what is sent. With eol of one
// octet, the wire size is the number of octets written plus lines.
type lineEnds struct {
	eol   string
	lines int64  // line ends written
	held  int64  // CRs read whose meaning the next octet decides
	open  bool   // the last line has content and no end yet
	rest  string // part of a line end for which dst had no room
}

// convert rewrites octets of src into dst until either is used up, and returns
// how many it wrote and read. It writes at least one if dst has room and src,
// held octets or the end of the message call for one.
func (l *lineEnds) convert(dst, src []byte, atEOF bool) (nDst, nSrc int) {
	nDst = copy(dst, l.rest)
	l.rest = l.rest[nDst:]
	for nSrc < len(src) {
		switch c := src[nSrc]; {
		case c == '\r':
			l.held++
			nSrc++
		case nDst == len(dst):
			return nDst, nSrc
		case c == '\n':
			nDst += l.end(dst[nDst:])
			nSrc++
		case l.held > 0:
			nDst += l.release(dst[nDst:])
		default:
			n := l.content(dst[nDst:], src[nSrc:])
			nDst += n
			nSrc += n
		}
	}
	if atEOF && (l.open || l.held > 0) && nDst < len(dst) {
		nDst += l.end(dst[nDst:])
	}
	return nDst, nSrc
}

// count is how many octets convert makes of src in all. Of lines without CRs it
// is known without making them; for the others dst is used.
func (l *lineEnds) count(dst, src []byte, atEOF bool) (octets int64) {
	if l.held == 0 && len(src) > 0 && bytes.IndexByte(src, '\r') < 0 {
		ends := bytes.Count(src, []byte{'\n'})
		octets = int64(len(src) + ends*(len(l.eol)-1))
		l.lines += int64(ends)
		l.open = src[len(src)-1] != '\n'
		src = nil
	}
	for {
		nDst, nSrc := l.convert(dst, src, atEOF)
		if nDst == 0 && nSrc == 0 {
			return octets
		}
		octets += int64(nDst)
		src = src[nSrc:]
	}
}

// end writes a line end, in which the held CRs are absorbed.
func (l *lineEnds) end(dst []byte) int {
	n := copy(dst, l.eol)
	l.rest = l.eol[n:]
	l.held, l.open = 0, false
	l.lines++
	return n
}

// release writes held CRs, which have turned out to be content.
func (l *lineEnds) release(dst []byte) int {
	n := int(min(int64(len(dst)), l.held))
	for i := range n {
		dst[i] = '\r'
	}
	l.held -= int64(n)
	l.open = true
	return n
}

// content copies what surely is content: up to the next LF and the CRs before
// it. It looks no further than dst has room for, so small reads stay cheap. The
// first octet of src is neither CR nor LF.
func (l *lineEnds) content(dst, src []byte) int {
	if len(src) > len(dst) {
		src = src[:len(dst)]
	}
	if i := bytes.IndexByte(src, '\n'); i >= 0 {
		src = src[:i]
	}
	for src[len(src)-1] == '\r' {
		src = src[:len(src)-1]
	}
	l.open = true
	return copy(dst, src)
}

// lineReader reads src with its line ends rewritten.
type lineReader struct {
	lineEnds
	src io.Reader
	in  []byte // buffer for octets of src
	r,
	w int // octets in[r:w] wait
	raw int64 // octets read from src
	err error // what src ended with
}

func (l *lineReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		nDst, nSrc := l.convert(p, l.in[l.r:l.w], l.err == io.EOF)
		l.r += nSrc
		if nDst > 0 {
			return nDst, nil
		}
		if l.err != nil {
			return 0, l.err
		}
		l.fill()
	}
}

// fill reads the next octets of src once those before are used up.
func (l *lineReader) fill() {
	const patience = 100 // reads in a row that bring nothing
	l.r, l.w = 0, 0
	for range patience {
		l.w, l.err = l.src.Read(l.in)
		l.raw += int64(l.w)
		if l.w > 0 || l.err != nil {
			return
		}
	}
	l.err = io.ErrNoProgress
}

const bufferSize = 64 << 10

// buffers is a pool of buffers of bufferSize octets.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[bufferSize]byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf
	}
	return new([bufferSize]byte)
}

func (b *buffers) put(buf *[bufferSize]byte) { b.pool.Put(buf) }

// wireSize reads src to its end. It returns how many octets its wire form has,
// and how many it has as it is. It uses all of in and out.
func wireSize(src io.Reader, in, out []byte) (octets, raw int64, err error) {
	r := &lineReader{lineEnds: lineEnds{eol: wireLineEnd}, src: src, in: in}
	for r.err == nil {
		r.fill()
		octets += r.count(out, r.in[:r.w], r.err == io.EOF)
	}
	if r.err != io.EOF {
		return octets, r.raw, r.err
	}
	return octets, r.raw, nil
}
