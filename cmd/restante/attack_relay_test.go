package main

import (
	"slices"
	"strings"
	"testing"
)

// A relayAttempt is what stands behind "RCPT", and the answer. Where it is 250 the
// address names a user of ours, who gets the mail, and why says by which rule.
type relayAttempt struct{ rcpt, answer, user, why string }

// Answers: not hosted, hosted but nobody's, and no address of any mail system.
const (
	relayDenied = "550 5.7.1 "
	noSuchUser  = "550 5.1.1 "
	malformed   = "501 5.1.3 "
	noName      = "553 5.1.3 "
	notALine    = "500 5.5.2 "
	noParam     = "555 5.5.4 "

	unknownCommand = "500 5.5.1 "
)

func relayAttempts() []relayAttempt {
	const (
		literal = "our own address stands for the first domain (RFC 5321 section 4.1.3)"
		route   = "a source route is not followed (RFC 5321 appendix C)"
		quotes  = "quotes are no part of the name (RFC 5321 section 4.1.2)"
		letters = "names are compared without case"
	)
	return slices.Concat([]relayAttempt{ // users of ours
		{" TO:<alice@[127.0.0.1]>", "250", "alice", literal},
		{" TO:<alice@[IPv6:::ffff:127.0.0.1]>", "250", "alice", literal},
		{` TO:<"alice"@[127.0.0.1]>`, "250", "alice", literal},
		{" TO:<@elsewhere.example:alice@example.org>", "250", "alice", route},
		{" TO:<@elsewhere.example,@[192.0.2.1]:alice@example.org>", "250", "alice", route},
		{` TO:<"alice"@example.org>`, "250", "alice", quotes},
		{` TO:<"\a\l\i\c\e"@example.org>`, "250", "alice", quotes},
		{" TO:<aLiCe@eXaMpLe.OrG>", "250", "alice", letters},
		{" to:<alice@example.org>", "250", "alice", letters},
		{" TO:alice@example.org", "250", "alice", "old programs forget the brackets"},
		{" TO: <alice@example.org>", "250", "alice", "others add a space"},
		{" TO:<alice@example.org> \t ", "250", "alice", "white space at the end of a command is tolerated (RFC 5321 section 4.1.1)"},
		{" TO:<alice+victim%elsewhere.example@example.org>", "250", "alice", "what follows a + is a detail, and nothing is done with it"},
		{" TO:<alice+elsewhere.example!victim@example.org>", "250", "alice", "likewise"},
		{` TO:<"alice+victim@elsewhere.example"@example.org>`, "250", "alice", "likewise"},
	}, foreignDomains(), localForms(), brokenForms())
}

// foreignDomains are not ours, whatever stands before them.
func foreignDomains() (all []relayAttempt) {
	for _, path := range []string{
		"<victim@elsewhere.example>", "victim@elsewhere.example", "<alice@elsewhere.example>", "<postmaster@elsewhere.example>",
		"<victim%elsewhere.example@elsewhere.example>", "<example.org!alice@elsewhere.example>", `<"alice@example.org"@elsewhere.example>`,
		`<"victim@elsewhere.example@example.org"@elsewhere.example>`, "<alice%example.org@elsewhere.example>",
		"<@example.org:victim@elsewhere.example>", "<@[127.0.0.1]:victim@elsewhere.example>", "<@localhost,@example.org:victim@elsewhere.example>",
		"<@example.org:victim@[192.0.2.1]>", "<victim@[192.0.2.1]>", "<alice@[192.0.2.1]>", "<alice@[127.0.0.2]>", "<alice@[0.0.0.0]>", "<alice@[IPv6:::1]>",
		"<victim@[IPv6:2001:db8::1]>", "<alice@[IPv6:::]>", "<alice@[IPv6:::127.0.0.1]>", "<alice@localhost>", "<alice@localhost.localdomain>",
		"<alice@mail.example.org>", "<alice@notexample.org>", "<alice@example.org.elsewhere.example>", "<alice@example-org>", "<alice@example>", "<alice@org>",
		"<alice@EXAMPLE.ORG.elsewhere.example>", "<alice@examp1e.org>",
	} {
		all = append(all, relayAttempt{rcpt: " TO:" + path, answer: relayDenied})
	}
	return all
}

