package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestStartSecondServer: the first goes on as if nothing had happened.
func TestStartSecondServer(t *testing.T) {
	s := newServer(t, serverOptions{})
	d := s.talk(t, "pop3s").logIn("alice")
	data := filepath.Join(s.dir, "data")
	oneLine(t, failedStart(t, s.config, data), "another server is running", data)
	d.want("NOOP", "+OK")
	s.deliver(t, []byte("Subject: still here\r\n\r\n"), "alice@"+testDomain)
}

// TestStartTakenPort takes each port in turn.
func TestStartTakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	s := newServer(t, serverOptions{}) // makes what a first start makes
	s.stop(syscall.SIGTERM)
	for _, variable := range []string{"RESTANTE_SMTP_LISTEN", "RESTANTE_POP3_LISTEN", "RESTANTE_POP3_LISTEN_TLS"} {
		t.Run(variable, func(t *testing.T) {
			oneLine(t, failedStart(t, s.config, s.dir, variable+"="+address), address, "address already in use")
		})
	}
	s.start(serverOptions{}) // nothing is held any more
}

func TestStartBadCertificate(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.stop(syscall.SIGTERM)
	makePair(t, s.dir, "good", "mail.example.org")
	makePair(t, s.dir, "other", "mail.example.org")
	writeFile(t, filepath.Join(s.dir, "garbage.crt"), []byte("garbage"))
	if err := os.Mkdir(filepath.Join(s.dir, "directory.key"), 0o700); err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(s.dir, "broken.crt"), "CERTIFICATE", []byte("not a certificate"))
	before, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, cert, key string
		parts           []string
	}{
		{"missing certificate", "none.crt", "good.key", []string{"none.crt", "file does not exist"}},
		{"missing key", "good.crt", "none.key", []string{"none.key", "file does not exist"}},
		{"unreadable key", "good.crt", "directory.key", []string{"directory.key", "is a directory"}},
		{"garbage", "garbage.crt", "good.key", []string{"garbage.crt"}},
		{"broken certificate", "broken.crt", "good.key", []string{"broken.crt"}},
		{"key of another", "good.crt", "other.key", []string{"good.crt", "other.key", "does not match"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeFile(t, s.config, []byte(string(before)+certificateSetting(c.cert, c.key)))
			oneLine(t, failedStart(t, s.config, s.dir), c.parts...)
		})
	}
}

