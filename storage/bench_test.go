package storage

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var benchLines = map[string]string{
	"LF":        strings.Repeat("x", 70) + "\n",
	"CRLF":      strings.Repeat("x", 70) + "\r\n",
	"emptyLine": "\n",
	"longLine":  strings.Repeat("x", 10_000) + "\n",
}

// BenchmarkCount is what measuring a file costs.
func BenchmarkCount(b *testing.B) {
	in, out := make([]byte, bufferSize), make([]byte, bufferSize)
	for name, line := range benchLines {
		text := strings.Repeat(line, 1<<20/len(line))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := wireSize(strings.NewReader(text), in, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLineEnds is what sending and storing cost.
func BenchmarkLineEnds(b *testing.B) {
	in, out := make([]byte, bufferSize), make([]byte, bufferSize)
	for name, line := range benchLines {
		text := strings.Repeat(line, 1<<20/len(line))
		for _, eol := range []string{diskLineEnd, wireLineEnd} {
			b.Run(fmt.Sprintf("%s/%q", name, eol), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					r := &lineReader{lineEnds: lineEnds{eol: eol}, src: strings.NewReader(text), in: in}
					for n := 1; n > 0; {
						n, _ = r.Read(out)
					}
					if r.raw != int64(len(text)) {
						b.Fatal(r.raw)
					}
				}
			})
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		text := strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
		for _, recipients := range []int{1, 10} {
			b.Run(fmt.Sprintf("%dKiB/%dmailboxes", size>>10, recipients), func(b *testing.B) {
				s, _ := openStore(b)
				var to []string
				for i := range recipients {
					to = append(to, fmt.Sprintf("user%d@example.org", i))
				}
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					deliver(b, s, n, text, to...)
					n++
				}
			})
		}
	}
}

// largeEnv lets the benchmarks of a maildrop go on to a million messages.
const largeEnv = "RESTANTE_BENCH_LARGE"

// BenchmarkOpenMaildrop is a login as far as the storage goes, and the memory
// that its session holds: names included, and beside them.
func BenchmarkOpenMaildrop(b *testing.B) {
	sizes := []int{100, 10_000, 100_000}
	if os.Getenv(largeEnv) != "" {
		sizes = append(sizes, 1_000_000)
	}
	const own, foreign = "17%08d.%016x.mx.example.org,S=6,W=7", "17%08d.M%dP1.mx.example.org:2,S"
	for _, n := range sizes {
		b.Run(fmt.Sprintf("ours/%d", n), func(b *testing.B) { benchmarkLogin(b, own, n, nil) })
		b.Run(fmt.Sprintf("foreign/%d", n), func(b *testing.B) { benchmarkLogin(b, foreign, n, nil) })
		b.Run(fmt.Sprintf("foreignFirst/%d", n), func(b *testing.B) {
			benchmarkLogin(b, foreign, n, func(s *Store) error { return s.removeIndex(address{"alice", "example.org"}) })
		})
	}
}

func benchmarkLogin(b *testing.B, format string, n int, before func(*Store) error) {
	s, data := openStore(b)
	cur := filepath.Join(boxDir(data, alice), "cur")
	names := 0
	for i := range n {
		name := fmt.Sprintf(format, i, i)
		names += len(name)
		put(b, filepath.Join(cur, name), "hello\n")
	}
	openDrop(b, s, alice).Close() // makes what is missing, and the index
	b.ReportAllocs()
	for b.Loop() {
		if before != nil {
			if err := before(s); err != nil {
				b.Fatal(err)
			}
		}
		m, err := s.OpenMaildrop(context.Background(), alice)
		if err != nil || m.Len() != n || m.Octets(0) != 7 {
			b.Fatal(m.Len(), err)
		}
		m.Close()
	}
	empty := heapInUse()
	m := openDrop(b, s, alice)
	held := float64(heapInUse() - empty)
	m.Close()
	runtime.KeepAlive(m)
	b.ReportMetric(held/float64(n), "octets/message")
	b.ReportMetric((held-float64(names))/float64(n), "octets-beside-name/message")
}

// heapInUse is how many octets of the heap can be reached. Two collections empty
// the pools of buffers.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, _ := openStore(b)
			deliver(b, s, 1, strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72), alice)
			m := openDrop(b, s, alice)
			b.SetBytes(m.Octets(0))
			b.ReportAllocs()
			for b.Loop() {
				r, err := m.Message(0)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}

// BenchmarkUIDL is the answer to UIDL without a number, but for writing it.
func BenchmarkUIDL(b *testing.B) {
	for name, format := range map[string]string{
		"ours":    "17%08d.%016x.mx.example.org,S=6,W=7:2,S",
		"foreign": "17%08d.M%dP1.mx.example.org,S=6,W=7:2,S",
	} {
		b.Run(name, func(b *testing.B) {
			e := newEntry(fmt.Sprintf(format, 1, 1), true, 1)
			b.ReportAllocs()
			for b.Loop() {
				e.uidl()
			}
		})
	}
}