// localForms are addresses of the hosted domain by which other systems route.
func localForms() (all []relayAttempt) {
	for _, path := range []string{
		"<victim%elsewhere.example@example.org>", "<victim%elsewhere.example%example.org@example.org>", "<victim%elsewhere.example@[127.0.0.1]>",
		"<elsewhere.example!victim@example.org>", "<example.org!elsewhere.example!victim@example.org>", "<example.org!alice@example.org>",
		`<"victim@elsewhere.example"@example.org>`, `<"victim@elsewhere.example"@[127.0.0.1]>`, `<"victim\@elsewhere.example"@example.org>`,
		`<"victim%elsewhere.example"@example.org>`, `<"elsewhere.example!victim"@example.org>`, `<"@elsewhere.example:victim"@example.org>`,
		`<"<victim@elsewhere.example>"@example.org>`, `<"alice@example.org>,<victim@elsewhere.example"@example.org>`, `<"alice "@example.org>`, `<" alice"@example.org>`,
		"<@elsewhere.example:victim%elsewhere.example@example.org>", "<alice=elsewhere.example@example.org>", "<|/bin/sh@example.org>", `<"|/bin/sh -c id"@example.org>`,
		"</dev/null@example.org>", `<":include:/etc/passwd"@example.org>`, "<../alice@example.org>", "<./alice@example.org>", `<"alice/../bob"@example.org>`, "<alice.@example.org>",
		"<.alice@example.org>", "<al..ice@example.org>", "<alice`id`@example.org>", "<$alice@example.org>", "<*@example.org>", "<@example.org:*@example.org>", `<"@example.org"@example.org>`,
	} {
		all = append(all, relayAttempt{rcpt: " TO:" + path, answer: noSuchUser})
	}
	return all
}

