package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"restante/cmd/restante/internal/control"
)

// behindProxy has the server believe the loopback where a client comes from.
const behindProxy = "exempt = false\n[proxy]\ntrusted = [\"127.0.0.1\"]\n"

// from connects to the TLS port as a client of that address, and greets.
func (s *testServer) from(t *testing.T, address string) *caller {
	t.Helper()
	d := s.dial(t, "pop3s")
	family := "TCP4"
	if strings.Contains(address, ":") {
		family = "TCP6"
	}
	d.write(fmt.Sprintf("PROXY %s %s %s 40000 995\r\n", family, address, address))
	d.handshake(s.clientTLS())
	d.want("", "+OK")
	return d
}

// Outcomes of a login.
const (
	loggedIn = "+OK maildrop has"
	wrong    = "-ERR [AUTH] wrong user name or password"
	refused  = "-ERR [AUTH] too many failed logins, try again later"
)

// attempts logs in once, from an address.
func (s *testServer) attempt(t *testing.T, address, user, password string) string {
	t.Helper()
	d := s.from(t, address)
	defer d.conn.Close()
	d.want("USER "+user+"@"+testDomain, "+OK")
	answer := d.ask("PASS " + password)
	if strings.HasPrefix(answer, loggedIn) {
		d.want("QUIT", "+OK")
		return loggedIn
	}
	return answer
}

// wants expects one outcome of so many attempts, each with another wrong password.
func (s *testServer) wants(t *testing.T, n int, address, user, outcome string) {
	t.Helper()
	for i := range n {
		if got := s.attempt(t, address, user, fmt.Sprintf("guess-%d-%d", i, time.Now().UnixNano())); got != outcome {
			t.Fatalf("guess %d of %d from %s at %s: %q, want %q", i+1, n, address, user, got, outcome)
		}
	}
}

// wantsIn expects one outcome of a login with the right password.
func (s *testServer) wantsIn(t *testing.T, address, user, outcome string) {
	t.Helper()
	if got := s.attempt(t, address, user, testPassword); got != outcome {
		t.Errorf("the right password of %s from %s: %q, want %q", user, address, got, outcome)
	}
}

// TestAttackGuessing: how guesses are counted, by where they come from and whom they
// are about.
func TestAttackGuessing(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: behindProxy, env: []string{"RESTANTE_AUTH_FAILURE_DELAY=0s"}})
	const home = "198.51.100.7"
	s.wantsIn(t, home, "alice", loggedIn)

	// An address has ten, whomever they are about. Its network has more.
	for i := range 10 {
		s.wants(t, 1, "192.0.2.1", fmt.Sprintf("nobody%d", i), wrong)
	}
	s.wants(t, 3, "192.0.2.1", "alice", refused)
	s.wantsIn(t, "192.0.2.1", "bob", refused)
	s.wants(t, 1, "192.0.2.2", "nobody", wrong)

	// A right password does not make up for those of its network: whoever guesses may
	// have an account, too.
	s.wants(t, 9, "203.0.113.1", "nobody9", wrong)
	s.wantsIn(t, "203.0.113.1", "bob", loggedIn)
	s.wants(t, 1, "203.0.113.1", "nobody", wrong)
	s.wants(t, 1, "203.0.113.1", "nobody", refused)

	// A network has forty.
	for i := range 4 {
		s.wants(t, 10, fmt.Sprintf("100.64.0.%d", i+1), fmt.Sprintf("nobody%d", i), wrong)
	}
	s.wantsIn(t, "100.64.0.200", "bob", refused)
	s.wantsIn(t, "100.64.1.200", "bob", loggedIn)

	// An address of IPv6 is a /64, its network a /48.
	for i := range 10 {
		s.wants(t, 1, fmt.Sprintf("2001:db8:1:1::%x", i+1), fmt.Sprintf("six%d", i), wrong)
	}
	s.wantsIn(t, "2001:db8:1:1:ffff::1", "bob", refused)
	s.wantsIn(t, "2001:db8:1:2::1", "bob", loggedIn)
	for i := range 30 {
		s.wants(t, 1, fmt.Sprintf("2001:db8:1:%x::1", 0x10+i), fmt.Sprintf("six%d", 10+i), wrong)
	}
	s.wantsIn(t, "2001:db8:1:ffff::1", "bob", refused)
	s.wantsIn(t, "2001:db8:2::1", "bob", loggedIn)
}

