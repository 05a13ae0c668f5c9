package pop3d

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestLoginDelay: a few logins may come together, the others a delay apart, and
// those refused do not make it worse.
func TestLoginDelay(t *testing.T) {
	const delay = time.Minute
	var v visits
	now := time.Unix(1_700_000_000, 0)
	if early := v.admit("a", now, 0); early != 0 {
		t.Errorf("without a delay a login is %v early", early)
	}
	for i := range loginBurst {
		if early := v.admit("a", now, delay); early != 0 {
			t.Fatalf("login %d of the burst is %v early", i+1, early)
		}
	}
	for range 3 {
		if early := v.admit("a", now.Add(20*time.Second), delay); early != 40*time.Second {
			t.Fatalf("a login too many is %v early, want 40 s", early)
		}
	}
	if early := v.admit("b", now, delay); early != 0 {
		t.Errorf("another mailbox is %v early", early)
	}
	for i := 1; i < 100; i++ {
		if early := v.admit("a", now.Add(time.Duration(i)*delay), delay); early != 0 {
			t.Fatalf("login %d, a delay after the last, is %v early", i, early)
		}
	}
}

// TestVisitsForget: what is remembered of logins stays bounded.
func TestVisitsForget(t *testing.T) {
	var v visits
	now := time.Unix(1_700_000_000, 0)
	for i := range 20 * manyVisits {
		v.admit(fmt.Sprint("user", i), now.Add(time.Duration(i)*time.Second), time.Minute)
	}
	if n := len(v.due); n > manyVisits {
		t.Errorf("%d mailboxes are remembered", n)
	}
}

// TestTooSoon: the client of a proven user hears how long it has to wait, and
// the maildrop is free.
func TestTooSoon(t *testing.T) {
	mail := newFakeMail("Subject: a\r\n\r\nb\r\n")
	config := Config{AllowPlaintext: everywhere, LoginDelay: time.Hour}
	backend := newPlayer(config, mail).backend
	for i := range loginBurst + 1 {
		p := newPlayer(config, mail)
		p.backend = backend
		p.must(t, "USER "+testUser)
		got := p.must(t, "PASS "+testPassword)
		p.must(t, "QUIT")
		if refused := strings.HasPrefix(got, "-ERR [LOGIN-DELAY] too many logins, try again in "); refused != (i == loginBurst) {
			t.Errorf("login %d: %q", i+1, got)
		}
		if mail.locked {
			t.Fatalf("login %d: the maildrop is locked after the session", i+1)
		}
	}
}

// TestInUseSince: who finds the maildrop in use hears for how long.
func TestInUseSince(t *testing.T) {
	mail := newFakeMail()
	config := Config{AllowPlaintext: everywhere}
	first, second := newPlayer(config, mail), newPlayer(config, mail)
	second.backend = first.backend
	logIn := func(p *player) string {
		p.must(t, "USER "+testUser)
		return p.must(t, "PASS "+testPassword)
	}
	if got := logIn(first); !strings.HasPrefix(got, "+OK") {
		t.Fatal(got)
	}
	first.backend.visits.begin(testUser, time.Now().Add(-3*time.Minute))
	const want = "-ERR [IN-USE] the maildrop has been in use by another session for 3 minutes"
	if got := strings.TrimSpace(logIn(second)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	first.must(t, "QUIT")
	if got := logIn(second); !strings.HasPrefix(got, "+OK") {
		t.Errorf("after the end of the other session: %q", got)
	}
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "0 seconds",
		1500 * time.Millisecond: "1 second",
		59 * time.Second:        "59 seconds",
		60 * time.Second:        "1 minute",
		59 * time.Minute:        "59 minutes",
		90 * time.Minute:        "1 hour",
		25 * time.Hour:          "25 hours",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// A login is signed with how it came.
func TestSign(t *testing.T) {
	mail := newFakeMail("x")
	c := Config{AllowPlaintext: func(netip.Addr) bool { return true }}
	for _, secure := range []bool{false, true} {
		s := newSession(c.withDefaults(), &backend{Authenticator: mail, Mailstore: mail}, true)
		s.remote = netip.MustParseAddr("fe80::1%eth0")
		if secure {
			s.secured()
		}
		before := time.Now()
		for _, line := range []string{"USER " + testUser, "PASS wrong", "USER " + testUser, "PASS " + testPassword} {
			s.handle(t.Context(), []byte(line))
		}
		s.end("test")
		want := Visit{At: before, Protocol: "POP3", Address: "fe80::1"}
		if secure {
			want.Protocol = "POP3+TLS"
		}
		if len(mail.visits) != 1 {
			t.Fatalf("signed %v", mail.visits)
		}
		got := mail.visits[0]
		if got.At.Before(before) {
			t.Errorf("at %v, before the login", got.At)
		}
		if got.At = before; got != want {
			t.Errorf("signed %v, want %v", got, want)
		}
		mail.visits = nil
	}
}

func TestWorthSigning(t *testing.T) {
	var v visits
	now := time.Now()
	for i, c := range []struct {
		mailbox, address string
		after            time.Duration
		want             bool
	}{
		{"a", "1", 0, true}, {"a", "1", time.Second, false}, {"a", "2", 2 * time.Second, true}, {"b", "1", 2 * time.Second, true},
		{"a", "2", 61 * time.Second, false}, {"a", "2", 62 * time.Second, true}, {"a", "2", 121 * time.Second, false},
	} {
		if got := v.worthSigning(c.mailbox, Visit{At: now.Add(c.after), Address: c.address}); got != c.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
	for i := range 2 * maxSigned {
		v.worthSigning(fmt.Sprint(i), Visit{})
	}
	if len(v.last) > maxSigned {
		t.Errorf("%d are remembered", len(v.last))
	}
}
