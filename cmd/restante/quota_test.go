package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"restante/auth"
	"restante/storage"
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

	// A quota that is lifted holds from then on.
	restante(t, s.config, "", "user", "set", "alice@"+testDomain, "--quota", "none")
	sender.want("MAIL FROM:<> SIZE=50000", "250")
	sender.want("RCPT TO:<alice@"+testDomain+">", "250")
}

// TestQuotaAtTheEnd: whoever is in the middle of a message, or announces one, keeps no
// room from others. Of those that have come in the end, one may go over the quota; the
// next is refused for the time being, and with it all that it is for.
func TestQuotaAtTheEnd(t *testing.T) {
	s := newServer(t, serverOptions{})
	restante(t, s.config, "", "user", "set", "alice@"+testDomain, "--quota", "100KB")
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1000) // 72 kB
	begin := func(size string, to ...string) *caller {
		t.Helper()
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250")
		d.want("MAIL FROM:<sender@client.example> SIZE="+size, "250")
		for _, name := range to {
			d.want("RCPT TO:<"+name+"@"+testDomain+">", "250")
		}
		d.want("DATA", "354")
		d.write("Subject: x\r\n\r\n" + body)
		return d
	}
	var talks []*caller
	for range 3 {
		talks = append(talks, begin("99000", "alice", "bob"))
	}
	for i, reply := range []string{"250 2.0.0 OK ", "250 2.0.0 OK ", "452 4.2.2 Mailbox is full, try again later"} {
		talks[i].write(".\r\n")
		talks[i].want("", reply)
	}
	talks[2].want("NOOP", "250") // the connection goes on
	if n := len(s.files("bob")); n != 2 {
		t.Errorf("%d messages for the other recipient, want those that were accepted", n)
	}
	bob := begin("99000", "bob")
	bob.write(".\r\n")
	bob.want("", "250 2.0.0 OK ")
}

// heeded are notes whose reader is told before each look.
type heeded struct {
	memo
	look func()
}

func (h heeded) Warned(mailbox string) (int, error) {
	h.look()
	return h.memo.Warned(mailbox)
}

// TestQuotaCountsOnce: a message that was delivered takes its room once, also while its
// user is warned.
func TestQuotaCountsOnce(t *testing.T) {
	const alice = "alice@" + testDomain
	ctx, dir := t.Context(), t.TempDir()
	users, err := auth.Open(ctx, filepath.Join(dir, "directory"), auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	mail, err := storage.Open(dir, storage.Options{Hostname: "mail.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer mail.Close()
	secret, err := auth.PlainSecret(testPassword)
	if err != nil {
		t.Fatal(err)
	}
	if err := users.AddDomain(ctx, testDomain, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := users.AddUser(ctx, alice, secret); err != nil {
		t.Fatal(err)
	}
	quota := int64(100_000)
	if err := users.SetQuota(ctx, alice, &quota); err != nil {
		t.Fatal(err)
	}
	looked := false
	look := func() {
		looked = true
		if err := mail.Fits(ctx, alice, quota/3, quota); err != nil {
			t.Errorf("half full: %v", err)
		}
	}
	d := deliveries{mail: mail, users: users, fill: &fillLevels{notes: heeded{memo{}, look}}, log: slog.New(slog.DiscardHandler)}
	message := strings.NewReader(strings.Repeat(strings.Repeat("x", 70)+"\r\n", int(quota)/2/72))
	if _, err := d.Deliver(ctx, "0123456789abcdef", []string{alice}, message); err != nil || !looked {
		t.Fatalf("looked %t, %v", looked, err)
	}
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

// memo are notes in memory.
type memo map[string]int

func (m memo) Warned(mailbox string) (int, error) { return m[mailbox], nil }

func (m memo) SetWarned(mailbox string, level int) error {
	m[mailbox] = level
	return nil
}

// Each threshold warns once, and again only after the mailbox was emptier, whether or
// not the server starts again in between.
func TestFillLevels(t *testing.T) {
	const quota = 100
	for _, restarts := range []bool{false, true} {
		f := &fillLevels{notes: memo{}}
		for i, step := range []struct {
			holds int64
			warns bool
		}{
			{0, false}, {79, false}, {80, true}, {81, false}, {79, false}, {81, false}, // not far enough down
			{74, false}, {80, true}, {97, true}, {99, false}, {10, false}, {99, true}, {100, false}, {300, false},
		} {
			due, err := f.look("a@example.org", step.holds, quota)
			if due != step.warns || err != nil {
				t.Errorf("step %d, restarts %t: warns %t, %v", i, restarts, due, err)
			}
			if err := f.note("a@example.org"); err != nil {
				t.Error(err)
			}
			if restarts {
				f = &fillLevels{notes: f.notes}
			}
		}
	}
	f := &fillLevels{notes: memo{}}
	for range 2 { // the first could not be delivered
		if due, _ := f.look("b@example.org", 200, quota); !due {
			t.Error("no warning of a mailbox that was over the quota from the first")
		}
		f.forget("b@example.org")
	}
}

// TestQuotaWarnings: one for each level, in whatever way the mailbox comes to it, and
// none again after a restart.
func TestQuotaWarnings(t *testing.T) {
	s := newServer(t, serverOptions{})
	address := "alice@" + testDomain
	message := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 140)) // 10 kB
	offer := func(reply string) {
		t.Helper()
		d := s.talk(t, "smtp")
		d.want("EHLO client.example", "250")
		d.want("MAIL FROM:<>", "250")
		d.want("RCPT TO:<"+address+">", reply)
		d.want("QUIT", "221")
	}
	restart := func() {
		t.Helper()
		if code := s.stop(syscall.SIGTERM); code != 0 {
			t.Fatalf("the exit status is %d", code)
		}
		s.start(serverOptions{})
	}
	s.deliver(t, message, address)
	s.deliver(t, message, address)
	restante(t, s.config, "", "user", "set", address, "--quota", "15KB")
	offer("452 4.2.2")
	offer("452 4.2.2")
	if n := len(s.files("alice")); n != 3 {
		t.Errorf("%d messages, want two and a warning: the quota is smaller", n)
	}
	restart()
	offer("452 4.2.2")
	restante(t, s.config, "", "user", "set", address, "--quota", "25KB") // 84%
	offer("250")
	restart()
	s.deliver(t, nil, address)
	if n := len(s.files("alice")); n != 4 {
		t.Errorf("%d messages, want three and the warning of before", n)
	}
	s.deliver(t, message[:5000], address)
	s.log.one(t, "mailbox fills up", nil)
	if n := len(s.files("alice")); n != 6 {
		t.Errorf("%d messages, want four and two warnings", n)
	}
}
