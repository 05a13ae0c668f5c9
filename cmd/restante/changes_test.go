package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestChangesOfRecipients asks one open connection after each change by the
// command line.
func TestChangesOfRecipients(t *testing.T) {
	s := newServer(t, serverOptions{})
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	d.want("MAIL FROM:<sender@client.example>", "250")
	for _, step := range []struct {
		command, recipient, answer string
	}{
		{"", "carol@example.net", "550 5.7.1 "},
		{"domain add example.net", "carol@example.net", "550 5.1.1 "},
		{"user add carol@example.net --password-stdin", "carol@example.net", "250 "},
		{"", "info@example.net", "550 5.1.1 "},
		{"alias add info@example.net carol@example.net", "info@example.net", "250 "},
		{"alias add @example.net alice@example.org", "anything@example.net", "250 "},
		{"alias remove @example.net", "anything@example.net", "550 5.1.1 "},
		{"alias remove info@example.net", "info@example.net", "550 5.1.1 "},
		{"user remove carol@example.net", "carol@example.net", "550 5.1.1 "},
		{"domain remove example.net", "carol@example.net", "550 5.7.1 "},
	} {
		if step.command != "" {
			restante(t, s.config, testPassword+"\n", strings.Fields(step.command)...)
		}
		d.want("RCPT TO:<"+step.recipient+">", step.answer)
	}
}

func TestChangesOfPassword(t *testing.T) {
	s := newServer(t, serverOptions{})
	login := func(password, answer string) *caller {
		t.Helper()
		d := s.talk(t, "pop3s")
		d.want("USER alice@"+testDomain, "+OK")
		d.want("PASS "+password, answer)
		return d
	}
	for range 2 { // the second time the password is known from before
		login(testPassword, "+OK").want("QUIT", "+OK")
	}
	s.deliver(t, []byte("Subject: x\r\n\r\n"), "alice@"+testDomain)
	open := login(testPassword, "+OK")
	open.want("DELE 1", "+OK")
	restante(t, s.config, "another password\n", "user", "passwd", "alice@"+testDomain, "--password-stdin")
	open.want("QUIT", "-ERR [AUTH] ")
	open.ended()
	if n := len(s.files("alice")); n != 1 {
		t.Errorf("%d messages are left after a session that was ended", n)
	}
	login(testPassword, "-ERR [AUTH] ")
	login("another password", "+OK")
}

// TestChangesRemoveUser: the session that is open ends at its next command,
// which lets the removal of the mail go on.
func TestChangesRemoveUser(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: x\r\n\r\n"), "alice@"+testDomain)
	open := s.talk(t, "pop3s").logIn("alice")
	removed := make(chan string, 1)
	go func() {
		out, errOut, code := restanteStatus(t, s.config, "", "user", "remove", "alice@"+testDomain, "--yes")
		removed <- fmt.Sprintf("%d %s%s", code, out, errOut)
	}()
	eventually(t, "the session of the removed user ends", func() bool {
		return strings.HasPrefix(open.ask("NOOP"), "-ERR [AUTH] ")
	})
	open.ended()
	if got := <-removed; !strings.HasPrefix(got, "0 removed user alice@example.org") {
		t.Errorf("removing the user: %s", got)
	}
	if _, err := os.Stat(s.maildir("alice")); err == nil {
		t.Error("the mailbox of the removed user is still there")
	}
	d := s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	d.want("PASS "+testPassword, "-ERR [AUTH] ")
	mail := s.talk(t, "smtp")
	mail.want("EHLO client.example", "250")
	mail.want("MAIL FROM:<>", "250")
	mail.want("RCPT TO:<alice@"+testDomain+">", "550 5.1.1 ")
}

// TestChangesAtOnce has fifty commands change the directory of a running server
// at the same time, while it delivers.
func TestChangesAtOnce(t *testing.T) {
	const each = 25
	s := newServer(t, serverOptions{})
	var users, aliases []string
	var all sync.WaitGroup
	change := func(stdin string, args ...string) {
		all.Go(func() {
			if _, errOut, code := restanteStatus(t, s.config, stdin, args...); code != 0 {
				t.Errorf("restante %s: exit status %d\n%s", strings.Join(args, " "), code, errOut)
			}
		})
	}
	for i := range each {
		user, alias := fmt.Sprintf("user%02d@%s", i, testDomain), fmt.Sprintf("alias%02d@%s", i, testDomain)
		users, aliases = append(users, user), append(aliases, alias)
		change(testPassword+"\n", "user", "add", user, "--password-stdin")
		change("", "alias", "add", alias, "alice@"+testDomain)
	}
	for range 10 {
		s.deliver(t, []byte("Subject: meanwhile\r\n\r\n"), "alice@"+testDomain)
	}
	all.Wait()

	listed := func(kind string) []string {
		var rows []struct {
			Address string `json:"address"`
		}
		if err := json.Unmarshal([]byte(restante(t, s.config, "", kind, "list", "--json")), &rows); err != nil {
			t.Fatal(err)
		}
		var addresses []string
		for _, r := range rows {
			addresses = append(addresses, r.Address)
		}
		slices.Sort(addresses)
		return addresses
	}
	users = append([]string{"alice@" + testDomain, "bob@" + testDomain}, users...)
	if got := listed("user"); !slices.Equal(got, users) {
		t.Errorf("users are %q", got)
	}
	if got := listed("alias"); !slices.Equal(got, aliases) {
		t.Errorf("aliases are %q", got)
	}
	if n := len(s.files("alice")); n != 10 {
		t.Errorf("%d messages of 10", n)
	}
	s.deliver(t, []byte("Subject: to all\r\n\r\n"), append(users, aliases...)...)
	for i := range each {
		if user := fmt.Sprintf("user%02d", i); len(s.files(user)) != 1 {
			t.Errorf("%d messages for %s", len(s.files(user)), user)
		}
	}
}
