package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"restante/cmd/restante/internal/control"
)

// The bounds are those that the manual states; what is measured is in the output.
const (
	halfOpenMemory = 448 << 20 // 10,000 connections that do nothing
	attackMemory   = 768 << 20 // everything at once, up to the default limits
	groupMemory    = 400 << 20 // the same, where no more can be had
)

// crowd is connections that are held open.
type crowd struct {
	t    *testing.T
	mu   sync.Mutex
	open []net.Conn
}

func newCrowd(t *testing.T) *crowd {
	f := &crowd{t: t}
	t.Cleanup(f.end)
	return f
}

// add opens n connections, some at the same time, and has each do something first.
// It returns how long the slowest took.
func (f *crowd) add(n int, address string, do func(i int, c net.Conn) error) time.Duration {
	f.t.Helper()
	const together = 64
	var next, slowest atomic.Int64
	var all sync.WaitGroup
	for range together {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n) && !f.t.Failed(); i = next.Add(1) {
				began := time.Now()
				if err := f.one(int(i), address, do); err != nil {
					f.t.Errorf("connection %d to %s: %v", i, address, err)
				}
				took := int64(time.Since(began))
				for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
				}
			}
		})
	}
	all.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
	return time.Duration(slowest.Load())
}

func (f *crowd) one(i int, address string, do func(int, net.Conn) error) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.open = append(f.open, c)
	f.mu.Unlock()
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	return do(i, c)
}

func (f *crowd) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		c.Close()
	}
	f.open = nil
}

// mayOpen skips a test on a machine where it cannot have so many files.
func mayOpen(t *testing.T, n uint64) {
	t.Helper()
	var files syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if files.Cur < n {
		t.Skipf("only %d open files are allowed, not %d", files.Cur, n)
	}
}

// silent is a client that says nothing, or that begins a handshake and goes no
// further: a record of TLS of which only some octets come.
func silent(i int, c net.Conn) error {
	if i%2 == 0 {
		return nil
	}
	_, err := io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
	return err
}

// TestFloodHalfOpen: 10,000 connections that say nothing, or stop in the middle of a
// TLS handshake. Who was there before goes on; those that are too many are told so at
// once; and where there is room others are served.
func TestFloodHalfOpen(t *testing.T) {
	const each = 5000
	mayOpen(t, 2*each+500)
	for _, c := range []struct {
		name string
		env  []string
		smtp int // how many are let in
	}{
		{"default limits", nil, 1000},
		{"raised limits", []string{"RESTANTE_SMTP_MAX_CONNECTIONS=7000", "RESTANTE_POP3_MAX_CONNECTIONS=7000"}, each + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, serverOptions{env: c.env})
			reader := s.talk(t, "pop3s").logIn("alice")
			sender := s.talk(t, "smtp").envelope("bob@" + testDomain)
			var greeted, told atomic.Int64
			f := newCrowd(t)
			slowest := f.add(each, s.smtp, func(_ int, c net.Conn) error {
				line, err := bufio.NewReader(c).ReadString('\n')
				switch {
				case strings.HasPrefix(line, "220 "):
					greeted.Add(1)
				case strings.HasPrefix(line, "421 4.3.2 "):
					told.Add(1)
				case err == nil:
					return fmt.Errorf("%q", line)
				}
				return err
			})
			f.add(each, s.pop3s, silent)
			if n := int(greeted.Load()); n != c.smtp-1 {
				t.Errorf("%d of %d senders were let in, not %d", n, each, c.smtp-1)
			}
			t.Logf("%d senders let in, %d told 421; the slowest answer took %v", greeted.Load(), told.Load(), slowest)
			reader.want("NOOP", "+OK")
			sender.write("Subject: begun before\r\n\r\n")
			sender.want(".", "250 ")
			s.talk(t, "pop3s").logIn("bob").want("STAT", "+OK 1 ")
			if c.smtp > each {
				s.deliver(t, []byte("Subject: in the flood\r\n\r\n"), "bob@"+testDomain)
			} else {
				s.dial(t, "smtp").want("", "421 4.3.2 ")
			}
			s.peaked(t, halfOpenMemory)
			f.end()
			s.recovers(t)
		})
	}
}

