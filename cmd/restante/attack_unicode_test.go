package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// A spelling is a recipient that looks like one of ours, or folds into one in some
// program. Where it is one of ours, why says by which rule.
type spelling struct{ rcpt, answer, user, why string }

func spellings() []spelling {
	const (
		canonical = "the same characters to Unicode (canonical equivalence)"
		caseless  = "the same without case (simple case folding)"
		domain    = "domains are mapped before they are looked up (UTS 46)"
	)
	refused := func(answer string, rcpts ...string) (all []spelling) {
		for _, rcpt := range rcpts {
			all = append(all, spelling{rcpt: rcpt, answer: answer})
		}
		return all
	}
	return slices.Concat([]spelling{
		{"\u212aate@example.org", "250", "kate", canonical + ": the Kelvin sign"},
		{"KATE@example.org", "250", "kate", caseless},
		{"\u017fam@example.org", "250", "sam", caseless + ": the long s"},
		{"STRA\u1e9eE@example.org", "250", "straße", caseless + ": the capital sharp s"},
		{"al\u0130ce@example.org", "250", "alice", "the small letter of the I with a dot is i"},
		{"STRASSE@example.org", "250", "strasse", caseless + ", and no sharp s"},
		{"ba\u0308rbel@example.org", "250", "bärbel", canonical},
		{"BA\u0308RBEL+x@example.org", "250", "bärbel", canonical},
		{"\u03c3\u03bf\u03c6\u03cc\u03a3@example.org", "250", "σοφόσ", caseless + ": the sigma at the end"},
		{"\u03c3\u03bf\u03c6\u03cc\u03c2@example.org", "250", "σοφόσ", caseless + ": the sigma at the end"},
		{"alice@example\u3002org", "250", "alice", domain + ": the ideographic full stop"},
		{"alice@\uff25xample.org", "250", "alice", domain + ": full width"},
		{"alice@exam\u00adple.org", "250", "alice", domain + ": the soft hyphen is nothing"},
	},
		// Other letters are other names.
		refused(noSuchUser, "\u0430lice@example.org", "al\u0456ce@example.org", "al\u0131ce@example.org", "\uff41\uff4c\uff49\uff43\uff45@example.org", "alic\u0435@example.org",
			"\U0001d41alice@example.org", "\u24d0lice@example.org", "alice\u0301@example.org", "a\u0338lice@example.org", "\ufb01nn@example.org", "stra\u0432\u00dfe@example.org",
			"stras\u017fes@example.org", "barbel@example.org", "b\u00e5rbel@example.org", "\u2170ce@example.org", "\u2116@example.org", "\u2121@example.org", "\u00aalice@example.org",
			"\u1e99@example.org", "\u0130\u0307@example.org", "\u2024\u2024/alice@example.org", "\uff0e\uff0e\uff0falice@example.org", "..\u2215alice@example.org",
			"alice\u2044bob@example.org", "alice\uff20example.org@example.org", "..\u2044..\u2044@example.org", "\u2025/alice@example.org", "alice\uff0bx@example.org", "\u0430lice+x@example.org"),
		// What nobody sees is in no name.
		refused(noName, "al\u200bice@example.org", "alice\u200d@example.org", "\ufeffalice@example.org", "al\u00adice@example.org", "al\u034fice@example.org", "alice\ufe0f@example.org",
			"alice\U000e0061@example.org", "alice\u3164@example.org", "alice\u115f@example.org", "ali\u2060ce@example.org", "alice\u00a0@example.org", "alice\u3000@example.org",
			"alice\ue000@example.org", "alice\ufffe@example.org", "\u180ealice@example.org", "alice\u206a@example.org",
			"alice@example\u2024\u2024org", "alice@example.org\u2488com"),
		refused(malformed, "al\u202eeci@example.org", "\u202dalice@example.org", "alice\u2066@example.org", "\u200falice@example.org", "alice\u061c@example.org", "alice\u2028@example.org",
			"alice\u2029@example.org", "alice\u0085@example.org", "alice\uff20example.org", "alice\ufe6bexample.org", "\xc0\xae\xc0\xae/alice@example.org", "alice\xed\xa0\x80@example.org",
			"alice\xf4\x90\x80\x80@example.org", "\xe0\x80\xafalice@example.org", "alice@exam\u202eple.org", "alice@\xc0\xaeexample.org", "alice\xff@example.org"),
		refused(relayDenied, "alice@ex\u0430mple.org", "alice@example.o\u0433g", "alice@ex\u00e4mple.org", "alice@xn--exmple-cua.org"),
	)
}

