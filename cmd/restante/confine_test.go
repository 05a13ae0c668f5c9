package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// landlocked skips a test on a kernel that cannot confine.
func landlocked(t *testing.T) {
	t.Helper()
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || int(abi) < mostABI {
		t.Skipf("Landlock of this kernel: %d, %v", int(abi), errno)
	}
}

// confined is a program for TestConfined: it starts a server, confines it, and tries
// what it should not be able to do, and then what it should.
func confined() {
	dir, outside := os.Args[1], os.Args[2]
	troubles, err := tryConfined(dir, outside)
	if err = errors.Join(append(troubles, err)...); err != nil {
		fmt.Println(err)
		os.Exit(exitFailed)
	}
}

// startHere starts a server in this process, for it to be confined.
func startHere(dir string) (*server, error) {
	a := &app{configFlag: filepath.Join(dir, "restante.toml"), stdout: os.Stdout, stderr: os.Stderr, env: os.Environ()}
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	log, level := newLog(io.Discard, c)
	s, err := start(context.Background(), c, log, level)
	if err == nil {
		s.configFile = a.configFile()
	}
	return s, err
}

func tryConfined(dir, outside string) (troubles []error, err error) {
	s, err := startHere(dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.confine(s.configFile); err != nil {
		return nil, err
	}
	for what, try := range forbidden(dir, outside) {
		for range 4 { // on several threads
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // for good: the thread ends, too
				done <- try()
			}()
			if err := <-done; !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) {
				troubles = append(troubles, fmt.Errorf("%s: %v", what, err))
			}
		}
	}
	for what, try := range needed(s, dir) {
		if err := try(); err != nil {
			troubles = append(troubles, fmt.Errorf("%s: %w", what, err))
		}
	}
	return troubles, nil
}

// forbidden is what a server has no business with. Each ends with a file closed.
func forbidden(dir, outside string) map[string]func() error {
	read := func(name string) func() error {
		return func() error { _, err := os.ReadFile(name); return err }
	}
	write := func(name string) func() error {
		return func() error { return os.WriteFile(name, []byte("x"), 0o600) }
	}
	sibling := filepath.Join(dir, "..", "sibling")
	link := filepath.Join(dir, "data", "mail", "link")
	return map[string]func() error{
		"read /etc/passwd":             read("/etc/passwd"),
		"read a file beside":           read(filepath.Join(sibling, "file")),
		"read by /proc/self/root":      read("/proc/self/root/etc/passwd"),
		"read by ..":                   read(filepath.Join(dir, "data") + "/../../sibling/file"),
		"read its memory map":          read("/proc/self/maps"),
		"read through a link it makes": func() error { _ = os.Symlink("/etc/passwd", link); return read(link)() },
		"list the root":                func() error { _, err := os.ReadDir("/"); return err },
		"list a directory beside":      func() error { _, err := os.ReadDir(sibling); return err },
		"write the configuration":      write(filepath.Join(dir, "restante.toml")),
		"write a certificate":          write(filepath.Join(dir, "live.crt")),
		"make a file beside":           write(filepath.Join(sibling, "new")),
		"make a file in /tmp":          write(filepath.Join(os.TempDir(), "restante-test-confined")),
		"remove a file beside":         func() error { return os.Remove(filepath.Join(sibling, "file")) },
		"move its data out":            func() error { return os.Rename(filepath.Join(dir, "data", "mail"), filepath.Join(sibling, "mail")) },
		"move others' data in":         func() error { return os.Rename(filepath.Join(sibling, "file"), filepath.Join(dir, "data", "file")) },
		"link others' data in":         func() error { return os.Link(filepath.Join(sibling, "file"), filepath.Join(dir, "data", "file")) },
		"truncate a file beside":       func() error { return os.Truncate(filepath.Join(sibling, "file"), 0) },
		"run a program":                func() error { return execute("/bin/true") },
		"run a file that it makes":     func() error { return runOwn(filepath.Join(dir, "data", "program")) },
		"run itself":                   func() error { return execute("/proc/self/exe", "-test.run=^$") },
		"listen":                       func() error { return listenTCP("127.0.0.1:0") },
		"listen on every address":      func() error { return listenTCP(":0") },
		"connect to a server":          func() error { return closed(net.Dial("tcp", outside)) },
		"look at another process":      read("/proc/1/environ"),
		"signal another process":       func() error { return syscall.Kill(os.Getppid(), 0) },
		"connect to abstract sockets":  func() error { return closed(net.Dial("unix", abstractSocket(outside))) },
	}
}

// runOwn makes a file and runs it; what is in it comes to nothing.
func runOwn(name string) error {
	if err := os.WriteFile(name, []byte("x"), 0o700); err != nil {
		return err
	}
	return execute(name)
}

// execute starts a program without what package exec opens for it.
func execute(name string, args ...string) error {
	p, err := os.StartProcess(name, append([]string{name}, args...), &os.ProcAttr{})
	if err == nil {
		_, err = p.Wait()
	}
	return err
}

// abstractSocket is one that goes with a port which nobody else has.
func abstractSocket(port string) string { return "@restante-test-" + port }

