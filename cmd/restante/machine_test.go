package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// packageTest skips a test of packages where it cannot run, unless the
// environment says TEST_PACKAGES=required.
func packageTest(t *testing.T, programs ...string) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	switch {
	case len(missing) == 0:
	case os.Getenv("TEST_PACKAGES") == "required":
		t.Fatalf("it needs %s", strings.Join(missing, ", "))
	default:
		t.Skipf("it needs %s", strings.Join(missing, ", "))
	}
}

// sourceTree is a copy of the source without its history, to build in.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"Makefile", "LICENSE", "go.mod", "go.sum", "auth", "cmd", "pop3d", "smtpd", "storage"} {
		must(t, tool("cp", "-r", filepath.Join("../..", name), dir))
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inTree runs a command line in a source tree, as somebody at a shell would.
func inTree(t *testing.T, dir, command string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = dir
	// Nobody downloads these packages: to compress them takes longer than all the rest.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "GOFLAGS=-buildvcs=false", "DPKG_DEB_COMPRESSOR_TYPE=none")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// machine is a small Debian in a directory: what dpkg, and the scripts of a
// package, use of a real one. Its systemctl asks the test.
type machine struct {
	t      *testing.T
	root   string
	server *testServer

	mu      sync.Mutex
	enabled bool
	asked   []string // of systemctl
	running *exec.Cmd
	exited  chan struct{}
}

const fakeSystemctl = `#!/bin/sh
echo "$*" >/systemctl.ask
read status </systemctl.answer
exit $status
`

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir()}
	must(t, os.Chmod(m.root, 0o755))
	must(t, os.Chmod(filepath.Dir(m.root), 0o755))
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "dev", "run", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		must(t, os.MkdirAll(m.path(dir), 0o755))
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		must(t, os.Symlink("usr/"+dir, m.path(dir)))
	}
	for _, program := range []string{"sh", "cat", "getent", "groupadd", "useradd", "install", "sed", "stat", "rm"} {
		m.copyProgram(program)
	}
	for name, text := range map[string]string{
		"etc/passwd":       "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":        "root:x:0:\n",
		"etc/shadow":       "root:*:19000:0:99999:7:::\n",
		"etc/gshadow":      "root:*::\n",
		"etc/login.defs":   "SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\nLOG_OK_LOGINS no\n",
		"dev/null":         "",
		"usr/sbin/nologin": "",
		"var/lib/dpkg/status": "Package: passwd\nStatus: install ok installed\nMaintainer: nobody <nobody@example.org>\n" +
			"Architecture: all\nVersion: 1\nDescription: users\n",
	} {
		must(t, os.WriteFile(m.path(name), []byte(text), 0o644))
	}
	must(t, os.WriteFile(m.path("usr/bin/systemctl"), []byte(fakeSystemctl), 0o755))
	m.answer()
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// copyProgram puts a program of this machine, and its libraries, into the other.
func (m *machine) copyProgram(name string) {
	m.t.Helper()
	program, err := exec.LookPath(name)
	must(m.t, err)
	out, err := exec.Command("ldd", program).Output()
	must(m.t, err)
	must(m.t, tool("cp", "-L", program, m.path("usr/bin/"+name)))
	for _, library := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		to := m.path(library[1])
		must(m.t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(m.t, tool("cp", "-L", library[1], to))
	}
}

// answer does what systemctl is asked for, one by one, until the test ends.
func (m *machine) answer() {
	ask, answer := m.path("systemctl.ask"), m.path("systemctl.answer")
	must(m.t, errors.Join(syscall.Mkfifo(ask, 0o600), syscall.Mkfifo(answer, 0o600)))
	const end = "end"
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			question, err := os.ReadFile(ask)
			verb := strings.TrimSpace(string(question))
			if err != nil || verb == end {
				return
			}
			status := strconv.Itoa(m.systemctl(verb)) + "\n"
			if err := os.WriteFile(answer, []byte(status), 0o600); err != nil {
				m.t.Error(err)
				return
			}
		}
	})
	m.t.Cleanup(func() {
		if err := os.WriteFile(ask, []byte(end), 0o600); err != nil {
			m.t.Error(err)
		}
		wg.Wait()
		m.stop(syscall.SIGKILL)
	})
}

// systemctl is what the service manager does and answers.
func (m *machine) systemctl(args string) (status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, args)
	switch args {
	case "daemon-reload":
		return 0
	case "is-active --quiet restante":
		return truth(m.running != nil)
	case "is-enabled --quiet restante":
		return truth(m.enabled)
	case "enable --now restante":
		m.enabled = true
		return m.start()
	case "start restante":
		return m.start()
	case "restart restante":
		m.stop(syscall.SIGTERM)
		return m.start()
	case "stop restante":
		return m.stop(syscall.SIGTERM)
	}
	m.t.Errorf("systemctl %s: nobody knows what that is", args)
	return 1
}

func truth(is bool) int {
	if is {
		return 0
	}
	return 3
}

// start runs what the unit says, as its user, until the server is ready.
func (m *machine) start() (status int) {
	const notLoaded = 5
	unit := readText(m.path("lib/systemd/system/restante.service"))
	command := strings.Fields(field(unit, `(?m)^ExecStart=(.*)`))
	uid, err := m.uid(field(unit, `(?m)^User=(.*)`))
	if err != nil || len(command) == 0 {
		return notLoaded
	}
	return m.launch(m.command(uid, command...))
}

// launch starts a server and waits until it is ready.
func (m *machine) launch(cmd *exec.Cmd) (status int) {
	m.server = &testServer{t: m.t, cert: m.path("var/lib/restante/tls/cert.pem")}
	exited, log := make(chan struct{}), &m.server.log
	stderr, err := cmd.StderrPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		m.t.Error(err)
		return 1
	}
	go func() {
		log.follow(stderr)
		_ = cmd.Wait() // nobody asks for its status
		close(exited)
	}()
	m.running, m.exited = cmd, exited
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m.server.listens() {
			return 0
		}
		select {
		case <-exited:
			m.t.Logf("the server ended:\n%s", log.text())
			m.running = nil
			return 1
		default:
		}
	}
	return 1
}

// pid is the process of the server; 0 when none runs.
func (m *machine) pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running == nil {
		return 0
	}
	return m.running.Process.Pid
}

// current is the server that was started last.
func (m *machine) current() *testServer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

func (m *machine) stop(sig syscall.Signal) (status int) {
	if m.running == nil {
		return 0
	}
	if err := m.running.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	<-m.exited
	m.running = nil
	return 0
}

// command is a program in the machine.
func (m *machine) command(uid uint32, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// uid is the number of a user of the machine, and here of its group too.
func (m *machine) uid(name string) (uint32, error) {
	n, err := strconv.ParseUint(field(readText(m.path("etc/passwd")), `(?m)^`+name+`:[^:]*:(\d+):`), 10, 32)
	return uint32(n), err
}

// restante runs a command as root in the machine.
func (m *machine) restante(stdin string, args ...string) string {
	m.t.Helper()
	cmd := m.command(0, append([]string{"/usr/bin/restante"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("restante %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// dpkg runs dpkg for the machine and returns what it said. Images of Debian for
// containers have it leave manual pages out.
func (m *machine) dpkg(args ...string) string {
	m.t.Helper()
	out, err := exec.Command("dpkg", append([]string{"--root=" + m.root, "--path-include=*"}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// systemctlAsked are the questions since the last call.
func (m *machine) systemctlAsked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return asked
}

// field is the first group of a pattern in a text.
func field(text, pattern string) string {
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return found[1]
}

// readText is a file, empty when it cannot be read.
func readText(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(text)
}