// TestAttackGuessingFromEverywhere: an account has twenty, from strangers only, and its
// user's login forgives them.
func TestAttackGuessingFromEverywhere(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: behindProxy, env: []string{"RESTANTE_AUTH_FAILURE_DELAY=0s"}})
	const home = "198.51.100.7"
	s.wantsIn(t, home, "alice", loggedIn)
	elsewhere := func(i int) string { return fmt.Sprintf("100.%d.%d.1", 64+i/200, i%200) }
	for i := range 20 {
		s.wants(t, 1, elsewhere(i), "alice", wrong)
	}
	s.wants(t, 1, elsewhere(20), "alice", refused)
	s.wantsIn(t, elsewhere(21), "alice", refused) // not looked at
	s.wantsIn(t, elsewhere(22), "bob", loggedIn)
	bans := asJSON[[]control.Ban](t, s, "auth", "bans", "list")
	if len(bans) == 0 || bans[0].Name != "alice@"+testDomain || bans[0].Kind != "account" || !bans[0].Refused {
		t.Errorf("bans: %+v", bans[:min(len(bans), 3)])
	}
	s.wantsIn(t, home, "alice", loggedIn) // as it is known there
	s.wants(t, 1, elsewhere(23), "alice", wrong)
	s.wantsIn(t, elsewhere(24), "alice", loggedIn)

	// The owner forgives an account, and a network as it is listed.
	for i := range 20 {
		s.wants(t, 1, elsewhere(100+i), "bob", wrong)
	}
	s.wantsIn(t, elsewhere(130), "bob", refused)
	restante(t, s.config, "", "auth", "bans", "clear", "Bob@Example.org")
	s.wantsIn(t, elsewhere(131), "bob", loggedIn)
}

// TestAttackParallel: attempts at the same time are no way around the limit, nor is one
// connection for many of them.
func TestAttackParallel(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: strict})
	var mu sync.Mutex
	outcomes := map[string]int{}
	began := make(chan struct{})
	var all sync.WaitGroup
	for i := range 60 {
		d := s.talk(t, "pop3s")
		all.Go(func() {
			<-began
			for j := range 3 {
				_, _ = io.WriteString(d.conn, fmt.Sprintf("USER nobody%d@%s\r\nPASS guess %d\r\n", i, testDomain, 3*i+j))
			}
			said, _ := io.ReadAll(d.lines) // until the server ends it
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(string(said)) {
				outcomes[strings.TrimSpace(line)]++
			}
		})
	}
	close(began)
	all.Wait()
	if outcomes[wrong] > 10 || outcomes[wrong] == 0 || outcomes[refused] < 50 {
		t.Errorf("outcomes: %v", outcomes)
	}
}

// TestAttackForgottenClient: a program that goes on with the same wrong password is no
// attack, in parallel or not, and neither is one with the password of before.
func TestAttackForgottenClient(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: behindProxy})
	const office = "192.0.2.1"
	for range 30 {
		if got := s.attempt(t, office, "alice", "misspelt"); got != wrong {
			t.Fatalf("a forgotten program is answered %q", got)
		}
	}
	bans := asJSON[[]control.Ban](t, s, "auth", "bans", "list")
	if len(bans) == 0 || slices.ContainsFunc(bans, func(b control.Ban) bool { return b.Failures > 1.01 || b.Refused }) {
		t.Errorf("bans: %+v", bans)
	}
	restante(t, s.config, "", "auth", "bans", "clear", "--all")
	s.wantsIn(t, office, "alice", loggedIn)
	s.wantsIn(t, office, "bob", loggedIn)
	restante(t, s.config, "another\n", "user", "passwd", "alice@"+testDomain, "--password-stdin")
	for range 30 {
		if got := s.attempt(t, office, "alice", testPassword); got != wrong {
			t.Fatalf("the password of before is answered %q", got)
		}
	}
	if bans := asJSON[[]control.Ban](t, s, "auth", "bans", "list"); len(bans) > 0 {
		t.Errorf("the password of before counts where its user has been: %+v", bans)
	}
	s.wantsIn(t, office, "bob", loggedIn)
	eventually(t, "30 lines of the log name the device", func() bool {
		return len(s.log.find("login failed", map[string]any{"reason": "bad credentials: the password before the last change", "remote": office, "user": "alice@" + testDomain})) == 30
	})
	eventually(t, "user show names the device", func() bool {
		return strings.Contains(restante(t, s.config, "", "user", "show", "alice@"+testDomain), "POP3+TLS "+office)
	})
}

