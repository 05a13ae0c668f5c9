package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzSMTPSession plays whole sessions to the whole program: input in pieces of size+1
// octets, in the clear or under TLS, there with injected behind STARTTLS. After each,
// every message that was accepted is whole in its mailboxes, and nothing else is anywhere.
func FuzzSMTPSession(f *testing.F) {
	for i, seed := range fuzzSeeds() {
		f.Add([]byte(seed), byte(i*7), []byte(nil), false)
		f.Add([]byte(seed), byte(0), []byte(nil), false)
		f.Add([]byte(seed), byte(255), []byte(seed), true)
	}
	s := newFuzzServer(f)
	s.tree = s.files(f)
	f.Fuzz(func(t *testing.T, input []byte, size byte, injected []byte, secure bool) {
		s.log.take()
		clear(s.delivered)
		answers := s.play(t, input, int(size)+1, injected, secure)
		s.checkPromises(t, answers)
		if ends := strings.Count("\r\n"+string(input), "\r\n.\r\n"); len(s.delivered) > ends {
			t.Errorf("%d messages, and %d ends of one", len(s.delivered), ends)
		}
		s.checkMailboxes(t)
		if tree := s.files(t); !slices.Equal(tree, s.tree) {
			t.Errorf("on the disk is %q, not %q", tree, s.tree)
		}
		if answers := s.play(t, []byte("NOOP\r\nQUIT\r\n"), 100, nil, false); codes(answers) != "220 250 221" {
			t.Errorf("the next client is answered %q", answers)
		}
		s.checkLog(t)
	})
}

func fuzzSeeds() []string {
	const mail = "MAIL FROM:<sender@client.example>\r\nRCPT TO:<alice@example.org>\r\n"
	const begin = "EHLO client.example\r\n" + mail + "DATA\r\n"
	seeds := []string{
		"", "QUIT\r\n", begin + ".\r\nQUIT\r\n", begin + "Subject: x\r\n\r\n..\r\n.x\r\n.\r\n" + mail + "DATA\r\n.\r\n",
		"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<team@example.org>\r\nRCPT TO:<Bob+x@example.org>\r\nDATA\r\nReturn-Path: x\r\n y\r\nA: b\r\n\r\n\r\r\n.\r\n",
		"EHLO c\r\nMAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<postmaster>\r\nRCPT TO:<\"alice\"@[127.0.0.1]>\r\nDATA\r\n\xff\xfe\r.\r\n.\r\nRSET\r\n",
		begin + strings.Repeat("x", fuzzMessageLimit+1) + "\r\n.\r\nNOOP\r\n", begin + strings.Repeat("x", 4*fuzzMessageLimit),
		begin + strings.Repeat("Received: x\r\n", 60) + "\r\n.\r\nNOOP\r\n", begin + "cut off\r\n.", begin + "cut off\r\n.\r", "EHLO c\r\n" + mail + "BDAT 5 LAST\r\nabcdeDATA\r\n.\r\n",
		"EHLO c\r\n" + mail + "EHLO c\r\nDATA\r\n" + mail + "RSET\r\nDATA\r\n", "STARTTLS\r\nNOOP\r\n", "EHLO c\r\nSTARTTLS\r\n" + mail, "NOOP\nNOOP\r\n\x00\r\nVRFY x\r\n",
		"EHLO c\r\n" + mail + "RCPT TO:<victim@elsewhere.example>\r\nRCPT TO:<@example.org:bob@example.org>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n\r\n.\r\n",
		"EHLO c\rX: y\r\nMAIL FROM:<\"\r\n\"@x>\r\n", "GET / HTTP/1.0\r\n\r\n", "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<" + strings.Repeat("a", 300) + "@example.org>\r\n" + strings.Repeat("y", 5000) + "\r\n",
		"EHLO c\r\nMAIL FROM:<../x@y> \r\nRCPT TO:<../../alice@example.org>\r\nRCPT TO:<alice@example.org/..>\r\nDATA\r\n", "AUTH PLAIN AGEAYg==\r\n",
	}
	for _, end := range classicEnds() {
		seeds = append(seeds, begin+"x"+end+fmt.Sprintf(smuggled, "x"))
	}
	return seeds
}

