package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// work is a session with all that leaves files.
func (s *testServer) work(t *testing.T) {
	t.Helper()
	s.deliver(t, []byte("Subject: small\r\n\r\nx\r\n"), "alice@"+testDomain, "bob@"+testDomain)
	s.deliver(t, []byte("Subject: large\r\n\r\n"+strings.Repeat("0123456789\r\n", 20_000)), "alice@"+testDomain)
	restante(t, s.config, "Subject: by a command\n\n", "mailbox", "deliver", "bob@"+testDomain)
	writeFile(t, filepath.Join(s.maildir("bob"), "new", "foreign"), []byte("Subject: foreign\n\n"))
	restante(t, s.config, testPassword+"\n", "user", "add", "carol@"+testDomain, "--password-stdin")
	restante(t, s.config, "", "user", "app-password", "add", "carol@"+testDomain, "phone")
	restante(t, s.config, "", "domain", "add", "example.net")
	restante(t, s.config, "", "alias", "add", "info@example.net", "carol@"+testDomain)
	s.deliver(t, []byte("Subject: to an alias\r\n\r\nx\r\n"), "info@example.net")
	s.fetchAll(t, "alice")
	s.keeps(t, "bob", 3)
	s.keeps(t, "carol", 1)
	d := s.talk(t, "pop3s")
	d.want("USER bob@"+testDomain, "+OK")
	d.want("PASS wrong", "-ERR")
	d.conn.Close()
	eventually(t, "failed logins are written", func() bool {
		_, err := os.Stat(filepath.Join(s.dir, "data", "run", "failed-logins.json"))
		return err == nil
	})
}

// TestPrivateFiles: files are for their owner only, whatever the umask says.
func TestPrivateFiles(t *testing.T) {
	for _, mask := range []int{0, 0o777 &^ 0o700} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			defer syscall.Umask(syscall.Umask(mask)) // no other test runs now; what is started has it too
			s := newServer(t, serverOptions{settings: strict})
			s.work(t)
			kinds := map[string]int{}
			look := func(when string) {
				err := filepath.WalkDir(filepath.Join(s.dir, "data"), func(name string, d fs.DirEntry, err error) error {
					if err != nil {
						return err
					}
					st, err := os.Lstat(name)
					if err != nil {
						return nil // moved meanwhile
					}
					want := fs.FileMode(0o600)
					if st.IsDir() {
						want = 0o700
					}
					if st.Mode().Perm() != want {
						t.Errorf("%s, %s: %v", when, name, st.Mode())
					}
					kinds[st.Mode().Type().String()]++
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			look("while the server runs")
			if code := s.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
			look("after its end")
			s.start(serverOptions{})
			look("after another start")
			if kinds["d---------"] < 20 || kinds["----------"] < 20 || kinds["S---------"] < 2 {
				t.Errorf("too few files were looked at: %v", kinds)
			}
		})
	}
}

