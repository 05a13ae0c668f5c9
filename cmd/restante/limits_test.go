package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"restante/cmd/restante/internal/config"
)

// TestLimitsConnections fills a protocol from loopback, where only the limit for
// all connections together holds. The other protocol goes on.
func TestLimitsConnections(t *testing.T) {
	for _, test := range []struct {
		port, greeting string
		limit          int
		refused        map[string]string // ports, and what they say
		served         string
	}{
		{"smtp", "220 ", config.Default().SMTP.MaxConnections, map[string]string{"smtp": "421 4.3.2 "}, "pop3"},
		{"pop3", "+OK ", config.Default().POP3.MaxConnections, map[string]string{"pop3": "-ERR [SYS/TEMP] ", "pop3s": ""}, "smtp"},
	} {
		t.Run(test.port, func(t *testing.T) {
			var files syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
				t.Fatal(err)
			}
			if files.Cur < uint64(test.limit)+200 {
				t.Skipf("only %d open files are allowed", files.Cur)
			}
			s := newServer(t, serverOptions{})
			open := s.fill(t, test.port, test.greeting, test.limit)
			for port, refusal := range test.refused {
				d := s.dial(t, port)
				if refusal != "" {
					d.want("", refusal)
				}
				d.ended()
			}
			s.talk(t, test.served)
			s.log.one(t, "refused a connection", map[string]any{"reason": "too many connections", "open": test.limit})

			open[0].Close()
			eventually(t, "the place of a connection that ended is free", func() bool {
				conn, err := net.Dial("tcp", open[1].RemoteAddr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				line, err := bufio.NewReader(conn).ReadString('\n')
				return err == nil && strings.HasPrefix(line, test.greeting)
			})
		})
	}
}

// fill opens n connections, which are closed at the end of the test.
func (s *testServer) fill(t *testing.T, port, greeting string, n int) []net.Conn {
	t.Helper()
	address := map[string]string{"smtp": s.smtp, "pop3": s.pop3}[port]
	var open []net.Conn
	t.Cleanup(func() {
		for _, conn := range open {
			conn.Close()
		}
	})
	said := make([]byte, len(greeting))
	for len(open) < n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		if _, err := io.ReadFull(conn, said); err != nil || string(said) != greeting {
			t.Fatalf("connection %d: %q, %v", len(open), said, err)
		}
	}
	return open
}

// TestLimitsErrors: after too many errors of a kind the server hangs up.
func TestLimitsErrors(t *testing.T) {
	s := newServer(t, serverOptions{})
	repeat := func(d *caller, command, error, last string) (errors int) {
		t.Helper()
		for ; errors < 200; errors++ {
			answer := d.ask(command)
			if strings.HasPrefix(answer, last) {
				d.ended()
				return errors
			}
			if !strings.HasPrefix(answer, error) {
				t.Fatalf("%q to %q", answer, command)
			}
		}
		t.Fatalf("%d times %q", errors, command)
		return errors
	}
	t.Run("unknown SMTP commands", func(t *testing.T) {
		repeat(s.talk(t, "smtp"), "FOO", "500 ", "421 4.7.0 ")
	})
	t.Run("refused recipients", func(t *testing.T) {
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250")
		d.want("MAIL FROM:<>", "250")
		if n := repeat(d, "RCPT TO:<nobody@"+testDomain+">", "550 5.1.1 ", "421 4.7.0 "); n < 20 {
			t.Errorf("hung up after %d refused recipients", n)
		}
	})
	t.Run("SMTP across STARTTLS", func(t *testing.T) {
		d := s.talk(t, "smtp")
		for range 15 {
			d.want("FOO", "500 ")
		}
		d.secure(s.clientTLS())
		if n := repeat(d, "FOO", "500 ", "421 4.7.0 "); n > 10 {
			t.Errorf("%d more errors after STARTTLS", n)
		}
	})
	t.Run("unknown POP3 commands", func(t *testing.T) {
		repeat(s.talk(t, "pop3"), "FOO", "-ERR unknown", "-ERR too many errors")
	})
	t.Run("logins", func(t *testing.T) {
		d := s.talk(t, "pop3s")
		for range 3 {
			d.want("USER alice@"+testDomain, "+OK")
			d.want("PASS wrong", "-ERR [AUTH] ")
		}
		d.ended()
	})
}

// TestLimitsMessage sets the limits that an operator may set.
func TestLimitsMessage(t *testing.T) {
	const size = 64 << 10
	s := newServer(t, serverOptions{env: []string{"RESTANTE_SMTP_MAX_MESSAGE_SIZE=64KiB", "RESTANTE_SMTP_MAX_RECIPIENTS=101"}})
	restante(t, s.config, "", "alias", "add", "@"+testDomain, "alice@"+testDomain)
	alice := "alice@" + testDomain
	exact := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", size/16)
	exact = exact[:size-2] + "\r\n"

	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	d.want(fmt.Sprintf("MAIL FROM:<> SIZE=%d", size+1), "552 5.3.4 ")
	d.envelope(alice)
	d.write(exact + "x\r\n")
	d.want(".", "552 5.3.4 ")
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages after one that is too large", n)
	}
	d.envelope(alice) // the connection goes on
	d.write(exact)
	d.want(".", "250 ")
	if n := len(s.files("alice")); n != 1 {
		t.Errorf("%d messages after one of exactly the size", n)
	}
	d.want("MAIL FROM:<>", "250")
	for i := range 101 {
		d.want(fmt.Sprintf("RCPT TO:<to%d@%s>", i, testDomain), "250")
	}
	d.want("RCPT TO:<one.more@"+testDomain+">", "452 4.5.3 ")
	d.want("DATA", "354")
	d.write("Subject: to those that were taken\r\n\r\n")
	d.want(".", "250 ")
	if n := len(s.files("alice")); n != 2 {
		t.Errorf("%d messages after one for 101 aliases of one mailbox", n)
	}
	d.want("NOOP "+strings.Repeat("x", 5000), "500 5.5.2 ")
	d.want("NOOP", "250")
}

// TestLimitsMemory: what a message takes of memory does not grow with it.
func TestLimitsMemory(t *testing.T) {
	s := newServer(t, serverOptions{})
	const octets, allowed = 45 << 20, 24 << 20
	s.deliver(t, []byte("Subject: small\r\n\r\n"), "alice@"+testDomain)
	s.fetchAll(t, "alice")
	before := peakMemory(t, s.cmd.Process.Pid)
	line := ".3456789" + strings.Repeat("x", 990) + "\r\n"
	message := []byte("Subject: large\r\n\r\n" + strings.Repeat(line, octets/len(line)))
	s.deliver(t, message, "alice@"+testDomain, "bob@"+testDomain)
	sameOctets(t, bytesAfterHeader(s.fetchAll(t, "alice")[0]), bytesAfterHeader(message))
	if grown := peakMemory(t, s.cmd.Process.Pid) - before; grown > allowed {
		t.Errorf("%d MiB more memory for a message of %d MiB", grown>>20, octets>>20)
	}
}

func bytesAfterHeader(message []byte) []byte {
	_, body, _ := strings.Cut(string(message), "\r\n\r\n")
	return []byte(body)
}

// peakMemory is the most memory that a process has had, in octets.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kib), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
