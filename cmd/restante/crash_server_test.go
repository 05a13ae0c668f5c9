package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crashServer is a server that is meant to be killed. In contrast to testServer
// a failure to start is an outcome, not the end of the test, and the program may
// be another build.
type crashServer struct {
	program, config     string
	smtp, pop3, metrics string // addresses

	cmd    *exec.Cmd
	log    *serverLog
	exited chan struct{}
}

// newCrashServer writes a configuration for the data directory, and makes a
// domain with these users. It ends with the test.
func newCrashServer(t *testing.T, program, data string, users []string) *crashServer {
	t.Helper()
	s := &crashServer{program: program, config: filepath.Join(t.TempDir(), "restante.toml"), pop3: ownAddress(t)}
	writeFile(t, s.config, fmt.Appendf(nil, `
hostname = "localhost"
data_dir = %q
[smtp]
listen = ["127.0.0.1:0"]
[pop3]
listen = [%q]
listen_tls = []
[metrics]
listen = ["127.0.0.1:0"]
[log]
format = "json"
[auth]
allow_plaintext = true
argon2_memory = "1MiB"
argon2_time = 1
`, data, s.pop3))
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, user := range users {
		fmt.Fprintf(&list, "%s:{PLAIN}%s\n", user+"@"+testDomain, testPassword)
	}
	err := errors.Join(s.command("", "domain", "add", testDomain), s.command(list.String(), "user", "import", "-"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

// ownAddress is one that clients can know before the server listens. It is unlikely
// that others use the same loopback address, so the port stays free between two servers.
func ownAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// command runs a command of the program.
func (s *crashServer) command(stdin string, args ...string) error {
	cmd := exec.Command(s.program, append([]string{"--config", s.config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("restante %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// launch starts the server and does not wait for it.
func (s *crashServer) launch() error {
	s.cmd = exec.Command(s.program, "--config", s.config, "serve")
	s.cmd.Env = serveEnv(s.config)
	s.log, s.exited = &serverLog{}, make(chan struct{})
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, log, exited := s.cmd, s.log, s.exited
	go func() {
		followEnd(log, stderr)
		_ = cmd.Wait() // how it ended is in ProcessState
		close(exited)
	}()
	return nil
}

// followEnd keeps the last lines of a log that may become very long.
func followEnd(l *serverLog, r io.Reader) {
	const most = 4000
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		l.mu.Lock()
		if len(l.lines) == most {
			l.lines = slices.Delete(l.lines, 0, most/2)
		}
		l.lines = append(l.lines, scanner.Text())
		l.mu.Unlock()
	}
}

// start starts the server and waits until it listens.
func (s *crashServer) start() error {
	if err := s.launch(); err != nil {
		return err
	}
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		select {
		case <-s.exited:
			return fmt.Errorf("the server does not start:\n%s", s.log.text())
		default:
		}
		if s.listens() {
			return nil
		}
	}
	return fmt.Errorf("the server does not listen within %v:\n%s", deadline, s.log.text())
}

// listens takes the addresses that are not in the configuration from the log.
func (s *crashServer) listens() bool {
	found := s.log.find("listening", nil)
	for _, r := range found {
		address, _ := r["address"].(string)
		switch r["protocol"] {
		case "smtp":
			s.smtp = address
		case "metrics":
			s.metrics = address
		}
	}
	return len(found) == 3
}

// kill ends the server as kill -9 does, and waits for its end.
func (s *crashServer) kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL) // fails if it has ended already
	<-s.exited
}