// TestPrivateSecrets: passwords and hashes are in no log, process list, environment, error
// text or file of the data directory.
func TestPrivateSecrets(t *testing.T) {
	s := newServer(t, serverOptions{settings: strict, env: []string{"RESTANTE_LOG_LEVEL=debug", "RESTANTE_LOG_TRACE=127.0.0.1, alice@" + testDomain}})
	var out strings.Builder
	say := func(stdin string, args ...string) string {
		stdout, stderr, _ := restanteStatus(t, s.config, stdin, args...)
		out.WriteString(stderr)
		return stdout
	}
	const changed, misspelt = "Changed-Secret-91", "Misspelt-Secret-91"
	alice := "alice@" + testDomain
	phone := strings.TrimPrefix(strings.Split(say("", "user", "app-password", "add", alice, "phone"), "\n")[1], "password: ")
	hash := foreignHashes["ssha512"]
	out.WriteString(say(changed+"\n", "user", "passwd", alice, "--password-stdin"))
	out.WriteString(say(misspelt+"\n", "user", "passwd", "nobody@"+testDomain, "--password-stdin"))
	out.WriteString(say(hash+"\n", "user", "passwd", "bob@"+testDomain, "--password-stdin", "--password-hash"))
	out.WriteString(say(hash+"!\n", "user", "passwd", "bob@"+testDomain, "--password-stdin", "--password-hash"))
	out.WriteString(say("x@"+testDomain+":{PLAIN}"+misspelt+"\ny@"+testDomain+":"+misspelt+"\nz@:"+hash+"\n", "user", "import", "-"))
	base64Of := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	secrets := []string{testPassword, changed, misspelt, phone, strings.ReplaceAll(phone, "-", ""), hash, strings.TrimPrefix(hash, "{SSHA512}")[:20]}
	for _, password := range []string{testPassword, changed, misspelt, phone} {
		d := s.talk(t, "pop3s")
		d.want("USER "+alice, "+OK")
		if strings.HasPrefix(d.ask("PASS "+password), "+OK") {
			d.want("QUIT", "+OK")
		}
		d = s.talk(t, "pop3s")
		d.ask("AUTH PLAIN " + base64Of("\x00"+alice+"\x00"+password))
		d = s.talk(t, "pop3s")
		d.want("AUTH LOGIN", "+ ")
		d.want(base64Of(alice), "+ ")
		d.ask(base64Of(password))
		secrets = append(secrets, base64Of(password), base64Of("\x00"+alice+"\x00"+password))
	}
	for _, args := range [][]string{{"status"}, {"sessions", "list"}, {"sessions", "list", "--json"}, {"auth", "bans", "list", "--json"}, {"user", "show", alice}, {"user", "list", "--json"},
		{"user", "app-password", "list", alice, "--json"}, {"config", "show"}, {"config", "check"}} {
		out.WriteString(say("", args...))
	}
	places := map[string][]byte{"the log": []byte(s.log.text()), "what commands say": []byte(out.String())}
	for _, name := range []string{"cmdline", "environ", "comm"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name))
		if err != nil && !errors.Is(err, fs.ErrPermission) { // as it is to other processes of its user
			t.Fatal(err)
		}
		places["/proc/PID/"+name] = text
	}
	s.stop(syscall.SIGTERM)
	places["the log at the end"] = []byte(s.log.text())
	for _, line := range snapshot(t, filepath.Join(s.dir, "data")) {
		name := strings.Fields(line)[0]
		if text, err := os.ReadFile(name); err == nil && !strings.HasPrefix(filepath.Base(name), "segment-") {
			places[name] = text
		}
	}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(place, "restante.db") && strings.Contains(hash, secret) {
				continue // it is kept there until the first login
			}
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%q is in %s", secret, place)
			}
		}
	}
}

// TestPrivateCore: the server leaves no core, which would have passwords in it.
func TestPrivateCore(t *testing.T) {
	s := newServer(t, serverOptions{})
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if f := strings.Fields(rest); f[0] != "0" || f[1] != "0" {
				t.Errorf("core: %s", line)
			}
			return
		}
	}
	t.Error("no limit of cores: ", string(limits))
}

// TestPrivateArguments: no command takes a password as an argument, where others see it.
func TestPrivateArguments(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	for _, args := range [][]string{
		{"user", "add", "alice@" + testDomain, testPassword}, {"user", "add", "alice@" + testDomain, "--password", testPassword},
		{"user", "add", "alice@" + testDomain, "--password-stdin=" + testPassword}, {"user", "passwd", "alice@" + testDomain, testPassword},
		{"user", "add", "alice@" + testDomain, "--password-hash", foreignHashes["ssha"]},
	} {
		cmd := exec.Command("restante", append([]string{"--config", s.config}, args...)...)
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitUsage {
			t.Errorf("%q: %v", args[2:], err)
		}
	}
}