// peaked reports the most memory that the server has had, which is bounded.
func (s *testServer) peaked(t *testing.T, bound int) {
	t.Helper()
	peak := peakMemory(t, s.cmd.Process.Pid)
	t.Logf("the peak of the server's memory: %d MiB", peak>>20)
	if bound *= raceCost; peak > bound {
		t.Errorf("more than %d MiB", bound>>20)
	}
}

// recovers expects that a server serves as before once an attack is over, and that
// nothing is left of it.
func (s *testServer) recovers(t *testing.T) {
	t.Helper()
	eventually(t, "a sender is let in", func() bool {
		c, err := net.Dial("tcp", s.smtp)
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(deadline)))
		line, err := bufio.NewReader(c).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "220 ")
	})
	s.deliver(t, []byte("Subject: after the flood\r\n\r\n"), "bob@"+testDomain)
	eventually(t, "no sessions but our own are left", func() bool {
		return len(asJSON[[]control.Session](t, s, "sessions", "list")) <= 3
	})
	eventually(t, "the drafts of messages that did not come to their end are removed", func() bool {
		drafts, err := os.ReadDir(filepath.Join(s.dir, "data", "mail", ".tmp"))
		must(t, err)
		return len(drafts) == 0
	})
}

// TestFloodCombined is everything at once, up to the default limits: a thousand
// senders in the middle of long lines and of messages for many, wrong logins, logins
// that do not end, handshakes that stop, clients that are only there, and mail that is
// asked for and not read.
func TestFloodCombined(t *testing.T) {
	ownMemory(t)
	mayOpen(t, 8000)
	s := newServer(t, costlyLogins())
	s.besieged(t, attackMemory)
}

// TestFloodInControlGroup is the same in a control group with less memory than that,
// as MemoryMax= of a systemd unit gives: the server collects its garbage sooner.
func TestFloodInControlGroup(t *testing.T) {
	ownMemory(t)
	mayOpen(t, 8000)
	group := memoryGroup(t, groupMemory)
	o := costlyLogins()
	o.under = []string{"sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, group}
	s := newServer(t, o)
	s.log.one(t, "memory limit of the control group", map[string]any{"octets": fmt.Sprint(float64(groupMemory / 10 * 9))})
	s.besieged(t, groupMemory)
}

// ownMemory skips a test of nothing but memory under the race detector, which takes
// several times of it.
func ownMemory(t *testing.T) {
	t.Helper()
	if raceCost > 1 {
		t.Skip("with the race detector the memory is not that of the program")
	}
}

func costlyLogins() serverOptions {
	return serverOptions{env: []string{"RESTANTE_AUTH_ARGON2_MEMORY=19MiB", "RESTANTE_AUTH_ARGON2_TIME=2"}}
}

// memoryGroup makes a control group that may have so much memory.
func memoryGroup(t *testing.T, octets int) string {
	t.Helper()
	name := fmt.Sprintf("restante-test-%d", os.Getpid())
	for dir, limit := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		group := filepath.Join(dir, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() {
			// The server, which ended just now, may be in it for a moment.
			eventually(t, "the control group is removed", func() bool { return os.Remove(group) == nil })
		})
		if err := os.WriteFile(filepath.Join(group, limit), fmt.Append(nil, octets), 0o600); err != nil {
			t.Skip(err)
		}
		return group
	}
	t.Skip("no control groups for memory")
	return ""
}

