package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestConfinedReload: only directories that cannot be reached are told at a reload.
func TestConfinedReload(t *testing.T) {
	t.Parallel()
	landlocked(t)
	s := prepareServer(t, serverOptions{})
	s.start(serverOptions{})
	s.log.one(t, "landlock in force", nil)
	below, beside := filepath.Join(s.dir, "below"), t.TempDir()
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{below, beside} {
		makePair(t, dir, "pair", "mail.example.org")
	}
	s.appendConfig(t, certificateSetting(filepath.Join(below, "pair.crt"), filepath.Join(below, "pair.key")))
	const warning = "this directory came into the settings after the start, and cannot be reached before a restart"
	for _, then := range []string{"reloaded the settings and certificates", "reload failed; the settings and certificates stay as they were"} {
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.log.one(t, then, nil)
		s.appendConfig(t, certificateSetting(filepath.Join(beside, "pair.crt"), filepath.Join(beside, "pair.key")))
	}
	s.log.one(t, warning, map[string]any{"directory": beside})
	if n := len(s.log.find(warning, nil)); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// TestNoNewPrivileges: the server gives up to have more rights, with Landlock and
// without, on each of its threads.
func TestNoNewPrivileges(t *testing.T) {
	t.Parallel()
	for _, landlock := range []bool{true, false} {
		s := prepareServer(t, serverOptions{settings: fmt.Sprintf("[sandbox]\nlandlock = %t\n", landlock)})
		s.start(serverOptions{})
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", s.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("threads: %q, %v", threads, err)
		}
		for _, name := range threads {
			if text, err := os.ReadFile(name); err == nil && !strings.Contains(string(text), "\nNoNewPrivs:\t1\n") {
				t.Errorf("landlock %t: %s:\n%s", landlock, name, text)
			}
		}
	}
}

// replacing is a program for TestConfinedNames: it starts a server, confines it, has
// somebody else replace a file, and reads it.
func replacing() {
	if err := tryReplacing(os.Args[1], "/etc/resolv.conf"); err != nil {
		fmt.Println(err)
		os.Exit(exitFailed)
	}
}

func tryReplacing(dir, file string) error {
	s, err := startHere(dir)
	if err != nil {
		return err
	}
	defer s.close()
	other := exec.Command("sh", "-c", `read go; f=$(readlink -f "$1"); echo "# new" >"$f.new"; mv "$f.new" "$f"`, "sh", file)
	goOn, err := other.StdinPipe()
	if err == nil {
		err = other.Start()
	}
	if err == nil {
		err = s.confine(s.configFile)
	}
	if err = errors.Join(err, goOn.Close(), other.Wait()); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err == nil && string(text) != "# new\n" {
		err = errors.New("it was not replaced")
	}
	return err
}

// TestConfinedNames: with an authority to ask, the server goes on to read how names are
// looked up after that has changed.
func TestConfinedNames(t *testing.T) {
	landlocked(t)
	packageTest(t, "unshare", "mount")
	for _, kind := range []string{"file", "link"} {
		s := prepareServer(t, serverOptions{settings: `
[tls]
acme = true
acme_names = ["mail.example.org"]
acme_directory = "https://127.0.0.1:1/dir"
acme_http = ["127.0.0.1:0"]
`})
		const script = `cp -a /etc "$1/etc" && mount --bind "$1/etc" /etc && rm -f /etc/resolv.conf && mkdir "$1/run" && echo "# old" >"$1/run/resolv.conf" || exit 1
case $2 in file) mv "$1/run/resolv.conf" /etc/;; link) ln -s "$1/run/resolv.conf" /etc/;; esac
exec replacing "$3"`
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", t.TempDir(), kind, s.dir)
		cmd.Env = serveEnv(s.config)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
}
