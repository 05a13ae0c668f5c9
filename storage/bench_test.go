package storage

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func BenchmarkLineEnds(b *testing.B) {
	for name, line := range map[string]string{
		"LF":        strings.Repeat("x", 70) + "\n",
		"CRLF":      strings.Repeat("x", 70) + "\r\n",
		"base64":    strings.Repeat("QUJD", 19) + "\n",
		"emptyLine": "\n",
		"longLine":  strings.Repeat("x", 10_000) + "\n",
	} {
		text := strings.Repeat(line, 1<<20/len(line))
		b.Run(name, func(b *testing.B) {
			var bufs buffers
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bufs.wireSize(strings.NewReader(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
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

func BenchmarkOpenMaildrop(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		for name, format := range map[string]string{
			"ours":    "17%08d.%016x.mx.example.org,S=6,W=7",
			"foreign": "17%08d.M%dP1.mx.example.org:2,S",
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s, data := openStore(b)
				for i := range n {
					put(b, filepath.Join(boxDir(data, alice), "cur", fmt.Sprintf(format, i, i)), "hello\n")
				}
				openDrop(b, s, alice).Close() // makes what is missing, and the index
				b.ReportAllocs()
				for b.Loop() {
					m, err := s.OpenMaildrop(context.Background(), alice)
					if err != nil || m.Len() != n || m.Octets(0) != 7 {
						b.Fatal(m.Len(), err)
					}
					m.Close()
				}
			})
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	s, _ := openStore(b)
	deliver(b, s, 1, strings.Repeat(strings.Repeat("x", 70)+"\r\n", 4<<20/72), alice)
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
}
