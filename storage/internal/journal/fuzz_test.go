package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// sample is a segment with a few frames.
func sample(tb testing.TB, salt uint64) []byte {
	tb.Helper()
	b := make([]byte, block)
	h := segmentHeader{number: 1, salt: salt, first: 1}
	h.encode(b)
	seq := uint64(1)
	for n := range 4 {
		start := len(b)
		b = beginFrame(b)
		for range n + 1 {
			b = appendRecord(b, kindRecord, [][]byte{make([]byte, n*1000), []byte("x")})
		}
		if n == 0 {
			b = append(b, b[:copyOctets]...)
		}
		b = endFrame(b, start, salt, seq, n+1)
		seq += uint64(n + 1)
	}
	return b
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(f, 1), uint64(1))
	f.Add(sample(f, 1)[:3*block+100], uint64(1))
	f.Add(sample(f, 1)[block:], uint64(1))
	f.Add(sample(f, 0), uint64(0)) // no header has this salt
	f.Fuzz(func(t *testing.T, b []byte, salt uint64) {
		h, ok := decodeHeader(b)
		if !ok && h != (segmentHeader{}) {
			t.Errorf("header %+v of nothing", h)
		}
		fr, ok := decodeFrame(b, salt)
		if ok && (fr.octets < frameHeader || fr.octets > len(b) || len(fr.payload) > fr.octets) {
			t.Errorf("frame of %d octets, %d of payload, in %d", fr.octets, len(fr.payload), len(b))
		}
		if h, ok := fr.header(salt); ok && (h.salt != salt || h.first != fr.first) {
			t.Errorf("header %+v of a frame %d with salt %d", h, fr.first, salt)
		}
		// The payload of a frame with a right checksum may still be anything.
		for _, count := range []uint32{fr.count, 3, math.MaxUint32} {
			octets := 0
			fr := frame{first: fr.first, count: count, payload: b}
			_ = fr.records(func(_ uint64, _ byte, record []byte) error {
				octets += len(record)
				return nil
			})
			if octets > len(b) {
				t.Errorf("records of %d octets in %d", octets, len(b))
			}
		}
		s := segment{segmentHeader: segmentHeader{salt: salt, first: 1}}
		end, _, err := s.walk(b, math.MaxInt64, func(frame) error { return nil })
		if err != nil || end > int64(max(len(b), block)) {
			t.Errorf("walk = %d, %v of %d octets", end, err, len(b))
		}
	})
}

// reseal gives a segment right checksums, so that what is in it is looked at.
// Numbers are kept from overflowing, for which there would have to be 2^56
// records.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < block {
		return b
	}
	resealHeader(b)
	salt := binary.LittleEndian.Uint64(b[len(segmentMagic)+8:])
	for at := block; at+frameHeader <= len(b); at += block {
		h := b[at:]
		binary.LittleEndian.PutUint64(h[24:], salt)
		h[23] = 0
		if payload := binary.LittleEndian.Uint32(h[8:]); int64(payload) <= int64(len(h)-frameHeader) {
			if at == block && int(payload) >= copyOctets {
				again := h[frameHeader+int(payload)-copyOctets:]
				copy(again[len(segmentMagic)+8:], b[len(segmentMagic)+8:][:8])
				copy(again[len(segmentMagic)+16:], h[16:24])
				resealCopy(again)
			}
			binary.LittleEndian.PutUint32(h[4:], frameSum(h[:frameHeader+int(payload)]))
		}
	}
	return b
}

func resealHeader(b []byte) {
	resealCopy(b)
	binary.LittleEndian.PutUint32(b[copyOctets:], crc32.Checksum(b[:copyOctets], castagnoli))
}

func resealCopy(b []byte) {
	n := copy(b, segmentMagic)
	for range 6 {
		b[n+7] = 0
		n += 8
	}
}

// Whatever a file contains, the journal opens or says why not, and if it opens it
// works.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(nil), []byte("x"), false, false)
	f.Add(sample(f, 1), sample(f, 2), false, true)
	f.Add(sample(f, 1)[:3*block+100], []byte(nil), true, false)
	bad := sample(f, 0) // no segment has this salt
	binary.LittleEndian.PutUint32(bad[block+12:], 9)
	f.Add(bad, []byte(nil), true, true)
	f.Fuzz(func(t *testing.T, a, b []byte, sealed, headless bool) {
		dir := t.TempDir()
		for name, content := range map[string][]byte{"segment-0": a, "segment-7": b} {
			if sealed {
				content = reseal(content)
			}
			if headless && len(content) > 0 {
				content = bytes.Clone(content)
				content[0] ^= 1
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, errLast := LastOf(dir)
		o := Options{SegmentSize: 4 * block, MaxSegments: 4, Sync: func(*os.File) error { return nil }}
		j, err := Open(dir, o)
		if err != nil {
			return
		}
		if errLast != nil && !errors.Is(errLast, errHeader) { // such a segment is set aside
			t.Errorf("LastOf = %v, though the journal opens", errLast)
		}
		n := len(replayed(t, j))
		seq := add(t, j, "more")
		want := n
		if seq > j.checkpoint { // else the file had a checkpoint of what is to come
			want++
		}
		shut(t, j)
		if j, err = Open(dir, o); err != nil {
			t.Fatal(err)
		}
		defer shut(t, j)
		if got := len(replayed(t, j)); got != want {
			t.Errorf("%d records after another one, %d before", got, n)
		}
	})
}
