package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHarvestPaced: who tries names waits the longer the more there were, and is then
// cut off; on the way a name that exists is answered as any time.
func TestHarvestPaced(t *testing.T) {
	t.Parallel()
	const pause, most, free = 20 * time.Millisecond, 12, 3
	s := newServer(t, tolerant("RESTANTE_LIMITS_PAUSE=20ms", "RESTANTE_SMTP_MAX_REFUSED=12"))
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	d.want("MAIL FROM:<>", "250 ")
	for n := 1; n <= most; n++ {
		began := time.Now()
		d.want(fmt.Sprintf("RCPT TO:<name%d@example.org>", n), noSuchUser)
		if took, least := time.Since(began), time.Duration(min(max(n-free, 0), 10))*pause; took < least {
			t.Errorf("refusal %d came after %v, not %v", n, took, least)
		}
	}
	d.want("RCPT TO:<alice@example.org>", "250 ")
	d.want("RCPT TO:<name@example.org>", "421 4.7.0 ")
	d.ended()
	closed := s.log.one(t, "connection closed", nil)
	if closed["refused"] != float64(most+1) {
		t.Errorf("%v refused recipients in the log", closed["refused"])
	}
	// To pipeline does not help.
	d = s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	began := time.Now()
	d.write("MAIL FROM:<>\r\n" + strings.Repeat("RCPT TO:<nobody@example.org>\r\n", 100))
	for range 1 + most {
		d.ask("")
	}
	d.want("", "421 4.7.0 ")
	d.ended()
	if took, least := time.Since(began), (1+2+3+4+5+6+7+8+9+10)*pause; took < least {
		t.Errorf("a group of refused recipients took %v, not %v", took, least)
	}
}

// harvestServer has besides alice and bob a user who is disabled.
func harvestServer(t *testing.T) *testServer {
	t.Helper()
	s := newServer(t, tolerant())
	restante(t, s.config, testPassword+"\n", "user", "add", "carol@"+testDomain, "--password-stdin")
	restante(t, s.config, "", "user", "disable", "carol@"+testDomain)
	return s
}

// TestHarvestText: nothing tells who exists, except the answer to RCPT, which is the
// same for all that are alike.
func TestHarvestText(t *testing.T) {
	t.Parallel()
	s := harvestServer(t)
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	same := func(answer string, commands ...string) {
		t.Helper()
		for _, command := range commands {
			if got := d.ask(command); got != answer {
				t.Errorf("%q is answered %q, not %q", command, got, answer)
			}
		}
	}
	same("252 2.5.0 Not verified, but send and we shall see", "VRFY alice@example.org", "VRFY nobody@example.org", "VRFY carol", "VRFY victim@elsewhere.example")
	same("502 5.5.1 Command not offered here", "EXPN alice@example.org", "EXPN nobody@example.org", "HELP alice")
	for _, from := range []string{"alice@example.org", "nobody@example.org", "carol@example.org", "postmaster@elsewhere.example"} {
		same("250 2.1.0 Sender OK", "MAIL FROM:<"+from+">")
		d.want("RSET", "250 ")
	}
	d.want("MAIL FROM:<>", "250 ")
	same("250 2.1.5 Recipient OK", "RCPT TO:<alice@example.org>", "RCPT TO:<BOB+x@example.org>", "RCPT TO:<alice@example.org>", "RCPT TO:<postmaster@example.org>")
	same("550 5.1.1 No such user here", "RCPT TO:<nobody@example.org>", "RCPT TO:<nobody+alice@example.org>", `RCPT TO:<"a b"@example.org>`, "RCPT TO:<alic@example.org>")
	same("550 5.2.1 Mailbox is disabled", "RCPT TO:<carol@example.org>", "RCPT TO:<Carol+x@example.org>")
	if got, other := d.ask("RCPT TO:<alice@elsewhere.example>"), d.ask("RCPT TO:<nobody@elsewhere.example>"); got != other {
		t.Errorf("%q and %q", got, other)
	}
}

// TestHarvestTime measures how long the answers to RCPT take, which says no more than
// they do. The times are for the reader: to judge them takes a quiet machine.
func TestHarvestTime(t *testing.T) {
	s := harvestServer(t)
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	const rounds = 200
	times := make(map[string][]time.Duration)
	for round := range rounds {
		for name, answer := range map[string]string{"alice": "250 ", "nobody": noSuchUser, "carol": "550 5.2.1 ",
			fmt.Sprintf("new%d", round): noSuchUser, fmt.Sprintf("alice+%d", round): "250 "} {
			d.want("MAIL FROM:<>", "250 ")
			began := time.Now()
			d.want("RCPT TO:<"+name+"@example.org>", answer)
			kind := strings.TrimRight(name, "0123456789")
			times[kind] = append(times[kind], time.Since(began))
			d.want("RSET", "250 ")
		}
	}
	for kind, all := range times {
		slices.Sort(all)
		t.Logf("RCPT for %-7s median %v, from %v to %v in nine of ten", kind, all[rounds/2], all[rounds/20], all[rounds-rounds/20])
	}
}
