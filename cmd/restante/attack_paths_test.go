package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// paths are names that would lead out of a directory if they were used as paths.
func paths() []string {
	return []string{
		"../../x", "../bob", "..", ".", "/etc/passwd", "/", "a/../../x", "./alice", "alice/", "alice/new", "alice/../bob", "..\\..\\x", "%2e%2e%2fx",
		".tmp", ".hidden", "~root", "alice\x00", "alice\x00@example.org", "\x00", "..%00/x", "\u2025/x", "\uff0e\uff0e\uff0fx", "..\u2215x",
		"alice\r\nbob", "alice\nbob", strings.Repeat("a", 300), strings.Repeat("../", 80) + "etc/passwd", "new", "cur", "tmp", "-", "--yes",
	}
}

// TestAttackPaths: no name from outside becomes a path, whatever it says.
func TestAttackPaths(t *testing.T) {
	s := newServer(t, serverOptions{env: []string{"RESTANTE_POP3_MAX_FAILED_LOGINS=100", "RESTANTE_POP3_MAX_COMMANDS=1000", "RESTANTE_SMTP_MAX_REFUSED=1000", "RESTANTE_SMTP_MAX_ERRORS=1000", "RESTANTE_POP3_MAX_ERRORS=1000"}})
	s.deliver(t, []byte("Subject: of bob\r\n\r\n"), "bob@"+testDomain)
	s.keeps(t, "alice", 0) // what a login makes is there
	s.keeps(t, "bob", 1)
	before := tree(t, s.dir)
	oneLine := func(name string) bool { return !strings.ContainsAny(name, "\r\n") }
	for _, name := range slices.DeleteFunc(paths(), func(n string) bool { return !oneLine(n) }) {
		d := s.talk(t, "pop3s")
		for _, user := range []string{name, name + "@" + testDomain, "alice@" + name, name + "@" + name} {
			d.write("USER " + user + "\r\nPASS " + testPassword + "\r\n")
			for range 2 {
				if answer := d.line(); strings.HasPrefix(answer, "+OK maildrop") {
					t.Errorf("%q has logged in: %s", user, answer)
				}
			}
			d.want("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+testPassword)), "-ERR")
		}
		d.conn.Close()
		m := s.talk(t, "smtp")
		m.want("EHLO client.example", "250")
		m.want("MAIL FROM:<>", "250")
		for _, rcpt := range []string{name + "@" + testDomain, `"` + name + `"@` + testDomain, "alice@" + name} {
			if answer := m.ask("RCPT TO:<" + rcpt + ">"); !strings.HasPrefix(answer, "5") {
				t.Errorf("RCPT for %q is answered %q", rcpt, answer)
			}
		}
		m.conn.Close()
	}
	if after := tree(t, s.dir); !slices.Equal(before, after) {
		t.Errorf("files before\n%s\nand after\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	s.keeps(t, "bob", 1)
}

// TestAttackPathsCommands: nor does one of a command's.
func TestAttackPathsCommands(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: of bob\r\n\r\n"), "bob@"+testDomain)
	s.keeps(t, "alice", 0)
	s.keeps(t, "bob", 1)
	before := tree(t, s.dir)
	for _, name := range paths() {
		if strings.Contains(name, "\x00") { // no argument can have it
			continue
		}
		here := name + "@" + testDomain
		for _, args := range [][]string{
			{"user", "show", "--", here}, {"user", "remove", "--yes", "--", here}, {"mailbox", "show", "--", here}, {"mailbox", "verify", "--", here},
			{"mailbox", "deliver", "--", here}, {"mailbox", "deliver", "--", "x@" + name}, {"mailbox", "deliver", "--", name},
		} {
			if out, stderr, code := restanteStatus(t, s.config, "Subject: x\n\n", args...); code == 0 {
				t.Errorf("%q works: %s%s", args, out, stderr)
			}
		}
		// What can be a name is one, in a place of its own below mail/.
		for _, args := range [][]string{
			{"domain", "add", "--", name}, {"user", "add", "--password-stdin", "--", "x@" + name}, {"user", "import", "-"}, {"user", "add", "--password-stdin", "--", name + "@" + testDomain},
		} {
			stdin := "password\n"
			if args[1] == "import" {
				stdin = name + "@" + testDomain + ":{PLAIN}x\n"
			}
			_, _, _ = restanteStatus(t, s.config, stdin, args...)
		}
	}
	mail := filepath.Join(s.dir, "data", "mail")
	for _, name := range tree(t, s.dir) {
		rest, inMail := strings.CutPrefix(name, mail+"/")
		locks, inLocks := strings.CutPrefix(name, filepath.Join(s.dir, "data", "locks")+"/")
		switch {
		case slices.Contains(before, name):
		case inMail && wellPlaced(rest), inLocks && strings.Count(locks, "/") <= 1 && !strings.Contains(locks, "/."):
		default:
			t.Errorf("%q was made", name)
		}
	}
	for _, name := range before {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("gone: %v", err)
		}
	}
	s.keeps(t, "bob", 1)
	s.keeps(t, "alice", 0)
}

// wellPlaced tells whether a path below mail/ is that of a mailbox, or of a part of one.
func wellPlaced(path string) bool {
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if strings.HasPrefix(p, ".") {
			return false
		}
	}
	return len(parts) <= 2 || len(parts) == 3 && slices.Contains([]string{"new", "cur", "tmp"}, parts[2])
}

// tree is every file below a directory that a restless server does not change by itself.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, line := range snapshot(t, dir) {
		name := line[:strings.LastIndex(line[:strings.LastIndex(line, " ")], " ")]
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "restante.db"), strings.HasPrefix(base, "segment-"), base == "failed-logins.json", strings.HasPrefix(base, ".new-"):
		default:
			names = append(names, name)
		}
	}
	return names
}
