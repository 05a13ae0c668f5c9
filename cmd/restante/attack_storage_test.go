package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// newOwnedServer is newServer with a data directory that is not root's, so that there
// are files which the server must not read.
func newOwnedServer(t *testing.T) *testServer {
	t.Helper()
	s := prepareServer(t, serverOptions{})
	for _, user := range []string{"alice", "bob"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	if os.Geteuid() == 0 {
		actAs(t, new(exec.Cmd), nobody, s.dir)
	}
	s.start(serverOptions{})
	return s
}

// oddFiles are what a mailbox should not have, by what they are.
func oddFiles(secret, theirs string) map[string]func(name string) error {
	mknod := func(mode uint32, device int) func(string) error {
		return func(name string) error { return syscall.Mknod(name, mode|0o666, device) }
	}
	link := func(to string) func(string) error { return func(name string) error { return os.Symlink(to, name) } }
	odd := map[string]func(string) error{
		"link to a file":           link(secret),
		"link to passwd":           link("/etc/passwd"),
		"link to mail of another":  link(theirs),
		"link that leads nowhere":  link("/nonexistent/file"),
		"link to itself":           func(name string) error { return os.Symlink(filepath.Base(name), name) },
		"link to its directory":    link("."),
		"link to /dev/zero":        link("/dev/zero"),
		"link to the root":         link("/"),
		"directory":                func(name string) error { return os.Mkdir(name, 0o700) },
		"directory without rights": func(name string) error { return os.Mkdir(name, 0) },
		"FIFO":                     mknod(syscall.S_IFIFO, 0),
		"socket": func(name string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return l.Close()
		},
		"unreadable file": func(name string) error { return os.WriteFile(name, []byte("Subject: SECRET\n\n"), 0) },
	}
	if os.Geteuid() == 0 {
		odd["/dev/zero"] = mknod(syscall.S_IFCHR, 1<<8|5)
		odd["a tape that blocks"] = mknod(syscall.S_IFCHR, 5<<8) // the terminal
		odd["a block device"] = mknod(syscall.S_IFBLK, 7<<8)
	}
	return odd
}

// TestAttackOddFiles: what is no message is neither served nor waited for, in no place
// of a mailbox, and is in nobody's way.
func TestAttackOddFiles(t *testing.T) {
	s := newOwnedServer(t)
	secret := filepath.Join(s.dir, "secret")
	if err := os.WriteFile(secret, []byte("Subject: SECRET\n\nSECRET\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.deliver(t, []byte("Subject: SECRET of bob\r\n\r\n"), "bob@"+testDomain)
	s.deliver(t, []byte("Subject: real\r\n\r\n"), "alice@"+testDomain)
	places := []string{"new/", "cur/", "tmp/", ""}
	made := 0
	for what, makeOdd := range oddFiles(secret, s.files("bob")[0]) {
		for i, place := range places {
			name := fmt.Sprintf("1%d.odd%d.x,S=10,W=12", made, i) // a name of our own form promises a size
			if i%2 == 1 {
				name = fmt.Sprintf("odd%d:2,S", made)
			}
			if err := makeOdd(filepath.Join(s.maildir("alice"), place+name)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			made++
		}
	}
	// One that others may run as its owner is a message like any other, and never run.
	setuid := filepath.Join(s.maildir("alice"), "new", "setuid")
	if err := errors.Join(os.WriteFile(setuid, []byte("#!/bin/sh\n"), 0o755), os.Chmod(setuid, 0o4755)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d := s.talk(t, "pop3s").logIn("alice")
		d.want("LIST", "+OK")
		listed := strings.Count(string(d.multiline()), "\n")
		served := 0
		for i := range listed {
			d.write(fmt.Sprintf("RETR %d\r\n", i+1))
			if !strings.HasPrefix(d.line(), "+OK") {
				continue
			}
			served++
			if body := d.multiline(); bytes.Contains(body, []byte("SECRET")) || bytes.Contains(body, []byte("root:")) {
				t.Errorf("message %d is a file of others: %.100q", i+1, body)
			}
		}
		if served != 2 {
			t.Errorf("%d messages of %d listed could be fetched, want 2", served, listed)
		}
		d.want("QUIT", "+OK")
	}
	s.deliver(t, []byte("Subject: another\r\n\r\n"), "alice@"+testDomain, "bob@"+testDomain)
	if out := restante(t, s.config, "", "mailbox", "show", "alice@"+testDomain); strings.Contains(out, "SECRET") {
		t.Errorf("mailbox show:\n%s", out)
	}
	_, _, _ = restanteStatus(t, s.config, "", "mailbox", "verify", "alice@"+testDomain) // ends, whatever it says
	if n := len(s.fetchAll(t, "bob")); n != 2 {
		t.Errorf("%d messages of bob", n)
	}
	if body, err := os.ReadFile(secret); err != nil || !bytes.Contains(body, []byte("SECRET")) {
		t.Errorf("the file that links lead to: %q, %v", body, err)
	}
}

// TestAttackDirectories: a link or something else in the place of a directory leads
// nowhere. Mail is refused for now or kept, and never delivered or read elsewhere.
func TestAttackDirectories(t *testing.T) {
	for _, part := range []string{"", "new", "cur", "tmp"} {
		for what, makeOdd := range oddFiles("/dev/null", "") {
			if what == "link to the root" || what == "link to its directory" || what == "link to a file" || what == "FIFO" || what == "unreadable file" {
				t.Run(strings.TrimSpace(part+" "+what), func(t *testing.T) { attackDirectory(t, part, makeOdd) })
			}
		}
		t.Run(strings.TrimSpace(part+" link to that of another"), func(t *testing.T) {
			attackDirectory(t, part, func(name string) error {
				alice := filepath.Join(filepath.Dir(name), "bob")
				if part != "" {
					alice = filepath.Join(filepath.Dir(filepath.Dir(name)), "bob", part)
				}
				return os.Symlink(alice, name)
			})
		})
	}
}

func attackDirectory(t *testing.T, part string, makeOdd func(string) error) {
	t.Parallel()
	s := newOwnedServer(t)
	s.deliver(t, []byte("Subject: of bob\r\n\r\n"), "bob@"+testDomain)
	place := filepath.Join(s.maildir("alice"), part)
	if err := errors.Join(os.RemoveAll(place), makeOdd(place)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, filepath.Join(s.dir, "data", "mail"))
	d := s.talk(t, "pop3s")
	d.want("USER alice@"+testDomain, "+OK")
	if answer := d.ask("PASS " + testPassword); strings.HasPrefix(answer, "+OK") {
		d.want("STAT", "+OK 0 0")
		d.want("QUIT", "+OK")
	} else if !strings.HasPrefix(answer, "-ERR [SYS/") {
		t.Errorf("the login is answered %q", answer)
	}
	m := s.talk(t, "smtp").envelope("alice@" + testDomain)
	m.write("Subject: for alice\r\n\r\n")
	answer, want := m.ask("."), 0
	if strings.HasPrefix(answer, "250 ") {
		want = 1
	} else if after := snapshot(t, filepath.Join(s.dir, "data", "mail")); !strings.HasPrefix(answer, "4") || !slices.Equal(before, after) {
		t.Errorf("mail for alice is answered %q; the mail before\n%s\nand after\n%s", answer, strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	// What was taken is hers, as soon as her mailbox is one again.
	if st, err := os.Lstat(place); err == nil && !st.IsDir() {
		if err := os.Remove(place); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.fetchAll(t, "alice"); len(got) != want {
		t.Errorf("mail for alice was answered %q, and she has %d messages", answer, len(got))
	}
	if got := s.fetchAll(t, "bob"); len(got) != 1 || !bytes.Contains(got[0], []byte("of bob")) {
		t.Errorf("bob has %q", got)
	}
}

// TestAttackHardLinks: a message that two mailboxes share is removed from one of them.
func TestAttackHardLinks(t *testing.T) {
	s := newOwnedServer(t)
	s.deliver(t, []byte("Subject: shared\r\n\r\n"), "bob@"+testDomain)
	theirs := s.files("bob")[0]
	for _, name := range []string{"new/one", "cur/one:2,S", "cur/two:2,", "new/" + filepath.Base(theirs)} {
		if err := os.Link(theirs, filepath.Join(s.maildir("alice"), name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.fetchAll(t, "alice"); len(got) != 3 {
		t.Errorf("alice has %d messages, want 3: one has two names", len(got))
	}
	if left := s.files("alice"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if got := s.fetchAll(t, "bob"); len(got) != 1 {
		t.Errorf("bob has %d messages", len(got))
	}
}

// TestAttackFileNames: names of files that other programs or people made are no lines
// of replies or of the log, and lead to their own files only.
func TestAttackFileNames(t *testing.T) {
	s := newServer(t, serverOptions{})
	names := []string{
		"\r\n+OK INJECTED", "x\r\n.\r\n+OK INJECTED\r\n", "\n", "a\nb", "\x01\x02\x1b[2J\x7f", "\xff\xfe\x80", "with space", " ", "x\ty",
		"-rf", "*", "$(id)", "%s%n%d", "{}", "a..b", ":2,S", ":", "x:1,y", "x:2,S:2,T", ",S=1,W=1", "x,S=5,W=7", "x,S=99999999999999999999,W=1",
		"x,S=-1,W=-1", "1.x.y,S=18,W=20", "1.M.h,S=,W=", strings.Repeat("n", 255), strings.Repeat("\r", 255), strings.Repeat("ü", 127), "x,W=1:2,S",
		"9999999999999999999999.a.b", "-1.a.b", "INJECTED\u2028\u202e", "CON", "a\\b", `"`, "'",
	}
	for i, name := range names {
		writeFile(t, filepath.Join(s.maildir("alice"), []string{"new", "cur"}[i%2], name), fmt.Appendf(nil, "X-Name: %x\n\nbody\n", name))
	}
	var before string
	for round := range 2 {
		d := s.talk(t, "pop3s").logIn("alice")
		d.want("UIDL", "+OK")
		uids := string(d.multiline())
		line := regexp.MustCompile(`^[0-9]+ [!-~]{1,70}$`)
		seen := map[string]bool{}
		lines := strings.Split(strings.TrimSuffix(uids, "\r\n"), "\r\n")
		for _, l := range lines {
			_, uid, _ := strings.Cut(l, " ")
			if !line.MatchString(l) || seen[uid] {
				t.Errorf("UIDL has %q", l)
			}
			seen[uid] = true
		}
		if round > 0 && uids != before {
			t.Errorf("UIDLs before\n%s\nand now\n%s", before, uids)
		}
		before = uids
		found := map[string]bool{}
		for i := range lines {
			size := strings.Fields(d.want(fmt.Sprintf("LIST %d", i+1), "+OK "))[2]
			d.want(fmt.Sprintf("RETR %d", i+1), "+OK")
			body := d.multiline()
			found[string(body)] = true
			if fmt.Sprint(len(body)) != size {
				t.Errorf("%q: %d octets, %s announced", body, len(body), size)
			}
		}
		for _, name := range names {
			if !found[fmt.Sprintf("X-Name: %x\r\n\r\nbody\r\n", name)] {
				t.Errorf("%q was not served", name)
			}
		}
		d.want("QUIT", "+OK")
	}
	// Each is removed by itself.
	d := s.talk(t, "pop3s").logIn("alice")
	d.want("DELE 1", "+OK")
	d.want("DELE 3", "+OK")
	d.want("QUIT", "+OK")
	if n := len(s.fetchAll(t, "alice")); n != len(names)-2 {
		t.Errorf("%d messages are left of %d after two were deleted", n, len(names))
	}
	if left := s.files("alice"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	for line := range strings.Lines(s.log.text()) {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("a line of the log was forged: %q", line)
		}
	}
}