// TestStartBadConfig: one line for each problem, with the line of the file and
// the name that was perhaps meant.
func TestStartBadConfig(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		problems   [][]string // the parts of each line
	}{
		{"unknown key", "[smtp]\nmax_recipiants = 100\n", [][]string{{":3: ", `"smtp.max_recipiants"`, `"smtp.max_recipients"`}}},
		{"unknown section", "[poop3]\n", [][]string{{":2: ", `"poop3"`, `"pop3"`}}},
		{"wrong type", "[smtp]\nmax_recipients = \"many\"\n", [][]string{{":3: ", "smtp.max_recipients"}}},
		{"out of bounds", "[pop3]\nidle_timeout = \"9m\"\n", [][]string{{":3: ", "pop3.idle_timeout"}}},
		{"no TOML", "[smtp\n", [][]string{{":2: "}}},
		{"several", "[smtp]\nmax_recipients = true\nlissen = []\n[log]\nlevel = \"loud\"\n", [][]string{
			{":3: ", "smtp.max_recipients"}, {":4: ", `"smtp.lissen"`, `"smtp.listen"`}, {":6: ", "log.level"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			config := writeFile(t, filepath.Join(dir, "restante.toml"), []byte("hostname = \"mail.example.org\"\n"+c.text))
			lines := strings.SplitAfter(strings.TrimSpace(failedStart(t, config, dir)), "\n")
			if len(lines) != len(c.problems) {
				t.Fatalf("%d lines for %d problems:\n%s", len(lines), len(c.problems), strings.Join(lines, ""))
			}
			for i, parts := range c.problems {
				for _, part := range append(parts, config) {
					if !strings.Contains(lines[i], part) {
						t.Errorf("%q is not in %q", part, lines[i])
					}
				}
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		out := failedStart(t, s.config, s.dir, "RESTANTE_SMTP_LISSEN=:25")
		oneLine(t, out, "RESTANTE_SMTP_LISSEN", "RESTANTE_SMTP_LISTEN")
	})
	t.Run("no file", func(t *testing.T) {
		oneLine(t, failedStart(t, filepath.Join(s.dir, "none.toml"), s.dir), "none.toml", "restante init")
	})
	t.Run("no data directory", func(t *testing.T) {
		config := filepath.Join(s.dir, "moved.toml")
		data := filepath.Join(s.dir, "data")
		writeFile(t, config, bytes.ReplaceAll(good, []byte(data), []byte(data+"-moved")))
		oneLine(t, failedStart(t, config, s.dir), data+"-moved", "restante init")
	})
	t.Run("data directory is a file", func(t *testing.T) {
		file := writeFile(t, filepath.Join(s.dir, "file"), nil)
		oneLine(t, failedStart(t, s.config, s.dir, "RESTANTE_DATA_DIR="+file), file)
	})
}

// TestStartSelfSigned: the certificate is made once.
func TestStartSelfSigned(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	if _, err := os.Stat(s.cert); err == nil {
		t.Fatal("there is a certificate before the first start")
	}
	s.start(serverOptions{})
	tlsDir := filepath.Dir(s.cert)
	first := snapshot(t, tlsDir)
	for _, name := range []string{s.cert, filepath.Join(tlsDir, "key.pem")} {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	shown := s.dial(t, "pop3s").handshake(s.clientTLS())
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := shown.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	s.stop(syscall.SIGTERM)
	s.start(serverOptions{})
	if again := s.dial(t, "pop3s").handshake(s.clientTLS()); !again.Equal(shown) {
		t.Error("another certificate after a restart")
	}
	if second := snapshot(t, tlsDir); strings.Join(first, "\n") != strings.Join(second, "\n") {
		t.Errorf("the files before\n%s\nand after\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
}

// TestStartAsRoot: started by root, server and commands become the owner of the
// data directory, and nothing in it belongs to root.
func TestStartAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	const owner = 65534
	s := prepareServer(t, serverOptions{})
	for _, dir := range []string{filepath.Dir(s.dir), s.dir} { // for everybody to pass
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(s.dir, "data")
	each := func(do func(name string) error) {
		t.Helper()
		err := filepath.WalkDir(data, func(name string, _ fs.DirEntry, err error) error {
			return errors.Join(err, do(name))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	each(func(name string) error { return os.Chown(name, owner, owner) })
	s.start(serverOptions{})
	restante(t, s.config, testPassword+"\n", "user", "add", "alice@"+testDomain, "--password-stdin")
	s.deliver(t, []byte("Subject: stays\r\n\r\n"), "alice@"+testDomain)
	s.talk(t, "pop3s").logIn("alice").want("QUIT", "+OK")
	each(func(name string) error {
		st, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != owner || sys.Gid != owner {
			t.Errorf("%s belongs to %+v", name, st.Sys())
		}
		return nil
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"Uid:", "Gid:"} {
		if want := id + strings.Repeat("\t65534", 4) + "\n"; !strings.Contains(string(status), want) {
			t.Errorf("the server runs without %q", want)
		}
	}
}

// ownedByOther gives the data directory to another user than root, who can pass to it.
func (s *testServer) ownedByOther(t *testing.T) {
	t.Helper()
	err := tool("chown", "-R", "65534:65534", filepath.Join(s.dir, "data"))
	for _, dir := range []string{filepath.Dir(s.dir), s.dir} {
		err = errors.Join(err, os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStartRootsKey: started by root, a server that cannot read its key again says so.
func TestStartRootsKey(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	s := prepareServer(t, serverOptions{})
	makePair(t, s.dir, "pair", "mail.example.org")
	s.appendConfig(t, certificateSetting("pair.crt", "pair.key"))
	s.ownedByOther(t)
	if err := os.Chmod(filepath.Join(s.dir, "pair.crt"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(serverOptions{})
	const warning = "the certificates were read as root, and cannot be read any more: a renewed one is not taken before a restart, and a reload fails"
	if line := s.log.one(t, warning, nil); !strings.Contains(fmt.Sprint(line["error"]), "pair.key") {
		t.Errorf("it does not name the key: %v", line)
	}
	s.stop(syscall.SIGTERM)
	for _, name := range []string{"pair.crt", "pair.key"} {
		if err := os.Chown(filepath.Join(s.dir, name), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	s.start(serverOptions{})
	if found := s.log.find(warning, nil); len(found) > 0 {
		t.Error("it warns of a key that it can read")
	}
}

// TestStartOddMailTree: what other hands left in the mail directory is for the
// log, and the others get their mail.
func TestStartOddMailTree(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.stop(syscall.SIGTERM)
	tmp := filepath.Join(s.maildir("bob"), "tmp")
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{tmp, filepath.Join(s.dir, "data", "mail", "a-file")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"lost+found", ".tmp/a-directory", testDomain + "/broken"} {
		if err := os.Mkdir(filepath.Join(s.dir, "data", "mail", dir), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.maildir("broken"), "new"), nil, 0o600); err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	s.start(serverOptions{})
	s.deliver(t, []byte("Subject: hello\r\n\r\nhello\r\n"), "alice@"+testDomain)
	eventually(t, "the odd things are in the log", func() bool {
		return len(s.log.find("sweeping the mail directory left something behind", nil)) == 1
	})
	out, errOut, code := restanteStatus(t, s.config, "", "mailbox", "list")
	if code != 1 || !strings.Contains(out, "alice@") || !strings.Contains(out, "bob@") || !strings.Contains(errOut, "broken@") {
		t.Errorf("mailbox list: %d\n%s\n%s", code, out, errOut)
	}
}

// TestCostsThatDoNotGoTogether: what no command could start with is told by
// every command, config check included.
func TestCostsThatDoNotGoTogether(t *testing.T) {
	s := newServer(t, serverOptions{})
	t.Setenv("RESTANTE_AUTH_ARGON2_MEMORY", "1GiB")
	t.Setenv("RESTANTE_AUTH_ARGON2_TIME", "64")
	_, errOut, code := restanteStatus(t, s.config, "", "config", "check")
	if code != 1 || !strings.Contains(errOut, "auth.argon2_time") {
		t.Errorf("config check: %d, %s", code, errOut)
	}
}
