package smtpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// sink is a store that reads as a real one does and keeps nothing.
type sink struct{ buf []byte }

func (s *sink) Deliver(_ context.Context, _ string, _ []string, message io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{message}, s.buf)
}

// repeated is an endless stream of the same octets.
type repeated struct {
	text []byte
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.text[r.at:])
		r.at = (r.at + k) % len(r.text)
		n += k
	}
	return n, nil
}

// BenchmarkMessage reads messages of one kind from memory, header and dots
// and all.
func BenchmarkMessage(b *testing.B) {
	base64 := strings.Repeat(strings.Repeat("YWJj", 19)+"\r\n", 13000)
	for name, body := range map[string]string{
		"lines": base64,
		"dots":  strings.Repeat("...........\r\n", 77000),
		"short": strings.Repeat("\r\n", 500000),
		"one":   strings.Repeat("x", 1000000) + "\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte("Subject: x\r\n\r\n" + body + ".\r\n")
			src := &repeated{text: text}
			in := &buffer{buf: make([]byte, inBuffer), read: src.Read}
			s := &session{server: NewServer(testConfig(), users{}, &sink{make([]byte, 64<<10)}, nil)}
			s.wire = &wire{raw: &script{}, config: s.server.config.Load()}
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.deliver("id", newMessage(in, 1<<30)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTransaction is one small message on an open connection, with
// pipelining, over loopback.
func BenchmarkTransaction(b *testing.B) {
	server := NewServer(testConfig(), users{}, &sink{make([]byte, 64<<10)}, nil)
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	reply := make([]byte, 4096)
	exchange := func(send, end string) {
		if _, err := io.WriteString(conn, send); err != nil {
			b.Fatal(err)
		}
		for n := 0; !bytes.Contains(reply[:n], []byte(end)); {
			k, err := conn.Read(reply[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
	exchange("EHLO client.example\r\n", "250 ")
	envelope := "MAIL FROM:<s@sender.example> SIZE=1000\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
	message := fmt.Sprintf("Subject: x\r\n\r\n%s.\r\n", strings.Repeat("hello\r\n", 100))
	b.ReportAllocs()
	for b.Loop() {
		exchange(envelope, "354 ")
		exchange(message, "250 2.0.0 OK ")
	}
}
