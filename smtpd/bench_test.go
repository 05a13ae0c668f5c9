package smtpd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
)

// sink is a store that reads as a real one does and keeps nothing.
type sink struct {
	boundless
	buf []byte
}

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
		"prose": strings.Repeat("Some words. And more of them, until the line has its end.\r\n", 17000),
		"dots":  strings.Repeat("...........\r\n", 77000),
		"short": strings.Repeat("\r\n", 500000),
		"one":   strings.Repeat("x", 1000000) + "\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte("Subject: x\r\n\r\n" + body + ".\r\n")
			src := &repeated{text: text}
			s := &session{server: NewServer(testConfig(), users{}, &sink{buf: make([]byte, 64<<10)}, nil)}
			s.wire = &wire{raw: &script{}, config: s.server.config.Load()}
			in := newBuffer(src.Read, waiting, &s.server.buffers)
			in.grow()
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.deliver("id", newMessage(&in, 1<<30)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchServer is a server with a log that is written and thrown away.
func benchServer(b *testing.B) *Server {
	server := NewServer(testConfig(), users{}, &sink{buf: make([]byte, 64<<10)}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	b.Cleanup(func() { server.Close() })
	return server
}

// What a benchmark's client sends for a message of 4 KiB.
const (
	benchHello = "EHLO client.example\r\n"
	benchMail  = "MAIL FROM:<sender@sender.example> SIZE=4096\r\n"
	benchRcpt  = "RCPT TO:<ann@example.org>\r\n"
	benchData  = "DATA\r\n"
)

func benchMessage() string {
	header := "From: <sender@sender.example>\r\nTo: <ann@example.org>\r\nSubject: hello\r\nMessage-ID: <1@sender.example>\r\n\r\n"
	line := strings.Repeat("hello ", 12) + "\r\n"
	return header + strings.Repeat(line, (4096-len(header))/len(line)) + ".\r\n"
}

// A talker is a client that costs little.
type talker struct {
	b       *testing.B
	conn    net.Conn
	reply   [512]byte
	message []byte
}

// newTalker connects and says EHLO.
func newTalker(b *testing.B, addr net.Addr, message string) *talker {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		b.Fatal(err)
	}
	t := &talker{b: b, conn: conn, message: []byte(message)}
	t.exchange(nil, "220 ")
	t.exchange([]byte(benchHello), "250 ")
	return t
}

// exchange sends and reads until something is in the replies.
func (t *talker) exchange(send []byte, end string) {
	if _, err := t.conn.Write(send); err != nil {
		t.b.Fatal(err)
	}
	for n := 0; !bytes.Contains(t.reply[:n], []byte(end)); {
		k, err := t.conn.Read(t.reply[n:])
		if err != nil {
			t.b.Fatalf("%q after %q", t.reply[:n], send)
		}
		n += k
	}
}

// deliver sends a message, its envelope in one piece.
func (t *talker) deliver() {
	t.exchange([]byte(benchMail+benchRcpt+benchData), "354 ")
	t.exchange(t.message, "250 2.0.0 OK ")
}

func serveLoopback(b *testing.B) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go benchServer(b).Serve(l)
	return l.Addr()
}

// BenchmarkTransaction is one message of 4 KiB on an open connection over
// loopback, both ends in this process.
func BenchmarkTransaction(b *testing.B) {
	b.Run("pipeline", func(b *testing.B) {
		t := newTalker(b, serveLoopback(b), benchMessage())
		defer t.conn.Close()
		b.ReportAllocs()
		for b.Loop() {
			t.deliver()
		}
	})
	b.Run("step", func(b *testing.B) {
		t := newTalker(b, serveLoopback(b), benchMessage())
		defer t.conn.Close()
		b.ReportAllocs()
		for b.Loop() {
			t.exchange([]byte(benchMail), "250 ")
			t.exchange([]byte(benchRcpt), "250 ")
			t.exchange([]byte(benchData), "354 ")
			t.exchange(t.message, "250 2.0.0 OK ")
		}
	})
}

// BenchmarkConnection is a connection for each message of 4 KiB.
func BenchmarkConnection(b *testing.B) {
	addr, message := serveLoopback(b), benchMessage()
	b.ReportAllocs()
	for b.Loop() {
		t := newTalker(b, addr, message)
		t.deliver()
		t.exchange([]byte("QUIT\r\n"), "221 ")
		t.conn.Close()
	}
}

// BenchmarkCPU is what one message of 4 KiB costs this package and go-smtp,
// without the network.
func BenchmarkCPU(b *testing.B) {
	b.ReportAllocs()
	c := &canned{pieces: []string{benchHello, benchMail, benchRcpt, benchData, benchMessage()}, rounds: b.N, quiet: true}
	c.closed = make(chan struct{})
	server := benchServer(b)
	b.ResetTimer()
	_ = server.Serve(&once{conn: c})
	<-c.closed
}

// BenchmarkMemory tells the memory of a connection, its client's end
// included: one that has delivered a message and waits, and one that is held
// up inside a message.
func BenchmarkMemory(b *testing.B) {
	for name, text := range map[string]string{"idle": benchMessage(), "message": strings.Repeat("x", 1<<20)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(memoryOf(b, 200, text), "B/connection")
			}
		})
	}
}

func memoryOf(b *testing.B, connections int, text string) float64 {
	addr := serveLoopback(b)
	before := inUse()
	for range connections {
		t := newTalker(b, addr, "")
		defer t.conn.Close()
		t.exchange([]byte(benchMail+benchRcpt+benchData), "354 ")
		if _, err := io.WriteString(t.conn, text); err != nil {
			b.Fatal(err)
		}
		if strings.HasSuffix(text, "\r\n.\r\n") {
			t.exchange(nil, "250 2.0.0 OK ")
		}
	}
	return float64(inUse()-before) / float64(connections)
}

// inUse is heap and stacks, in octets.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // a pool keeps what it has through the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
