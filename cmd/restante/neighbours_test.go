package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// listing is what POP3 tells of a mailbox: sizes by UIDL.
func (s *testServer) listing(t *testing.T, user string) map[string]int {
	t.Helper()
	d := s.talk(t, "pop3s").logIn(user)
	d.want("UIDL", "+OK")
	var uids []string
	for line := range strings.Lines(string(d.multiline())) {
		uids = append(uids, strings.Fields(line)[1])
	}
	d.want("LIST", "+OK")
	sizes := make(map[string]int)
	i := 0
	for line := range strings.Lines(string(d.multiline())) {
		sizes[uids[i]], _ = strconv.Atoi(strings.Fields(line)[1])
		i++
	}
	d.want("QUIT", "+OK")
	return sizes
}

// mutt opens a Maildir and types keys.
func mutt(t *testing.T, maildir, keys string) {
	t.Helper()
	dir := t.TempDir()
	rc := writeFile(t, filepath.Join(dir, "rc"), []byte("set folder="+dir+" mbox_type=Maildir wait_key=no confirmappend=no confirmcreate=no delete=yes quit=yes move=no copy=no\n"))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	command := fmt.Sprintf("mutt -n -F %s -f %s -e 'push %s'", rc, maildir, keys)
	cmd := exec.CommandContext(ctx, "script", "-qec", command, "/dev/null") // it wants a terminal
	cmd.Env = append(os.Environ(), "TERM=xterm", "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// TestNeighbourMutt: mutt reads, marks and deletes in a mailbox that is served, and
// writes into another.
func TestNeighbourMutt(t *testing.T) {
	client(t, "mutt")
	s := newServer(t, serverOptions{})
	for i := range 3 {
		s.deliver(t, fmt.Appendf(nil, "Subject: number %d\r\n\r\nbody %d\r\n", i, i), "alice@"+testDomain)
	}
	before := s.listing(t, "alice")
	mutt(t, s.maildir("alice"), "<display-message><exit><copy-message>"+s.maildir("bob")+"<enter><quit>")
	if seen, _ := filepath.Glob(filepath.Join(s.maildir("alice"), "cur", "*:2,S")); len(seen) == 0 {
		t.Error("mutt has not marked the message as seen")
	}
	after := s.listing(t, "alice")
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("after mutt has looked: %v, before %v", after, before)
	}
	copied := s.fetchAll(t, "bob")
	if len(copied) != 1 || !strings.Contains(string(copied[0]), "Subject: number") {
		t.Errorf("what mutt has written: %q", copied)
	}
	mutt(t, s.maildir("alice"), "<delete-message><quit>")
	after = s.listing(t, "alice")
	if len(after) != 2 {
		t.Errorf("after mutt has deleted one of three: %v", after)
	}
	for uid, size := range after {
		if before[uid] != size {
			t.Errorf("%s has %d octets, before %d", uid, size, before[uid])
		}
	}
}

// dovecot is Dovecot on a mailbox, by its tool, as the user who owns the mail.
type dovecot struct {
	t               *testing.T
	config, maildir string
}

func (d dovecot) do(args ...string) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "doveadm", append([]string{"-c", d.config, "-f", "tab"}, args...)...)
	cmd.Dir = filepath.Dir(d.config)
	cmd.Env = append(os.Environ(), "USER=nobody", "HOME="+filepath.Dir(d.config))
	actAs(d.t, cmd, nobody)
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("doveadm %q: %v\n%s", args, err, err.(*exec.ExitError).Stderr)
	}
	return string(out)
}

// sizes are the octets that Dovecot tells IMAP clients, sorted.
func (d dovecot) sizes() (sizes []int) {
	for line := range strings.Lines(d.do("fetch", "size.virtual", "mailbox", "INBOX", "all")) {
		if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	return sizes
}

func newDovecot(t *testing.T, s *testServer, user string) dovecot {
	d := dovecot{t: t, maildir: s.maildir(user)}
	dir := t.TempDir()
	d.config = writeFile(t, filepath.Join(dir, "dovecot.conf"), fmt.Appendf(nil,
		"ssl = no\nlog_path = /dev/stderr\nbase_dir = %s/run\nmail_location = maildir:%s\nmail_uid = nobody\nmail_gid = %d\nfirst_valid_uid = 1\n", dir, d.maildir, nobody))
	if err := os.Chmod(d.config, 0o644); err != nil {
		t.Fatal(err)
	}
	actAs(t, new(exec.Cmd), nobody, dir)
	return d
}

// TestNeighbourDovecot: both serve the same mailbox, and agree on what is in it,
// while mail comes and each deletes.
func TestNeighbourDovecot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives files to another user")
	}
	client(t, "doveadm")
	s := prepareServer(t, serverOptions{})
	for _, user := range []string{"alice", "bob"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	actAs(t, new(exec.Cmd), nobody, s.dir) // the server becomes the owner of the data
	s.start(serverOptions{})
	for _, m := range awkwardMessages() {
		s.deliver(t, []byte(m.text), "alice@"+testDomain)
	}
	d := newDovecot(t, s, "alice")
	agree := func(what string) map[string]int {
		t.Helper()
		here := s.listing(t, "alice")
		var sizes []int
		for _, n := range here {
			sizes = append(sizes, n)
		}
		slices.Sort(sizes)
		if there := d.sizes(); !slices.Equal(sizes, there) {
			t.Errorf("%s: here %v, Dovecot has %v", what, sizes, there)
		}
		return here
	}
	before := agree("at first")
	d.do("flags", "add", `\Seen \Flagged`, "mailbox", "INBOX", "all")
	if after := agree("after Dovecot has moved all to cur"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("UIDLs and sizes %v, before %v", after, before)
	}
	d.do("expunge", "mailbox", "INBOX", "1")
	if after := agree("after Dovecot has deleted one"); len(after) != len(before)-1 {
		t.Errorf("%d messages, before %d", len(after), len(before))
	}
	pop := s.talk(t, "pop3s").logIn("alice")
	pop.want("DELE 1", "+OK")
	pop.want("QUIT", "+OK")
	if after := agree("after POP3 has deleted one"); len(after) != len(before)-2 {
		t.Errorf("%d messages, before %d", len(after), len(before))
	}

	// All at once: senders, a POP3 client that deletes, Dovecot that marks and deletes.
	const each = 20
	var all sync.WaitGroup
	all.Go(func() {
		for i := range each {
			s.deliver(t, fmt.Appendf(nil, "Subject: at once %d\r\n\r\nbody\r\n", i), "alice@"+testDomain)
		}
	})
	all.Go(func() {
		for range each / 2 {
			d.do("flags", "add", `\Answered`, "mailbox", "INBOX", "all")
			d.do("fetch", "text", "mailbox", "INBOX", "all")
		}
		d.do("expunge", "mailbox", "INBOX", "1")
	})
	all.Go(func() {
		for range each {
			s.listing(t, "alice")
		}
	})
	all.Wait()
	if after := agree("after all at once"); len(after) != len(before)-2+each-1 {
		t.Errorf("%d messages, want %d", len(after), len(before)-2+each-1)
	}
	s.deliver(t, []byte("Subject: last\r\n\r\n"), "alice@"+testDomain)
	agree("after one more")
}
