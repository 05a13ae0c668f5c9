package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// caller is a client of one connection, for tests that speak by themselves.
type caller struct {
	t     *testing.T
	port  string // smtp, pop3 or pop3s
	conn  net.Conn
	lines *bufio.Reader
	until time.Time // that it was allowed, or zero
}

// renew gives the next exchange its own time: commands, or thousands of other clients,
// may have come in between.
func (d *caller) renew() {
	if end := time.Now().Add(deadline); end.After(d.until) {
		_ = d.conn.SetDeadline(end) // what is closed says so when it is used
	}
}

// dial connects to the port smtp, pop3 or pop3s.
func (s *testServer) dial(t *testing.T, port string) *caller {
	t.Helper()
	address := map[string]string{"smtp": s.smtp, "pop3": s.pop3, "pop3s": s.pop3s}[port]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &caller{t: t, port: port, conn: conn, lines: bufio.NewReader(conn)}
	d.renew()
	return d
}

// talk connects and reads the greeting.
func (s *testServer) talk(t *testing.T, port string) *caller {
	t.Helper()
	d := s.dial(t, port)
	if port == "pop3s" {
		d.handshake(s.clientTLS())
	}
	d.ask("")
	return d
}

func (d *caller) handshake(c *tls.Config) *x509.Certificate {
	d.t.Helper()
	d.renew()
	conn := tls.Client(d.conn, c)
	if err := conn.Handshake(); err != nil {
		d.t.Fatalf("%s: %v", d.port, err)
	}
	d.conn, d.lines = conn, bufio.NewReader(conn)
	return conn.ConnectionState().PeerCertificates[0]
}

// ask sends a command, if there is one, and returns the last line of the reply.
func (d *caller) ask(command string) string {
	d.t.Helper()
	if command != "" {
		d.write(command + "\r\n")
	}
	for {
		line := d.line()
		if len(line) < 4 || line[3] != '-' || line[0] < '0' || line[0] > '9' {
			return line
		}
	}
}

// want asks and expects an answer that begins like this.
func (d *caller) want(command, beginning string) string {
	d.t.Helper()
	answer := d.ask(command)
	if !strings.HasPrefix(answer, beginning) {
		d.t.Fatalf("%s: the answer to %.80q is %q, want %q...", d.port, command, answer, beginning)
	}
	return answer
}

func (d *caller) write(raw string) {
	d.t.Helper()
	d.renew()
	if _, err := io.WriteString(d.conn, raw); err != nil {
		d.t.Fatalf("%s: %v", d.port, err)
	}
}

// line reads a line and takes its CRLF off.
func (d *caller) line() string {
	d.t.Helper()
	d.renew()
	line, err := d.lines.ReadString('\n')
	if err != nil {
		d.t.Fatalf("%s: %q and %v instead of a line", d.port, line, err)
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		d.t.Fatalf("%s: %q does not end in CRLF", d.port, line)
	}
	return text
}

// ended expects that the server closes the connection and says nothing more.
func (d *caller) ended() {
	d.t.Helper()
	d.renew()
	if rest, err := io.ReadAll(d.lines); err != nil || len(rest) > 0 {
		d.t.Fatalf("%s: %q and %v instead of the end", d.port, rest, err)
	}
}

// secure starts TLS by STARTTLS or STLS, and tells the server's certificate.
func (d *caller) secure(c *tls.Config) *x509.Certificate {
	d.t.Helper()
	if d.port == "smtp" {
		d.want("EHLO client.example", "250")
		d.want("STARTTLS", "220")
	} else {
		d.want("STLS", "+OK")
	}
	return d.handshake(c)
}

// logIn logs in to POP3; the password is testPassword.
func (d *caller) logIn(user string) *caller {
	d.t.Helper()
	d.want("USER "+user+"@"+testDomain, "+OK")
	d.want("PASS "+testPassword, "+OK")
	return d
}

// envelope goes as far as the answer 354.
func (d *caller) envelope(to ...string) *caller {
	d.t.Helper()
	d.want("EHLO client.example", "250")
	d.want("MAIL FROM:<sender@client.example>", "250")
	for _, rcpt := range to {
		d.want("RCPT TO:<"+rcpt+">", "250")
	}
	d.want("DATA", "354")
	return d
}