// listenTCP listens without the multipath that Go asks for and Landlock knows nothing
// of.
func listenTCP(address string) error {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return closed(c.Listen(context.Background(), "tcp", address))
}

func closed(c io.Closer, err error) error {
	if err == nil {
		_ = c.Close()
	}
	return err
}

// needed is what a server goes on to do.
func needed(s *server, dir string) map[string]func() error {
	ctx := context.Background()
	alice := "alice@" + testDomain
	return map[string]func() error{
		"deliver, fetch and remove": func() error {
			if _, err := s.mail.Deliver(ctx, "aaaaaaaaaaaaaaaa", []string{alice, "bob@" + testDomain}, strings.NewReader(strings.Repeat("x\n", 100_000))); err != nil {
				return err
			}
			drop, err := s.mail.OpenMaildrop(ctx, alice)
			if err != nil {
				return err
			}
			defer drop.Close()
			m, err := drop.Message(0)
			if err != nil {
				return err
			}
			if n, err := io.Copy(io.Discard, m); n != 300_000 || err != nil {
				return fmt.Errorf("%d octets, %w", n, err)
			}
			_, err = drop.Remove(ctx, []int{0})
			return errors.Join(m.Close(), err)
		},
		"read the settings":                  func() error { _, err := os.ReadFile(filepath.Join(dir, "restante.toml")); return err },
		"read certificates, also by links":   func() error { return s.certs.Reload(pairs(s.config)) },
		"look up and change the directory":   func() error { return s.users.SetEnabled(ctx, alice, true) },
		"answer on a port that is open":      func() error { return answered(s) },
		"know the authorities of the system": func() error { _, err := x509.SystemCertPool(); return err },
		"sweep":                              func() error { return s.mail.Sweep(ctx) },
	}
}

// answered takes a connection from a port that was opened before. Nobody comes, so the
// wait is cut off.
func answered(s *server) error {
	if len(s.listeners) != 3 {
		return fmt.Errorf("%d ports", len(s.listeners))
	}
	l := s.listeners[0]
	done := make(chan error)
	go func() { done <- closed(l.Accept()) }()
	err := l.Close()
	if got := <-done; !errors.Is(got, net.ErrClosed) {
		return errors.Join(got, errors.New("the port was not open"))
	}
	return err
}

// TestConfined: once started, the server reaches its data, its settings, the
// certificates and what they lead to, and nothing else.
func TestConfined(t *testing.T) {
	landlocked(t)
	s := prepareLinked(t)
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	abstract, err := net.Listen("unix", abstractSocket(outside.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	sibling := filepath.Join(filepath.Dir(s.dir), "sibling")
	if err := os.Mkdir(sibling, 0o777); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(sibling, "file"), []byte("of others"))
	cmd := exec.Command("confined", s.dir, outside.Addr().String())
	cmd.Env = serveEnv(s.config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(filepath.Join(sibling, "file")); string(text) != "of others" {
		t.Errorf("the file beside: %q, %v", text, err)
	}
}

// prepareLinked sets up a server whose certificate is a link to another directory, as
// programs that renew them make it.
func prepareLinked(t *testing.T) *testServer {
	t.Helper()
	s := prepareServer(t, serverOptions{})
	archive := t.TempDir()
	for _, name := range []string{"one", "two"} {
		makePair(t, archive, name, "mail.example.org", "localhost")
	}
	for _, ext := range []string{".crt", ".key"} {
		if err := os.Symlink(filepath.Join(archive, "one"+ext), filepath.Join(s.dir, "live"+ext)); err != nil {
			t.Fatal(err)
		}
	}
	s.appendConfig(t, certificateSetting("live.crt", "live.key"))
	for _, user := range []string{"alice", "bob"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	return s
}

// TestConfinedRenewal: a link to a certificate that comes to lead to the next one is
// followed.
func TestConfinedRenewal(t *testing.T) {
	t.Parallel() // it waits some seconds
	landlocked(t)
	s := prepareLinked(t)
	s.start(serverOptions{})
	inForce := s.log.one(t, "landlock in force", map[string]any{"level": mostABI})
	archive, err := filepath.EvalSymlinks(filepath.Join(s.dir, "live.crt"))
	if err != nil {
		t.Fatal(err)
	}
	archive = filepath.Dir(archive)
	if dirs := fmt.Sprint(inForce["read"]); dirs != fmt.Sprint([]string{s.dir, archive}) {
		t.Errorf("it may read %s", dirs)
	}
	if name := s.certificate(t).Subject.CommonName; name != "one" {
		t.Fatalf("the certificate is %q", name)
	}
	for _, ext := range []string{".crt", ".key"} {
		link := filepath.Join(s.dir, "live"+ext)
		if err := errors.Join(os.Symlink(filepath.Join(archive, "two"+ext), link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the next certificate is in use", func() bool {
		return len(s.log.find("certificate changed on disk, in use now", nil)) == 1
	})
	if name := s.certificate(t).Subject.CommonName; name != "two" {
		t.Errorf("the certificate is %q", name)
	}
}

// certificate is what the port for TLS shows.
func (s *testServer) certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	return s.shown(t, "mail.example.org")["pop3s"]
}
