package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"restante/cmd/restante/internal/control"
)

// strict has the loopback refused as any other network, so that tests can see it.
const strict = "exempt = false\n"

func asJSON[T any](t *testing.T, s *testServer, args ...string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(restante(t, s.config, "", append(args, "--json")...)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestStatus: a running server is asked over a socket that is for its owner only.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{})
	status := asJSON[control.Status](t, s, "status")
	if status.PID != s.cmd.Process.Pid || status.Hostname != "localhost" || status.Trouble != "" || len(status.Listening) != 3 ||
		time.Since(status.Since) > time.Hour {
		t.Errorf("%+v", status)
	}
	text := restante(t, s.config, "", "status")
	for _, part := range []string{"running since", "smtp on " + s.smtp, "pop3s on " + s.pop3s, "0 SMTP, 0 POP3"} {
		if !strings.Contains(text, part) {
			t.Errorf("status has no %q:\n%s", part, text)
		}
	}
	for name, want := range map[string]os.FileMode{"run": 0o700, "run/restante.sock": 0o600} {
		if st, err := os.Stat(filepath.Join(s.dir, "data", name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "data/run/restante.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	_, stderr, code := restanteStatus(t, s.config, "", "status")
	if code != 1 || !strings.Contains(stderr, "no server is running") {
		t.Errorf("%d: %s", code, stderr)
	}
	s.start(serverOptions{})
	s.stop(syscall.SIGKILL)
	if _, stderr, _ := restanteStatus(t, s.config, "", "status"); !strings.Contains(stderr, "no server is running") {
		t.Errorf("after a kill: %s", stderr)
	}
	s.start(serverOptions{}) // the socket that is left is in nobody's way
	restante(t, s.config, "", "status")
}

// TestSessionsKick: the owner sees connections and ends them. Nothing is deleted.
func TestSessionsKick(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: stays\r\n\r\nx\r\n"), "alice@example.org")
	sender := s.talk(t, "smtp")
	sender.want("EHLO sender.example", "250")
	phone := strings.TrimPrefix(strings.Split(restante(t, s.config, "", "user", "app-password", "add", "alice@example.org", "phone"), "\n")[1], "password: ")
	alice := s.talk(t, "pop3")
	alice.secure(s.clientTLS())
	alice.want("USER alice@example.org", "+OK")
	alice.want("PASS "+phone, "+OK")
	alice.want("DELE 1", "+OK")
	s.log.one(t, "login", map[string]any{"app_password": "phone"})
	var all []control.Session
	eventually(t, "both sessions are listed", func() bool {
		all = asJSON[[]control.Session](t, s, "sessions", "list")
		return len(all) == 2 && all[0].Helo+all[1].Helo == "sender.example"
	})
	i := slices.IndexFunc(all, func(v control.Session) bool { return v.User == "alice@example.org" })
	if i < 0 || all[i].AppPassword != "phone" || all[i].Client != "127.0.0.1" || all[i].TLS != "TLS 1.3" {
		t.Fatalf("%+v", all)
	}
	if out := restante(t, s.config, "", "sessions", "list"); !strings.Contains(out, "alice@example.org (phone)") {
		t.Errorf("sessions list:\n%s", out)
	}
	if out := restante(t, s.config, "", "sessions", "kick", "Alice@example.org"); out != "ended 1 connection\n" {
		t.Errorf("kick says %q", out)
	}
	alice.ended()
	s.log.one(t, "connection closed", map[string]any{"reason": "ended by the owner of the server"})
	restante(t, s.config, "", "sessions", "kick", "127.0.0.1")
	sender.ended()
	eventually(t, "no sessions", func() bool { return len(asJSON[[]control.Session](t, s, "sessions", "list")) == 0 })
	if _, stderr, code := restanteStatus(t, s.config, "", "sessions", "kick", "x"); code != 1 || !strings.Contains(stderr, "there is no session x") {
		t.Errorf("%d: %s", code, stderr)
	}
	if n := len(s.fetchAll(t, "alice")); n != 1 {
		t.Errorf("%d messages are left", n)
	}
	// The last use is written within seconds.
	eventually(t, "the last use of the app password is listed", func() bool {
		return strings.Contains(restante(t, s.config, "", "user", "app-password", "list", "alice@example.org"), "POP3+TLS 127.0.0.1")
	})
	// Removed, it ends the sessions that run with it.
	alice = s.talk(t, "pop3")
	alice.secure(s.clientTLS())
	alice.want("USER alice@example.org", "+OK")
	alice.want("PASS "+phone, "+OK")
	restante(t, s.config, "", "user", "app-password", "remove", "alice@example.org", "phone")
	alice.want("STAT", "-ERR [AUTH]")
	alice.ended()
}

// guess tries passwords, each on a connection of its own, until one is not looked
// at any more.
func (s *testServer) guess(t *testing.T, user, word string, most int) (looked int) {
	t.Helper()
	for looked = range most {
		d := s.talk(t, "pop3s")
		d.want("USER "+user, "+OK")
		if reply := d.ask("PASS " + word + fmt.Sprint(looked)); strings.Contains(reply, "too many failed logins") {
			d.ended()
			return looked
		} else if !strings.HasPrefix(reply, "-ERR [AUTH] wrong") {
			t.Fatalf("a guess is answered %q", reply)
		}
		d.want("QUIT", "+OK")
	}
	return most
}

// TestBans: who guesses is refused, also after a restart, until the owner forgives.
func TestBans(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: strict})
	if n := s.guess(t, "nobody@example.org", "guess", 30); n != 10 {
		t.Errorf("%d guesses were looked at, want 10", n)
	}
	s.log.one(t, "login refused", map[string]any{"user": "nobody@example.org"})
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	s.start(serverOptions{})
	if n := s.guess(t, "alice@example.org", "guess", 30); n != 0 {
		t.Errorf("after a restart %d guesses were looked at", n)
	}
	bans := asJSON[[]control.Ban](t, s, "auth", "bans", "list")
	if len(bans) == 0 || bans[0].Name != "127.0.0.1/32" || !bans[0].Refused || bans[0].Kind != "address" {
		t.Errorf("bans: %+v", bans)
	}
	if out := restante(t, s.config, "", "auth", "bans", "list"); !strings.Contains(out, "127.0.0.1/32") {
		t.Errorf("bans list:\n%s", out)
	}
	if out := restante(t, s.config, "", "status"); !strings.Contains(out, "refused to log in  1 address") {
		t.Errorf("status:\n%s", out)
	}
	restante(t, s.config, "", "auth", "bans", "clear", "127.0.0.1")
	if n := len(s.fetchAll(t, "alice")); n != 0 {
		t.Errorf("%d messages", n)
	}
	if _, stderr, code := restanteStatus(t, s.config, "", "auth", "bans", "clear", "192.0.2.1"); code != 1 || !strings.Contains(stderr, "there are no failed logins of 192.0.2.1") {
		t.Errorf("%d: %s", code, stderr)
	}
	restante(t, s.config, "", "auth", "bans", "clear", "--all")
	if out := restante(t, s.config, "", "auth", "bans", "list"); out != "no failed logins\n" {
		t.Errorf("after all were forgiven: %q", out)
	}
}

// TestForgottenPhone: a device with the password before the last change locks out
// nobody, and "user show" names it.
func TestForgottenPhone(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: strict})
	restante(t, s.config, "another\n", "user", "passwd", "alice@example.org", "--password-stdin")
	for range 25 {
		d := s.talk(t, "pop3s")
		d.want("USER alice@example.org", "+OK")
		d.want("PASS "+testPassword, "-ERR [AUTH] wrong user name or password")
		d.want("QUIT", "+OK")
	}
	eventually(t, "the log tells", func() bool { return strings.Contains(s.log.text(), "the password before the last change") })
	s.fetchAll(t, "bob")
	eventually(t, "user show names the device", func() bool {
		return strings.Contains(restante(t, s.config, "", "user", "show", "alice@example.org"), "POP3+TLS 127.0.0.1")
	})
}
