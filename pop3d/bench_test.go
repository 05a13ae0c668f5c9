package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// benchMessage has lines as base64 has them, and now and then a leading dot.
func benchMessage(octets int) string {
	var b strings.Builder
	b.WriteString("From: bea@example.org\r\nSubject: bench\r\n\r\n")
	for n := 0; b.Len() < octets; n++ {
		if n%50 == 0 {
			b.WriteByte('.')
		}
		b.WriteString(strings.Repeat("x", 76) + "\r\n")
	}
	return b.String()
}

// BenchmarkSendMessage is dot-stuffing alone.
func BenchmarkSendMessage(b *testing.B) {
	message := []byte(benchMessage(1 << 20))
	w := bufio.NewWriterSize(io.Discard, writeBuffer)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if err := sendMessage(w, bytes.NewReader(message), int64(len(message)), wholeMessage); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRetrieve is RETR over loopback, one command at a time.
func BenchmarkRetrieve(b *testing.B) {
	for _, octets := range []int{4 << 10, 1 << 20} {
		for _, secure := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/tls=%t", octets>>10, secure), func(b *testing.B) {
				benchRetrieve(b, benchMessage(octets), secure)
			})
		}
	}
}

func benchRetrieve(b *testing.B, message string, secure bool) {
	config := plain()
	config.TLS = testTLS(b)
	mail := newFakeMail(message)
	octets := []byte(message)
	mail.message = func(int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(octets)), nil }
	c := dial(b, serve(b, config, mail))
	if secure {
		c.lines(b, 1)
		c.write(b, "STLS\r\n")
		c.lines(b, 1)
		c.startTLS(b)
		c.write(b, "NOOP\r\n") // stands for the greeting, which logIn reads
	}
	c.logIn(b)
	c.write(b, "RETR 1\r\n")
	reply := make([]byte, 0, len(message)+4096)
	for !bytes.HasSuffix(reply, []byte("\r\n.\r\n")) {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		reply = append(reply, line...)
	}
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		c.write(b, "RETR 1\r\n")
		if _, err := io.ReadFull(c.r, reply); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommand is the session without a socket.
func BenchmarkCommand(b *testing.B) {
	for _, line := range []string{"NOOP", "STAT", "LIST 2", "UIDL", "RETR 1", "TOP 1 1"} {
		b.Run(strings.ReplaceAll(line, " ", "_"), func(b *testing.B) {
			p := newPlayer(plain(), newFakeMail(dialogMessages...))
			p.logInNow(b)
			w := bufio.NewWriter(io.Discard)
			command := make([]byte, len(line))
			b.ReportAllocs()
			for b.Loop() {
				copy(command, line)
				if err := p.handle(context.Background(), command).write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPipelined is the loop over loopback with commands in batches.
func BenchmarkPipelined(b *testing.B) {
	const batch = 100
	c := dial(b, serve(b, plain(), newFakeMail("a\r\n")))
	c.logIn(b)
	commands := strings.Repeat("STAT\r\n", batch)
	reply := make([]byte, batch*len("+OK 1 3\r\n"))
	b.ReportAllocs()
	for b.Loop() {
		c.write(b, commands)
		if _, err := io.ReadFull(c.r, reply); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/command")
}

// BenchmarkIdle reports the memory of a logged-in session that waits, as seen
// by the Go heap and stacks, client sides included as bare descriptors.
func BenchmarkIdle(b *testing.B) {
	const sessions = 500
	for b.Loop() {
		mails := newFakeMail("a\r\n")
		s, address := start(b, plain(), mails, nil)
		s.backend.Mailstore = sharedMail{mails}
		before := memory()
		clients := make([]*client, sessions)
		for i := range clients {
			clients[i] = dial(b, address)
			clients[i].logIn(b)
			clients[i].write(b, "RETR 1\r\n")
			clients[i].lines(b, 3)
			clients[i].r = nil
		}
		b.ReportMetric(float64(memory()-before)/sessions/1024, "KiB/session")
		s.Close()
		for _, c := range clients {
			c.c.Close()
		}
	}
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// sharedMail lets any number of sessions into one mailbox.
type sharedMail struct{ mail *fakeMail }

func (s sharedMail) Open(context.Context, string) (Maildrop, error) {
	return sharedDrop{&fakeDrop{s.mail, []int{0}}}, nil
}

// sharedDrop is a maildrop without a lock.
type sharedDrop struct{ *fakeDrop }

func (sharedDrop) Close() error { return nil }