// brokenForms are no addresses.
func brokenForms() (all []relayAttempt) {
	broken := func(answer string, rcpts ...string) {
		for _, rcpt := range rcpts {
			all = append(all, relayAttempt{rcpt: rcpt, answer: answer})
		}
	}
	broken(malformed, " TO:<>", " TO:", " TO:<", " TO:>", " TO:<@>", " TO:<@example.org>", " TO:<@example.org:>", " TO:<@example.org:@example.org:alice@example.org>",
		" TO:<:alice@example.org>", ` TO:<""@example.org>`, ` TO:<"alice@example.org>`, ` TO:<"alice@example.org">`, ` TO:<"victim@elsewhere.example">`, " TO:<alice>", " TO:alice",
		" TO:<example.org!alice>", " TO:<elsewhere.example!victim>", " TO:<victim%elsewhere.example>", " TO:<alice@>", " TO:<alice@example.org", " TO:<alice@example.org.>",
		" TO:<victim@elsewhere.example.>", " TO:<alice@.example.org>", " TO:<alice@example..org>", " TO:<alice@.>", " TO:<alice@[]>", " TO:<alice@[127.0.0.1>",
		" TO:<alice@127.0.0.1]>", " TO:<alice@[127.1]>", " TO:<alice@[2130706433]>", " TO:<alice@[0x7f.0.0.1]>", " TO:<alice@[127.0.0.1%lo]>", " TO:<alice@[localhost]>",
		" TO:<alice@[127.0.0.1].elsewhere.example>", " TO:<victim@elsewhere.example@example.org>", " TO:<victim@example.org@elsewhere.example>",
		" TO:<victim@elsewhere.example@[127.0.0.1]>", ` TO:<victim\@elsewhere.example@example.org>`, " TO:<victim@elsewhere.example,alice@example.org>",
		" TO:<victim@elsewhere.example>,<alice@example.org>", " TO:<alice@example.org>@elsewhere.example", " TO:<alice@example.org<victim@elsewhere.example>>",
		" TO:alice@example.org<victim@elsewhere.example>", " TO:<<alice@example.org>>", " TO:<alice@example.org:25>", " TO:<alice@example.org/>", " TO:<alice@elsewhere.example!example.org>",
		" TO:<ali ce@example.org>", " TO:< alice@example.org>", " TO:<alice @example.org>", " TO:<alice@ example.org>", " TO:<alice@exam ple.org>", " TO:<alice@example.org >",
		" TO:<ali\tce@example.org>", " TO:<alice@example.org\t>", " TO:\t<alice@example.org>", " TO:<(c)alice@example.org>", " TO:Alice <alice@example.org>",
		" TO:<alice@example.org;victim@elsewhere.example>", " TO:<group:alice@example.org;>", " FROM:<alice@example.org>", " TO<alice@example.org>", " TO :<alice@example.org>",
		" <alice@example.org>", "", " ", " TO:<\x7falice@example.org>", " TO:<alice\x1b@example.org>", " TO:<\xffalice@example.org>", " TO:<alice@example.org\x08>")
	broken(noName, " TO:<alice@127.0.0.1>", " TO:<alice@2130706433>", " TO:<alice@-example.org>", " TO:<alice@example-.org>", " TO:<alice@example_.org>", " TO:<alice@exa_mple.org>",
		" TO:<alice@xn--example-.elsewhere.example>")
	broken(notALine, " TO:<alice@example.org\x00@elsewhere.example>", " TO:<alice@example.org>\x00", " TO:<\x00alice@example.org>", " TO:<alice\r@example.org>",
		" TO:<alice@example.org>\n", " TO:<victim@elsewhere.example>\rRCPT TO:<alice@example.org>", " TO:<alice@example.org\n@elsewhere.example>")
	broken(unknownCommand, ":<alice@example.org>", ".TO:<alice@example.org>", "\tTO:<alice@example.org>")
	broken(noParam, " TO:<victim@elsewhere.example> ORCPT=rfc822;alice@example.org", " TO:<alice@example.org> ORCPT=rfc822;victim@elsewhere.example",
		" TO:<alice@example.org> NOTIFY=SUCCESS", " TO:<alice@example.org> RELAY=victim@elsewhere.example")
	broken(noParam, " TO:<victim@elsewhere.example> <alice@example.org>", " TO:<alice@example.org> victim@elsewhere.example")
	return all
}

// TestRelay tries every form with every kind of sender. None leads out of here.
func TestRelay(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	want := make(map[string]int)
	for _, from := range []string{"<sender@client.example>", "<>", "<alice@example.org>", "<alice@[127.0.0.1]>", "<root@localhost>", "<@example.org:alice@example.org>"} {
		d := s.talk(t, "smtp")
		d.want("EHLO localhost", "250 ")
		for _, attempt := range relayAttempts() {
			d.want("MAIL FROM:"+from, "250 ")
			if got := d.ask("RCPT" + attempt.rcpt); !strings.HasPrefix(got, attempt.answer) {
				t.Errorf("from %s: RCPT%q is answered %q, want %q", from, attempt.rcpt, got, attempt.answer)
			} else if attempt.user == "" {
				d.want("DATA", "503 ")
			} else {
				want[attempt.user]++
				d.want("DATA", "354 ")
				d.write("Subject: relayed\r\n\r\n")
				d.want(".", "250 ")
			}
			d.want("RSET", "250 ")
		}
		d.want("QUIT", "221 ")
	}
	for _, user := range []string{"alice", "bob"} {
		if n := len(s.files(user)); n != want[user] {
			t.Errorf("%d messages for %s, not %d", n, user, want[user])
		}
	}
	if mailboxes := treeNames(t, s.dir); !slices.Equal(mailboxes, []string{"alice", "bob"}) {
		t.Errorf("the mailboxes are %q", mailboxes)
	}
}