// deliver sends a message, stuffed with dots, and returns its message id.
func (s *testServer) deliver(t *testing.T, message []byte, to ...string) (id string) {
	t.Helper()
	d := s.talk(t, "smtp").envelope(to...)
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), message...), []byte("\r\n."), []byte("\r\n.."))
	d.write(string(stuffed[2:]))
	if !bytes.HasSuffix(message, []byte("\r\n")) {
		d.write("\r\n")
	}
	id = strings.TrimPrefix(d.want(".", "250 2.0.0 OK "), "250 2.0.0 OK ")
	d.want("QUIT", "221")
	return id
}

// fetchAll retrieves and removes all messages of a user.
func (s *testServer) fetchAll(t *testing.T, user string) [][]byte {
	t.Helper()
	d := s.talk(t, "pop3s").logIn(user)
	n, err := strconv.Atoi(strings.Fields(d.want("STAT", "+OK "))[1])
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range n {
		number := strconv.Itoa(i + 1)
		size := strings.Fields(d.want("LIST "+number, "+OK "))[2]
		d.want("RETR "+number, "+OK")
		message := d.multiline()
		if strconv.Itoa(len(message)) != size {
			t.Errorf("message %s: %d octets were sent and %s announced", number, len(message), size)
		}
		all = append(all, message)
		d.want("DELE "+number, "+OK")
	}
	d.want("QUIT", "+OK")
	return all
}

// multiline reads the body of a POP3 answer up to its final dot.
func (d *caller) multiline() []byte {
	d.t.Helper()
	var body []byte
	for {
		line := d.line()
		if line == "." {
			return body
		}
		body = append(append(body, strings.TrimPrefix(line, ".")...), "\r\n"...)
	}
}

// wireForm is what becomes of the line ends of a message between sender and
// reader.
func wireForm(message []byte) []byte {
	if len(message) > 0 && !bytes.HasSuffix(message, []byte("\n")) {
		message = append(bytes.Clone(message), '\n')
	}
	return regexp.MustCompile(`\r*\n`).ReplaceAll(message, []byte("\r\n"))
}

// withoutTrace takes off the header fields that delivery puts on top.
func withoutTrace(t *testing.T, message []byte) []byte {
	t.Helper()
	for _, field := range []string{"Return-Path: <", "Delivered-To: ", "Received: from "} {
		if !bytes.HasPrefix(message, []byte(field)) {
			t.Fatalf("%.200q does not begin with %q", message, field)
		}
		for folded := true; folded; folded = len(message) > 0 && message[0] == '\t' {
			_, message, _ = bytes.Cut(message, []byte("\r\n"))
		}
	}
	return message
}

// sameOctets compares messages that may be too large to print.
func sameOctets(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, at-20):min(len(b), at+20)] }
	t.Errorf("%d octets instead of %d; at octet %d got %q, want %q", len(got), len(want), at, around(got), around(want))
}

// failedStart runs "restante serve", which must end by itself with exit status
// 1 and leave every file under dir as it was. It returns what was printed.
func failedStart(t *testing.T, config, dir string, env ...string) string {
	t.Helper()
	before := snapshot(t, dir)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "restante", "--config", config, "serve")
	cmd.Env = append(serveEnv(config), env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Fatalf("exit status %d instead of %d:\n%s", code, exitFailed, out)
	}
	if after := snapshot(t, dir); !slices.Equal(before, after) {
		t.Errorf("the files before\n%s\nand after\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	return string(out)
}

// oneLine expects one line of an error that holds all these parts.
func oneLine(t *testing.T, text string, parts ...string) {
	t.Helper()
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "restante: ") {
		t.Errorf("not one line:\n%s", text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// snapshot lists the files under a directory with mode and size.
func snapshot(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(name)
		if err != nil {
			return err
		}
		size := int64(0)
		segment := strings.HasPrefix(filepath.Base(name), "segment-") // room for the journal, made ahead
		if st.Mode().IsRegular() && !segment {
			size = st.Size()
		}
		all = append(all, fmt.Sprintf("%s %v %d", name, st.Mode(), size))
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// writeFile writes a file that only its owner may read.
func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// writePEM writes one PEM block to a file.
func writePEM(t *testing.T, name, blockType string, data []byte) {
	t.Helper()
	writeFile(t, name, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: data}))
}
