package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// doonaCases is how many cases of doona's thousands each of its processes tries: it
// sleeps for a second before most.
const doonaCases = 25

// TestAuditDoona has a fuzzer send what it thinks breaks servers: parts of its cases,
// at the same time. It talks without waiting for a greeting, for which the server
// hangs up, and logs in to POP3 too carelessly to get in; so somebody who does both
// well stands between.
func TestAuditDoona(t *testing.T) {
	auditor(t, "doona")
	s := auditServer(t, "ECDSA", serverOptions{settings: allowPlaintext, env: []string{"RESTANTE_SMTP_REJECT_HURRIED=false"}})
	t.Cleanup(func() { s.unharmed(t) })
	// Later ones are megabytes without a line end. The server hangs up on them, and
	// doona takes that for its own end.
	const smtpCases, pop3Cases = 20_000, 8_000
	parts := 16
	if auditQuickly() {
		parts = 2
	}
	for i := range parts {
		user := fmt.Sprintf("user%d@%s", i, testDomain)
		restante(t, s.config, testPassword+"\n", "user", "add", user, "--password-stdin")
		t.Run(fmt.Sprintf("SMTP part %d", i), func(t *testing.T) {
			t.Parallel()
			doona(t, polite(t, s.smtp), "SMTP", smtpCases/parts*i, "-u", user)
		})
		t.Run(fmt.Sprintf("POP3 part %d", i), func(t *testing.T) {
			t.Parallel()
			doona(t, polite(t, s.pop3, "USER "+user, "PASS "+testPassword), "POP", pop3Cases/parts*i, "-u", user, "-v", testPassword)
		})
	}
}

// doona runs some cases from the one with this number on.
func doona(t *testing.T, address, module string, first int, flags ...string) {
	t.Helper()
	out := audit(t, 5*time.Minute, "doona", append([]string{"-m", module, "-t", "127.0.0.1", "-p", portOf(t, address),
		"-o", "0", "-M", strconv.Itoa(doonaCases), "-r", strconv.Itoa(first)}, flags...)...)
	if !strings.Contains(out, fmt.Sprintf("Max requests (%d) completed", doonaCases)) {
		t.Errorf("did not come to its end: %.2000s", out)
	}
}

// polite is an address where each client in turn is led to the server, after the
// greeting and these commands. With commands, the first client gets in by itself: it is
// doona, seeing whether it could.
func polite(t *testing.T, server string, commands ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			first := commands
			if n == 0 {
				first = nil
			}
			if err := lead(client.(*net.TCPConn), server, first); err != nil {
				t.Errorf("leading a client to the server: %v", err)
			}
		}
	}()
	return l.Addr().String()
}

func lead(client *net.TCPConn, server string, commands []string) error {
	defer client.Close()
	c, err := net.Dial("tcp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	lines := bufio.NewReader(c)
	greeting, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	for _, command := range commands {
		if _, err := io.WriteString(c, command+"\r\n"); err != nil {
			return err
		}
		if answer, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(answer, "+OK") {
			return fmt.Errorf("%q, %v to %q", answer, err, command)
		}
	}
	if _, err := io.WriteString(client, greeting); err != nil {
		return nil // it has gone
	}
	go func() {
		_, _ = io.Copy(c, client)         // until it has gone
		_ = c.(*net.TCPConn).CloseWrite() // the server may have gone first
	}()
	_, _ = io.Copy(client, lines)
	_, err = io.Copy(io.Discard, lines) // before the next one logs in, this session has ended
	return ignoreReset(err)
}

// ignoreReset: a server that hangs up on what it will not read resets the connection.
func ignoreReset(err error) error {
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}