// TestUnicodeSpellings sends to each: what comes is in the mailbox of the one user who
// has the name, and nowhere else.
func TestUnicodeSpellings(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	users := []string{"alice", "bob", "kate", "sam", "straße", "strasse", "bärbel", "σοφός", "finn"}
	for _, user := range users[2:] {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	users[slices.Index(users, "σοφός")] = "σοφόσ" // as it is kept
	want := make(map[string]int)
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250 ")
	for _, name := range spellings() {
		d.allow(deadline)
		if strings.ContainsFunc(name.rcpt, func(r rune) bool { return r > '~' }) {
			d.want("MAIL FROM:<>", "250 ")
			if got := d.ask("RCPT TO:<" + name.rcpt + ">"); got[0] != '5' {
				t.Errorf("%q without SMTPUTF8 is answered %q", name.rcpt, got)
			}
			d.want("RSET", "250 ")
		}
		d.want("MAIL FROM:<> SMTPUTF8", "250 ")
		if got := d.ask("RCPT TO:<" + name.rcpt + ">"); !strings.HasPrefix(got, name.answer) {
			t.Errorf("%q (%+q) is answered %q, not %q", name.rcpt, name.rcpt, got, name.answer)
		} else if name.user != "" {
			want[name.user]++
			d.want("DATA", "354 ")
			d.write("Subject: x\r\n\r\n")
			d.want(".", "250 ")
		}
		d.want("RSET", "250 ")
	}
	slices.Sort(users)
	if got := treeNames(t, s.dir); !slices.Equal(got, users) {
		t.Errorf("mailboxes %q", got)
	}
	for _, user := range users {
		all := s.fetchAll(t, user)
		if len(all) != want[user] {
			t.Errorf("%d messages for %s, not %d", len(all), user, want[user])
		}
		for _, message := range all {
			if to := []byte("\r\nDelivered-To: " + user); !bytes.Contains(message, append(to, '@')) && !bytes.Contains(message, append(to, '+')) {
				t.Errorf("for %s: %q", user, message)
			}
		}
	}
}

// TestUnicodePaths: no name of a user or domain becomes a path elsewhere.
func TestUnicodePaths(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	before := snapshot(t, s.dir+"/data/mail")
	for _, name := range []string{"../x@example.org", "a/b@example.org", ".@example.org", "..@example.org", ".tmp@example.org", "x@..", "x@../..", "x@.tmp", "x@example.org/..",
		"x@example.org/../other.example", `"../x"@example.org`, `"x y"@example.org`, "x\r@example.org", "x\n@example.org", "x\u202e@example.org", "x\u2028@example.org", "\xff@example.org",
		"a\u200bb@example.org", "@example.org", "x@", strings.Repeat("x", 300) + "@example.org", "Al\u212aice@", "a\\..\\b@..", "~root@", "x@.example.org", "x@example..org"} {
		if out, _, code := restanteStatus(t, s.config, testPassword+"\n", "user", "add", name, "--password-stdin"); code == 0 {
			t.Errorf("user add %q: %s", name, out)
		}
		_, domain, _ := strings.Cut(name, "@")
		if domain == testDomain || domain == "" {
			continue
		}
		if out, _, code := restanteStatus(t, s.config, "", "domain", "add", domain); code == 0 {
			t.Errorf("domain add %q: %s", domain, out)
		}
	}
	if after := snapshot(t, s.dir+"/data/mail"); !slices.Equal(before, after) {
		t.Errorf("%q became %q", before, after)
	}
}
