package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestEveryMessageOnce has many clients send while many fetch and delete: each
// message that was accepted is fetched by exactly one of them, as it was sent.
func TestEveryMessageOnce(t *testing.T) {
	const (
		users, senders, fetchers = 10, 50, 50
		perSender                = 200
	)
	s := newServer(t, serverOptions{settings: allowPlaintext})
	for i := range users {
		restante(t, s.config, testPassword+"\n", "user", "add", onceUser(i), "--password-stdin")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	l := &onceLedger{sent: make(map[[sha256.Size]byte]int), fetched: make(map[[sha256.Size]byte]int)}
	var sending, fetching errgroup.Group
	for i := range senders {
		sending.Go(func() error { return l.send(ctx, s.smtp, i, onceUser(i%users), perSender) })
	}
	done := make(chan struct{}) // all is sent
	for i := range fetchers {
		fetching.Go(func() error { return l.fetch(ctx, s.pop3, i, onceUser(i%users), done) })
	}
	err := sending.Wait()
	close(done)
	if err := errors.Join(err, fetching.Wait()); err != nil {
		t.Fatal(err)
	}
	if len(l.sent) != senders*perSender {
		t.Errorf("%d different messages were sent", len(l.sent))
	}
	for sum := range l.fetched {
		if l.sent[sum] == 0 {
			t.Fatal("a message was fetched that nobody has sent")
		}
	}
	for sum := range l.sent {
		if n := l.fetched[sum]; n != 1 {
			t.Fatalf("a message was fetched %d times", n)
		}
	}
	for i := range users {
		if left := s.files(strings.TrimSuffix(onceUser(i), "@"+testDomain)); len(left) > 0 {
			t.Errorf("%d files are left of %s", len(left), onceUser(i))
		}
	}
}

func onceUser(i int) string { return fmt.Sprintf("user%d@%s", i, testDomain) }

// onceLedger has the messages by what they contain.
type onceLedger struct {
	mu            sync.Mutex
	sent, fetched map[[sha256.Size]byte]int
}

func (l *onceLedger) note(in map[[sha256.Size]byte]int, message []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in[sha256.Sum256(message)]++
}

// dialFrom connects from an address of its own, as the server limits those of one.
func dialFrom(ctx context.Context, address string, net3, n int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(net3), byte(n+1))}}
	return d.DialContext(ctx, "tcp", address)
}

const onceTag = "X-Tag: " // the first field that the sender writes

func (l *onceLedger) send(ctx context.Context, address string, n int, to string, messages int) error {
	conn, err := dialFrom(ctx, address, 1, n)
	if err != nil {
		return err
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer c.Close()
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range messages {
		text := fmt.Appendf(nil, "%s%d-%d\n\n", onceTag, n, i)
		for range random.IntN(60) {
			text = append(text, bytes.Repeat([]byte{byte('.' + random.IntN(60))}, random.IntN(100))...)
			text = append(text, '\n')
		}
		err := errors.Join(c.Mail("sender@client.example"), c.Rcpt(to))
		if err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		l.note(l.sent, text)
	}
	return c.Quit()
}

// fetch fetches and deletes until all is sent and a maildrop was empty after that.
func (l *onceLedger) fetch(ctx context.Context, address string, n int, user string, done <-chan struct{}) error {
	for {
		all := false
		select {
		case <-done:
			all = true
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		found, err := l.session(ctx, address, n, user)
		if err != nil {
			return err
		}
		if all && found == 0 {
			return nil
		}
	}
}

// session is one session, which may find the maildrop in use: -1.
func (l *onceLedger) session(ctx context.Context, address string, n int, user string) (found int, err error) {
	conn, err := dialFrom(ctx, address, 2, n)
	if err != nil {
		return 0, err
	}
	c := textproto.NewConn(conn)
	defer c.Close()
	ask := func(command string) (string, error) {
		if command != "" {
			if err := c.PrintfLine("%s", command); err != nil {
				return "", err
			}
		}
		line, err := c.ReadLine()
		if err == nil && !strings.HasPrefix(line, "+OK") && !strings.HasPrefix(line, "-ERR [IN-USE]") {
			err = errors.New(line)
		}
		return line, err
	}
	var line string
	for _, command := range []string{"", "USER " + user, "PASS " + testPassword} {
		if line, err = ask(command); err != nil {
			return 0, err
		}
	}
	if strings.HasPrefix(line, "-ERR") {
		return -1, nil
	}
	var messages [][]byte
	if line, err = ask("STAT"); err == nil {
		_, err = fmt.Sscanf(line, "+OK %d", &found)
	}
	for i := 1; i <= found && err == nil; i++ {
		var text []byte
		if _, err = ask(fmt.Sprint("RETR ", i)); err == nil {
			text, err = c.ReadDotBytes()
			messages = append(messages, text[max(bytes.Index(text, []byte(onceTag)), 0):])
		}
		if err == nil {
			_, err = ask(fmt.Sprint("DELE ", i))
		}
	}
	if err == nil {
		_, err = ask("QUIT")
	}
	for _, m := range messages {
		l.note(l.fetched, m)
	}
	return found, err
}
