package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// throughProxy is a client that a load balancer says is at this address.
func (s *testServer) throughProxy(t *testing.T, address, client string) (greeting string, c net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(deadline)))
	_, err = fmt.Fprintf(c, "PROXY TCP4 %s 127.0.0.1 4000 25\r\n", client)
	must(t, err)
	greeting, err = bufio.NewReader(c).ReadString('\n')
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return greeting, c
}

// TestFloodFromElsewhere fills what one address and one network may have, with the
// default limits. Others are served, and the refusals are told and logged.
func TestFloodFromElsewhere(t *testing.T) {
	s := newServer(t, serverOptions{env: []string{"RESTANTE_PROXY_TRUSTED=127.0.0.1"}})
	const full, reason = "421 4.3.2 ", "refused a connection"
	for i := range 50 {
		if greeting, _ := s.throughProxy(t, s.smtp, "203.0.113.1"); !strings.HasPrefix(greeting, "220 ") {
			t.Fatalf("connection %d of one address: %q", i, greeting)
		}
	}
	if greeting, _ := s.throughProxy(t, s.smtp, "203.0.113.1"); !strings.HasPrefix(greeting, full) {
		t.Errorf("one more of that address: %q", greeting)
	}
	s.log.one(t, reason, map[string]any{"reason": "too many connections from this address", "remote": "203.0.113.1:4000"})
	for i := range 150 {
		if greeting, _ := s.throughProxy(t, s.smtp, fmt.Sprintf("203.0.113.%d", 2+i/10)); !strings.HasPrefix(greeting, "220 ") {
			t.Fatalf("connection %d of one network: %q", i, greeting)
		}
	}
	if greeting, _ := s.throughProxy(t, s.smtp, "203.0.113.200"); !strings.HasPrefix(greeting, full) {
		t.Errorf("one more of that network: %q", greeting)
	}
	if greeting, _ := s.throughProxy(t, s.smtp, "203.0.114.1"); !strings.HasPrefix(greeting, "220 ") {
		t.Errorf("the network beside it: %q", greeting)
	}
	if greeting, _ := s.throughProxy(t, s.pop3, "203.0.113.1"); !strings.HasPrefix(greeting, "+OK ") {
		t.Errorf("to fetch mail, from the address that sends too much: %q", greeting)
	}
}

// TestFloodOfNewConnections: who comes again and again is let in 300 times a minute.
func TestFloodOfNewConnections(t *testing.T) {
	s := newServer(t, serverOptions{env: []string{"RESTANTE_PROXY_TRUSTED=127.0.0.1"}})
	const perMinute = 300
	for i := range perMinute {
		greeting, c := s.throughProxy(t, s.pop3, "198.51.100.1")
		if !strings.HasPrefix(greeting, "+OK ") {
			t.Fatalf("connection %d: %q", i, greeting)
		}
		_, err := io.WriteString(c, "QUIT\r\n")
		must(t, err)
		_, err = io.Copy(io.Discard, c) // one at a time, so that it is not another limit
		must(t, err)
	}
	if greeting, _ := s.throughProxy(t, s.pop3, "198.51.100.1"); !strings.HasPrefix(greeting, "-ERR [SYS/TEMP] ") {
		t.Errorf("one more in that minute: %q", greeting)
	}
	s.log.one(t, "refused a connection", map[string]any{"reason": "too many new connections from this address in a minute"})
	if greeting, _ := s.throughProxy(t, s.pop3, "198.51.100.2"); !strings.HasPrefix(greeting, "+OK ") {
		t.Errorf("the address beside it: %q", greeting)
	}
}

// TestFloodFewFiles: where the system allows few open files there are fewer
// connections than the settings say, and still a refusal for those that are too many,
// mail for those that are not, and a server that does not spin.
func TestFloodFewFiles(t *testing.T) {
	mayOpen(t, 11_000)
	s := newServer(t, serverOptions{under: []string{"prlimit", "--nofile=1024:1024"}})
	const room, wanted = 1024 * 3 / 4, 1000 + 6000
	s.log.one(t, "the system allows too few open files for smtp.max_connections and pop3.max_connections: there are fewer connections (LimitNOFILE= in a systemd unit, ulimit -n elsewhere)",
		map[string]any{"smtp": 1000 * room / wanted, "pop3": 6000 * room / wanted})
	reader, sender := s.talk(t, "pop3s").logIn("alice"), s.talk(t, "smtp").envelope("bob@"+testDomain)
	var told, refused atomic.Int64
	f := newCrowd(t)
	f.add(5000, s.smtp, func(_ int, c net.Conn) error {
		line, err := bufio.NewReader(c).ReadString('\n')
		if strings.HasPrefix(line, "421 4.3.2 ") {
			told.Add(1)
		}
		return err
	})
	f.add(5000, s.pop3, func(_ int, c net.Conn) error {
		line, err := bufio.NewReader(c).ReadString('\n')
		if strings.HasPrefix(line, "-ERR [SYS/TEMP] ") {
			refused.Add(1)
		}
		return err
	})
	if told.Load() < 4800 || refused.Load() < 4200 {
		t.Errorf("%d senders and %d readers of 5000 each were told that they are too many", told.Load(), refused.Load())
	}
	reader.want("NOOP", "+OK")
	sender.write("Subject: with few files\r\n\r\n")
	sender.want(".", "250 ")
	reader.want("STAT", "+OK 0 ")
	s.rests(t)
	f.end()
	s.recovers(t)
}

// TestFloodNoFiles: when files run out in spite of that, who is there goes on, and the
// server takes connections again as soon as it can. It tells so, and does not spin.
func TestFloodNoFiles(t *testing.T) {
	s := newServer(t, serverOptions{})
	reader, sender := s.talk(t, "pop3s").logIn("alice"), s.talk(t, "smtp").envelope("bob@"+testDomain)
	pid := s.cmd.Process.Pid
	var files unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &files))
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	few := unix.Rlimit{Cur: uint64(len(open)), Max: files.Max}
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil))
	waiting := []*caller{s.dial(t, "smtp"), s.dial(t, "pop3"), s.dial(t, "smtp"), s.dial(t, "pop3")}
	eventually(t, "both protocols tell that they cannot accept", func() bool {
		const says = "cannot accept a connection, trying again"
		return len(s.log.find(says, map[string]any{"address": s.smtp})) > 0 && len(s.log.find(says, map[string]any{"address": s.pop3})) > 0
	})
	reader.want("NOOP", "+OK")
	sender.write("Subject: small\r\n\r\n")
	last := sender.ask(".")
	if !strings.HasPrefix(last, "250 ") && !strings.HasPrefix(last, "451 ") {
		t.Errorf("a message without files: %q", last)
	}
	s.rests(t)
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &files, nil))
	for _, d := range waiting {
		d.ask("") // the greeting, late
		d.conn.Close()
	}
	s.recovers(t)
}

// rests expects that a server from which nobody wants anything comes to rest, be it that
// it has to tidy up first: one that spins never does.
func (s *testServer) rests(t *testing.T) {
	t.Helper()
	eventually(t, "the server does next to nothing", func() bool {
		before, began := cpuTime(t, s.cmd.Process.Pid), time.Now()
		time.Sleep(500 * time.Millisecond) // what is measured is a time
		return cpuTime(t, s.cmd.Process.Pid)-before < time.Since(began)/4
	})
}

// cpuTime is the processor time that a process has used.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ") // after the name
	const user, system = 11, 12
	var ticks time.Duration
	for _, field := range []int{user, system} {
		n, err := strconv.Atoi(strings.Fields(rest)[field])
		must(t, err)
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // in which unit Linux shows them
}
