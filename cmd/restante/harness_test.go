package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the program "restante" too, first in PATH, so
// that every test here runs the real program as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		// Each of the many processes would wait a second at its end.
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // fails for malformed names only
	}
	testscript.Main(m, map[string]func(){"restante": main, "confined": confined, "replacing": replacing})
}

// deadline is how long a test polls for something that must happen.
const deadline = 20 * time.Second

// slowly is the same for the programs of others that take many seconds to start.
const slowly = 6 * deadline

// eventually polls until cond is true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	until(t, deadline, what, cond)
}

func until(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("did not happen within %v: %s", limit, what)
}

// restante runs one command of the program to its end and returns what it
// printed; a failure ends the test.
func restante(t testing.TB, config, stdin string, args ...string) string {
	t.Helper()
	out, errOut, code := restanteStatus(t, config, stdin, args...)
	if code != 0 {
		t.Fatalf("restante %s: exit status %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

func restanteStatus(t testing.TB, config, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command("restante", append([]string{"--config", config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// serveEnv is the environment of a server with this configuration. It says that root
// may serve where root owns the data directory, as in most tests.
func serveEnv(config string) []string {
	env := os.Environ()
	c, err := (&app{configFlag: config, env: env}).loadConfig()
	if err != nil || os.Geteuid() != 0 {
		return env
	}
	if _, foreign, err := ownerOf(c.DataDir); err != nil || foreign {
		return env
	}
	return append(env, "RESTANTE_USER=root")
}

// testServer is a running "restante serve".
type testServer struct {
	t                 testing.TB
	dir, config, cert string
	smtp, pop3, pop3s string // addresses
	cmd               *exec.Cmd
	log               serverLog
	stderr            io.Closer // the reading end of the log
	exited            chan struct{}
}

// serverOptions change what newServer makes; the zero value is the usual server.
type serverOptions struct {
	settings string   // more lines at the end of the configuration
	env      []string // more environment
	under    []string // a command that runs the program, such as prlimit, with its flags
}

const (
	testDomain   = "example.org"
	testPassword = "correct horse battery"
)

// newServer sets up a data directory with the domain example.org, the users
// alice and bob (testPassword), and starts a server on it.
func newServer(t testing.TB, o serverOptions) *testServer {
	t.Helper()
	s := prepareServer(t, o)
	for _, user := range []string{"alice", "bob"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	s.start(o)
	return s
}

// prepareServer makes configuration, data directory and domain.
func prepareServer(t testing.TB, o serverOptions) *testServer {
	t.Helper()
	dir := t.TempDir()
	s := &testServer{t: t, dir: dir, config: filepath.Join(dir, "restante.toml")}
	s.cert = filepath.Join(dir, "data", "tls", "cert.pem")
	text := fmt.Sprintf(`
hostname = "localhost"
data_dir = %q
[smtp]
listen = ["127.0.0.1:0"]
[pop3]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
[log]
format = "json"
[limits]
pause = "1ms"
[auth]
argon2_memory = "1MiB"
argon2_time = 1
failure_delay = "10ms"
%s
`, filepath.Join(dir, "data"), o.settings)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	restante(t, s.config, "", "domain", "add", testDomain)
	return s
}

// start runs the server and waits until it listens. It ends with the test.
func (s *testServer) start(o serverOptions) {
	s.t.Helper()
	s.log = serverLog{}
	s.exited = make(chan struct{})
	command := append(slices.Clone(o.under), "restante", "--config", s.config, "serve")
	s.cmd = exec.Command(command[0], command[1:]...)
	s.cmd.Env = append(serveEnv(s.config), o.env...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.stderr = stderr
	cmd, exited, log := s.cmd, s.exited, &s.log
	go func() {
		log.follow(stderr)
		_ = cmd.Wait() // its status is read from ProcessState
		close(exited)
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		for _, fault := range []string{"DATA RACE", "panic"} {
			if strings.Contains(log.text(), fault) {
				s.t.Errorf("%s in the server", fault)
			}
		}
		if s.t.Failed() {
			s.t.Logf("log of the server:\n%s", log.text())
		}
	})
	eventually(s.t, "the server listens on its ports", func() bool {
		select {
		case <-exited:
			s.t.Fatalf("the server ended:\n%s", log.text())
		default:
		}
		return s.listens()
	})
}

// listens tells whether the server listens on its three ports, and notes which.
func (s *testServer) listens() bool {
	records := s.log.find("listening", nil)
	for _, r := range records {
		address, _ := r["address"].(string)
		switch r["protocol"] {
		case "smtp":
			s.smtp = address
		case "pop3":
			s.pop3 = address
		case "pop3s":
			s.pop3s = address
		}
	}
	return len(records) >= 3
}

// stop ends the server by a signal and returns its exit status.
func (s *testServer) stop(sig syscall.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	return s.wait()
}

func (s *testServer) wait() int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	select {
	case <-s.exited:
	case <-ctx.Done():
		s.t.Fatalf("the server did not end within %v", deadline)
	}
	return s.cmd.ProcessState.ExitCode()
}

// files are the messages in new/ and cur/ of a user's mailbox.
func (s *testServer) files(user string) []string {
	s.t.Helper()
	var all []string
	for _, sub := range []string{"new", "cur"} {
		m, err := filepath.Glob(filepath.Join(s.maildir(user), sub, "*"))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, m...)
	}
	return all
}

func (s *testServer) maildir(user string) string {
	return filepath.Join(s.dir, "data", "mail", testDomain, user)
}

// serverLog keeps the JSON lines that a server logs. Safe for concurrent use.
type serverLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *serverLog) follow(r io.Reader) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		l.mu.Lock()
		l.lines = append(l.lines, scanner.Text())
		l.mu.Unlock()
	}
}

func (l *serverLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// find returns the records with this message and these attributes.
func (l *serverLog) find(msg string, attrs map[string]any) []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for _, line := range l.lines {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) != nil || r["msg"] != msg {
			continue
		}
		same := true
		for k, v := range attrs {
			same = same && fmt.Sprint(r[k]) == fmt.Sprint(v)
		}
		if same {
			found = append(found, r)
		}
	}
	return found
}