// play gives the last lines of the answers to one client.
func (s *fuzzServer) play(t *testing.T, input []byte, size int, injected []byte, secure bool) []string {
	t.Helper()
	client, end := newMemoryConn()
	s.conns <- end
	defer client.Close()
	var conn interface {
		net.Conn
		CloseWrite() error
	} = client
	if secure {
		conn = secureClient(t, client, injected)
	}
	type result struct {
		text []byte
		err  error
	}
	all := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(conn)
		all <- result{text, err}
	}()
	for piece := range slices.Chunk(input, size) {
		if _, err := conn.Write(piece); err != nil {
			break // the server has hung up
		}
	}
	_ = conn.CloseWrite()
	_ = client.CloseWrite()
	select {
	case r := <-all:
		if r.err != nil {
			t.Fatalf("the answers end with %v: %q", r.err, r.text)
		}
		return lastLines(t, string(r.text))
	case <-time.After(deadline):
		t.Fatal("hangs")
		return nil
	}
}

// secureClient goes as far as the handshake, with something injected in the clear.
func secureClient(t *testing.T, client memoryConn, injected []byte) *tls.Conn {
	t.Helper()
	const fits = 500 // into what the server reads at once
	lines := bufio.NewReader(client)
	for _, say := range []string{"", "STARTTLS\r\n" + string(injected[:min(len(injected), fits)])} {
		if _, err := io.WriteString(client, say); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	conn := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) // there is nobody between
	if err := conn.Handshake(); err != nil || lines.Buffered() > 0 {
		t.Fatalf("%v, %d octets between answer and handshake", err, lines.Buffered())
	}
	return conn
}

var fuzzReply = regexp.MustCompile(`^[2345]\d\d[ -][ -~]+$`)

// lastLines are those of each reply. A line holds no more than a reply may.
func lastLines(t *testing.T, text string) (lines []string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		if text != "" && !fuzzReply.MatchString(line) {
			t.Fatalf("reply %q", line)
		}
		if text != "" && line[3] == ' ' {
			lines = append(lines, line)
		}
	}
	return lines
}

var acceptedReply = regexp.MustCompile(`^250 2\.0\.0 OK ([a-z0-9]{16})$`)

// checkPromises: a message was answered with 250 exactly if the storage has it.
func (s *fuzzServer) checkPromises(t *testing.T, answers []string) {
	t.Helper()
	n := 0
	for _, answer := range answers {
		if m := acceptedReply.FindStringSubmatch(answer); m != nil {
			if n++; s.delivered[m[1]] == nil {
				t.Errorf("%q, and the storage does not have it", answer)
			}
		}
	}
	if n != len(s.delivered) {
		t.Errorf("%d messages were accepted, %d stored", n, len(s.delivered))
	}
}

// checkMailboxes reads and removes all mail as POP3 does.
func (s *fuzzServer) checkMailboxes(t *testing.T) {
	t.Helper()
	for _, user := range []string{"alice", "bob"} {
		mailbox := user + "@" + testDomain
		want := 0
		for _, mailboxes := range s.delivered {
			if slices.Contains(mailboxes, mailbox) {
				want++
			}
		}
		drop, err := s.mail.OpenMaildrop(context.Background(), mailbox)
		if err != nil {
			t.Fatal(err)
		}
		if drop.Len() != want {
			t.Errorf("%d messages for %s, not %d", drop.Len(), user, want)
		}
		var all []int
		for i := range drop.Len() {
			r, err := drop.Message(i)
			if err != nil {
				t.Fatal(err)
			}
			s.checkMessage(t, r, drop.Octets(i))
			all = append(all, i)
		}
		if n, err := drop.Remove(context.Background(), all); err != nil || n != len(all) {
			t.Fatalf("%d of %d removed, %v", n, len(all), err)
		}
		if err := drop.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (s *fuzzServer) checkMessage(t *testing.T, r io.ReadCloser, octets int64) {
	t.Helper()
	text, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err != nil || int64(len(text)) != octets {
		t.Fatalf("%d octets of %d, %v", len(text), octets, err)
	}
	if !bytes.Equal(wireForm(text), text) || !bytes.HasPrefix(text, []byte("Return-Path: <")) {
		t.Errorf("a message is %q", text)
	}
}

// files are the names of all that is below the root, but for what comes and goes in
// the journal and the directory of users.
func (s *fuzzServer) files(t testing.TB) (all []string) {
	t.Helper()
	journal, run := filepath.Join(s.config.DataDir, "journal"), filepath.Join(s.config.DataDir, "run")
	err := filepath.WalkDir(s.root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == journal || name == run {
			return fs.SkipDir
		}
		if !strings.HasPrefix(e.Name(), directoryFile) {
			all = append(all, name)
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return all
}

// checkLog: no fault of ours, and nothing that a terminal obeys.
func (s *fuzzServer) checkLog(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(s.log.take()) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, `{"time":"`) || strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("in the log: %q", line)
		}
		if strings.Contains(line, `,"level":"ERROR",`) {
			t.Errorf("a fault: %s", line)
		}
	}
}