// besieged attacks a server from all sides.
func (s *testServer) besieged(t *testing.T, memory int) {
	t.Helper()
	const readers, large = 40, 4 << 20
	var everybody []string
	for i := range readers {
		name := fmt.Sprintf("reader%d@%s", i, testDomain)
		restante(t, s.config, testPassword+"\n", "user", "add", name, "--password-stdin")
		everybody = append(everybody, name)
	}
	restante(t, s.config, "", "alias", "add", "@"+testDomain, everybody[0])
	s.deliver(t, []byte("Subject: large\r\n\r\n"+strings.Repeat(strings.Repeat("x", 1022)+"\r\n", large>>10)), everybody...)

	f, c := newCrowd(t), s.clientTLS()
	began := time.Now()
	f.add(890, s.smtp, inMessage)
	f.add(100, s.smtp, func(_ int, c net.Conn) error {
		return visit(c).say("EHLO client.example\r\n", "MAIL FROM:<"+strings.Repeat("a", 4000))
	})
	f.add(100, s.pop3s, secured(c, func(i int, v visitor) error {
		return v.say(fmt.Sprintf("USER nobody%d@%s\r\nPASS wrong\r\n", i, testDomain))
	}))
	f.add(200, s.pop3s, secured(c, func(_ int, v visitor) error { return v.say("AUTH PLAIN\r\n", strings.Repeat("QUFB", 3000)) }))
	f.add(readers, s.pop3s, secured(c, func(i int, v visitor) error {
		return v.say("USER "+everybody[i-1]+"\r\n", "PASS "+testPassword+"\r\n", "RETR 1\r\n")
	}))
	f.add(300, s.pop3s, secured(c, func(_ int, v visitor) error {
		_, err := v.answer()
		return err
	}))
	f.add(5300, s.pop3s, silent)
	t.Logf("%d connections after %v", len(f.open), time.Since(began))

	s.deliver(t, []byte("Subject: meanwhile\r\n\r\n"), "alice@"+testDomain)
	s.talk(t, "pop3s").logIn("alice").want("STAT", "+OK 1 ")
	s.peaked(t, memory)
	f.end()
	s.recovers(t)
}

// inMessage is a sender that stops inside a large message, which has one long line or
// many, and is for one recipient or for a hundred.
func inMessage(i int, c net.Conn) error {
	rcpts := 1
	if i%8 == 0 {
		rcpts = 100
	}
	envelope := "MAIL FROM:<sender@client.example>\r\n"
	for n := range rcpts {
		envelope += fmt.Sprintf("RCPT TO:<to%d@%s>\r\n", n, testDomain)
	}
	line := strings.Repeat("x", 510) + "\r\n"
	if i%2 == 0 {
		line = strings.Repeat("x", 512)
	}
	v := visit(c)
	if err := v.say("EHLO client.example\r\n", envelope); err != nil {
		return err
	}
	for range rcpts { // the answer to MAIL, and all but one of those to RCPT
		if _, err := v.answer(); err != nil {
			return err
		}
	}
	return v.say("DATA\r\n", strings.Repeat(line, 400))
}

// visitor is a client of which there are too many for each to be a caller.
type visitor struct {
	net.Conn
	lines *bufio.Reader
}

func visit(c net.Conn) visitor { return visitor{c, bufio.NewReaderSize(c, 512)} }

// secured is a client that talks by TLS.
func secured(config *tls.Config, do func(i int, v visitor) error) func(int, net.Conn) error {
	return func(i int, c net.Conn) error { return do(i, visit(tls.Client(c, config))) }
}

// say waits for an answer before each text, for the greeting before the first. The
// answer to the last is not read.
func (v visitor) say(texts ...string) error {
	for _, text := range texts {
		if _, err := v.answer(); err != nil {
			return err
		}
		if _, err := io.WriteString(v, text); err != nil {
			return err
		}
	}
	return nil
}

// answer is the last line of an answer, which must not be an error.
func (v visitor) answer() (string, error) {
	for {
		line, err := v.lines.ReadString('\n')
		switch {
		case err != nil:
			return "", err
		case !strings.ContainsAny(line[:1], "23+"):
			return "", fmt.Errorf("%q", line)
		case len(line) < 4 || line[3] != '-':
			return line, nil
		}
	}
}