// TestAttackRestart: who is refused is refused after a restart, in order or not.
func TestAttackRestart(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: behindProxy, env: []string{"RESTANTE_AUTH_FAILURE_DELAY=0s"}})
	state := filepath.Join(s.dir, "data", "run", "failed-logins.json")
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		address := fmt.Sprintf("192.0.%d.1", i)
		s.wants(t, 10, address, "nobody", wrong)
		s.wants(t, 1, address, "nobody", refused)
		if sig == syscall.SIGKILL {
			// What was not written yet, of some seconds, is lost: the first failures may be alone in it.
			refusal := regexp.MustCompile(`"name":"` + regexp.QuoteMeta(address) + `/32","failures":[^}]*"until":`)
			eventually(t, "the state is written", func() bool {
				text, err := os.ReadFile(state)
				return err == nil && refusal.Match(text)
			})
		}
		s.stop(sig)
		s.start(serverOptions{})
		s.wantsIn(t, address, "alice", refused)
		s.wantsIn(t, "198.51.100.1", "alice", loggedIn)
	}
	// A damaged file is no reason not to serve.
	for _, text := range []string{"", "{", "[]", `{"entries":[{"kind":"address","name":"198.51.100.1/32","failures":-1e308,"until":"9999-12-31T23:59:59Z","wrong":["zz",""]}]}`,
		`{"entries":[{"kind":"nonsense","name":"x","failures":1e999}]}`, strings.Repeat("[", 100_000), "\x00\xff"} {
		s.stop(syscall.SIGKILL)
		writeFile(t, state, []byte(text))
		s.start(serverOptions{})
		s.wantsIn(t, "198.51.100.1", "alice", loggedIn)
	}
}

// TestAttackNames: what is wrong with a login does not show, in the reply or, on the
// whole, in the time that it takes, which is only told.
func TestAttackNames(t *testing.T) {
	for name, value := range map[string]string{"FAILURE_DELAY": "0s", "ARGON2_MEMORY": "19MiB", "ARGON2_TIME": "2"} {
		t.Setenv("RESTANTE_AUTH_"+name, value)
	}
	s := newServer(t, serverOptions{})
	for _, user := range []string{"disabled", "apponly"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	restante(t, s.config, "", "user", "disable", "disabled@"+testDomain)
	restante(t, s.config, "", "user", "app-password", "add", "apponly@"+testDomain, "phone")
	restante(t, s.config, "", "user", "set", "apponly@"+testDomain, "--app-only", "on")
	cases := []struct{ what, user, password string }{
		{"wrong password", "alice@" + testDomain, "wrong"},
		{"no such user", "nobody@" + testDomain, testPassword},
		{"no such domain", "alice@example.net", testPassword},
		{"no address", "alice@@x", testPassword},
		{"disabled user", "disabled@" + testDomain, testPassword},
		{"disabled user, wrong password", "disabled@" + testDomain, "wrong"},
		{"app passwords only", "apponly@" + testDomain, testPassword},
		{"not UTF-8", "alice@" + testDomain, "\xff"},
		{"long password", "alice@" + testDomain, strings.Repeat("x", 140)},
	}
	took := map[string][]time.Duration{}
	for i := range 8 {
		for _, c := range cases {
			d := s.talk(t, "pop3s")
			began := time.Now()
			if i%2 == 0 {
				d.want("USER "+c.user, "+OK send PASS")
				if answer := d.ask("PASS " + c.password); answer != wrong {
					t.Errorf("%s: %q", c.what, answer)
				}
			} else if answer := d.ask("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+c.user+"\x00"+c.password))); answer != wrong {
				t.Errorf("%s, by AUTH: %q", c.what, answer)
			}
			took[c.what] = append(took[c.what], time.Since(began))
			d.conn.Close()
		}
	}
	for _, c := range cases {
		slices.Sort(took[c.what])
		t.Logf("%-30s median %v", c.what, took[c.what][len(took[c.what])/2].Round(10*time.Microsecond))
	}
}
