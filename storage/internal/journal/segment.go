package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// block is the unit of writing. A block that holds an acknowledged record is
// never written again, so that nothing that happens to a later write can damage
// it.
const block = 4096

const (
	segmentMagic = "restante journal"
	frameMagic   = 0x4d415246
	frameHeader  = 32 // octets
	headerOctets = copyOctets + crc32.Size
	// copyOctets is the copy of the header in the first frame of a segment. It has no
	// checksum of its own: with that at its end, that of the frame would come out the
	// same for any copy.
	copyOctets = len(segmentMagic) + 6*8
	// frameOverhead is the octets of a frame besides its records, at most.
	frameOverhead = frameHeader + copyOctets
	maxSegment    = 1 << 30 // octets that are read of a file
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHeader is the first block of a segment.
type segmentHeader struct {
	number uint64 // higher is later; not every number is used
	salt   uint64 // random and not 0, of this use of the file; every frame in it has it
	first  uint64 // sequence number of the first record
	// The segment before, where its valid frames end, and the number of the last
	// record in them: what comes after, if anything, was a write that failed and
	// was not acknowledged.
	prevSalt uint64
	prevEnd  uint64
	prevLast uint64
}

// encode fills the first block of buf.
func (h *segmentHeader) encode(buf []byte) {
	clear(buf[:block])
	n := copy(buf, segmentMagic)
	for _, v := range []uint64{h.number, h.salt, h.first, h.prevSalt, h.prevEnd, h.prevLast} {
		binary.LittleEndian.PutUint64(buf[n:], v)
		n += 8
	}
	binary.LittleEndian.PutUint32(buf[n:], crc32.Checksum(buf[:n], castagnoli))
}

// decodeHeader reads what a first block begins with; false when it is none.
func decodeHeader(b []byte) (h segmentHeader, ok bool) {
	if len(b) < headerOctets || binary.LittleEndian.Uint32(b[copyOctets:]) != crc32.Checksum(b[:copyOctets], castagnoli) {
		return h, false
	}
	return decodeCopy(b)
}

// decodeCopy reads a header that something else has a checksum of.
func decodeCopy(b []byte) (h segmentHeader, ok bool) {
	n := len(segmentMagic)
	if len(b) < copyOctets || string(b[:n]) != segmentMagic {
		return h, false
	}
	for _, v := range []*uint64{&h.number, &h.salt, &h.first, &h.prevSalt, &h.prevEnd, &h.prevLast} {
		*v = binary.LittleEndian.Uint64(b[n:])
		n += 8
	}
	if h.salt == 0 {
		return segmentHeader{}, false
	}
	return h, true
}

// A frame is what one write makes durable: its header (magic, checksum, octets of
// payload, number of records, sequence number of the first, salt of the segment),
// the records, and zeros up to the next block. It is valid as a whole or not at all.
type frame struct {
	first   uint64
	count   uint32
	payload []byte
	octets  int // with header and zeros
}

// beginFrame appends an empty frame to buf, which ends at a block; endFrame
// completes it when the records are there.
func beginFrame(buf []byte) []byte { return append(buf, make([]byte, frameHeader)...) }

func endFrame(buf []byte, start int, salt, first uint64, count int) []byte {
	payload := len(buf) - start - frameHeader
	h := buf[start:]
	binary.LittleEndian.PutUint32(h, frameMagic)
	binary.LittleEndian.PutUint32(h[8:], uint32(payload))
	binary.LittleEndian.PutUint32(h[12:], uint32(count))
	binary.LittleEndian.PutUint64(h[16:], first)
	binary.LittleEndian.PutUint64(h[24:], salt)
	binary.LittleEndian.PutUint32(h[4:], frameSum(h))
	return append(buf, zeros[:roundUp(len(buf))-len(buf)]...)
}

// frameSum is the checksum of a frame without its padding.
func frameSum(b []byte) uint32 { return crc32.Checksum(b[8:], castagnoli) }

// frameEnd is where what looks like a frame ends, without its padding; 0 when b
// begins with none.
func frameEnd(b []byte) int64 {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != frameMagic {
		return 0
	}
	return frameHeader + int64(binary.LittleEndian.Uint32(b[8:]))
}

// decodeFrame reads the frame that b begins with; false when there is none. The
// salt is looked at before the checksum is made, so that a message of things like
// frames takes no time.
func decodeFrame(b []byte, salt uint64) (f frame, ok bool) {
	end := frameEnd(b)
	if end == 0 || end > int64(len(b)) || binary.LittleEndian.Uint64(b[24:]) != salt {
		return f, false
	}
	if binary.LittleEndian.Uint32(b[4:]) != frameSum(b[:end]) {
		return f, false
	}
	f.count = binary.LittleEndian.Uint32(b[12:])
	f.first = binary.LittleEndian.Uint64(b[16:])
	f.payload = b[frameHeader:end]
	f.octets = min(roundUp(int(end)), len(b))
	return f, true
}

// appendRecord adds a record to the payload of a frame.
func appendRecord(buf []byte, kind byte, parts [][]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	buf = binary.AppendUvarint(append(buf, kind), uint64(n))
	for _, p := range parts {
		buf = append(buf, p...)
	}
	return buf
}

// header gives the header of the segment that the frame is the first of: it has a
// copy behind its records. No message passes for one, as it does not know the salt.
func (f *frame) header(salt uint64) (h segmentHeader, ok bool) {
	if len(f.payload) < copyOctets {
		return h, false
	}
	h, ok = decodeCopy(f.payload[len(f.payload)-copyOctets:])
	if h.salt != salt || h.first != f.first {
		return segmentHeader{}, false
	}
	return h, ok
}

// maxRecordHeader is what appendRecord adds at most to the parts.
const maxRecordHeader = 1 + binary.MaxVarintLen32

// errFrame: a frame has a right checksum and wrong content. Nothing that we have
// written looks like this.
var errFrame = errors.New("malformed frame")

// records calls fn for each record of a frame.
func (f *frame) records(fn func(seq uint64, kind byte, record []byte) error) error {
	rest := f.payload
	for i := range uint64(f.count) {
		if len(rest) == 0 {
			return errFrame
		}
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return errFrame
		}
		end := 1 + n + int(size)
		if err := fn(f.first+i, rest[0], rest[1+n:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	return nil
}

// segment is one file of the journal.
type segment struct {
	segmentHeader
	slot  int // tells its file's name
	file  *os.File
	size  int64  // of the file: all its blocks have been written at some time
	end   int64  // where the next frame goes
	last  uint64 // sequence number of the last record; first-1 without one
	stuck bool   // nothing is added any more: it cannot be longer, or its end is not known for sure
	bad   bool   // a write or sync of it failed

	damaged    bool  // when it was opened, frames were missing
	unreadable error // the same, of blocks, or why there is no header
	torn       bool  // there is no header, and no frame shows that there was one
	mended     error // why the header is that of the first frame
}

// mostUnreadable is how many blocks of a segment may be unreadable. Each may take a
// disk half a minute, and one with more has other troubles.
const mostUnreadable = 64

// read gives the first octets of the segment. Blocks that the disk cannot read are
// zeros; lost tells of them.
func (s *segment) read(octets int64, read reader) (b []byte, lost error, err error) {
	b = make([]byte, octets)
	n, err := read(s.file, b, 0)
	if Unreadable(err) {
		n, lost, err = s.readBlocks(b, read)
	}
	if err == io.EOF { // another process is making it longer, or did not come to that
		err = nil
	}
	return b[:n], lost, err
}

// readBlocks reads each block by itself, without the header, which is known.
func (s *segment) readBlocks(b []byte, read reader) (n int, lost, err error) {
	bad := 0
	for n = min(block, len(b)); n < len(b); {
		p := b[n:min(n+block, len(b))]
		k, err := read(s.file, p, int64(n))
		if Unreadable(err) && bad < mostUnreadable {
			bad++
			clear(p)
			k, lost, err = len(p), err, nil
		}
		if n += k; err != nil {
			return n, lost, err
		}
	}
	return n, lost, nil
}

// walk calls fn for each valid frame in the first limit octets, in order. It
// returns where the last one ends, and whether there are others that are damaged:
// behind an invalid frame there can be no valid one, as a write only begins when
// the one before it has succeeded.
func (s *segment) walk(content []byte, limit int64, fn func(f frame) error) (end int64, damaged bool, err error) {
	end = block
	next := s.first
	for at := end; at < min(limit, int64(len(content))); {
		f, ok := decodeFrame(content[at:], s.salt)
		if !ok || f.first < next {
			at += block
			continue
		}
		damaged = damaged || at != end || f.first != next
		if err := fn(f); err != nil {
			return end, damaged, err
		}
		next = f.first + uint64(f.count)
		at += int64(f.octets)
		end = at
	}
	return end, damaged, nil
}

var zeros = bytes.Repeat([]byte{0}, block)

func roundUp(n int) int { return (n + block - 1) / block * block }
