package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestQuota fills a mailbox by SMTP, as a sender would.
func TestQuota(t *testing.T) {
	s := newServer(t, serverOptions{})
	restante(t, s.config, "", "user", "set", "alice@"+testDomain, "--quota", "100KB")
	message := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 140)) // 10 kB
	warnings := func() (n int) {
		for _, file := range s.files("alice") {
			if m, err := os.ReadFile(file); err == nil && bytes.Contains(m, []byte("Auto-Submitted: auto-generated\n")) {
				n++
			}
		}
		return n
	}
	accepted := 0
	sender := s.talk(t, "smtp")
	sender.want("EHLO client.example", "250")
	for ; accepted < 20; accepted++ {
		sender.want("MAIL FROM:<sender@client.example>", "250")
		if !strings.HasPrefix(sender.ask("RCPT TO:<alice@"+testDomain+">"), "250") {
			sender.want("RSET", "250")
			break
		}
		sender.want("DATA", "354")
		sender.write(string(message) + ".\r\n")
		sender.want("", "250 2.0.0 OK ")
		if accepted == 6 && warnings() != 0 {
			t.Error("warned after 70 of 100 kB")
		}
	}
	if accepted != 10 { // the last one goes a little over
		t.Errorf("%d messages of 10 kB were let into 100 kB", accepted)
	}
	if n := warnings(); n != 2 {
		t.Errorf("%d warnings, want one at 80%% and one at 95%%", n)
	}
	sender.want("MAIL FROM:<>", "250")
	sender.want("RCPT TO:<alice@"+testDomain+">", "452 4.2.2 Mailbox is full, try again later")
	sender.want("RCPT TO:<bob@"+testDomain+">", "250")
	sender.want("RSET", "250")

	// Making room by POP3 lets mail in at once, and a message too large for what is left not.
	// Two of these five may be warnings.
	reader := s.talk(t, "pop3s").logIn("alice")
	for _, c := range []string{"DELE 1", "DELE 2", "DELE 3", "DELE 4", "DELE 5", "QUIT"} {
		reader.want(c, "+OK")
	}
	sender.want("MAIL FROM:<>", "250")
	eventually(t, "there is room again", func() bool {
		return strings.HasPrefix(sender.ask("RCPT TO:<alice@"+testDomain+">"), "250")
	})
	sender.want("RSET", "250")
	sender.want("MAIL FROM:<> SIZE=50000", "250")
	sender.want("RCPT TO:<alice@"+testDomain+">", "452 4.2.2 ")
	sender.want("RSET", "250")
	sender.want("MAIL FROM:<> SIZE=20000", "250")
	sender.want("RCPT TO:<alice@"+testDomain+">", "250")
	other := s.talk(t, "smtp") // what is on its way has its place
	other.want("EHLO client.example", "250")
	other.want("MAIL FROM:<> SIZE=45000", "250")
	other.want("RCPT TO:<alice@"+testDomain+">", "452 4.2.2 ")

	// A quota that is lifted holds from then on.
	restante(t, s.config, "", "user", "set", "alice@"+testDomain, "--quota", "none")
	other.want("RCPT TO:<alice@"+testDomain+">", "250")
}

func TestPercentFull(t *testing.T) {
	for _, c := range []struct {
		used, quota int64
		want        string
	}{
		{0, 1000, "0%"}, {1, 1 << 40, "<0.01%"}, {1, 10000, "0.01%"}, {4, 1000, "0.40%"}, {999, 100000, "1.00%"},
		{1, 100, "1.0%"}, {55, 1000, "5.5%"}, {10, 100, "10%"}, {999, 1000, "99%"}, {1000, 1000, "100%"}, {1500, 1000, "150%"},
	} {
		if got := percentFull(c.used, c.quota); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.used, c.quota, got, c.want)
		}
	}
}

// Each threshold warns once, and again only after the mailbox was emptier.
func TestFillLevels(t *testing.T) {
	f := new(fillLevels)
	const quota = 100
	for i, step := range []struct {
		before, after int64
		warns         bool
	}{
		{0, 79, false}, {79, 80, true}, {80, 81, false}, {81, 79, false}, {79, 81, false}, // not far enough down
		{74, 80, true}, {80, 97, true}, {97, 99, false}, {10, 99, true}, {99, 100, false},
	} {
		f.fell("a@example.org", step.before, quota)
		if got := f.rose("a@example.org", step.after, quota); got != step.warns {
			t.Errorf("step %d: warns %t", i, got)
		}
	}
	f.fell("b@example.org", 90, quota) // the server has just started
	if f.rose("b@example.org", 91, quota) {
		t.Error("a mailbox that was over the threshold before is warned of")
	}
}
