package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// disown makes the data directory that of a user to whom permissions mean
// something, and who the server becomes when it starts again.
func (v *victim) disown() {
	v.t.Helper()
	const nobody = 65534
	if os.Geteuid() != 0 {
		return // this user is such a one
	}
	v.kill()
	for dir := filepath.Dir(v.data); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			v.t.Fatal(err)
		}
	}
	err := filepath.WalkDir(v.data, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(name, nobody, nobody))
	})
	if err != nil {
		v.t.Fatal(err)
	}
	v.mustStart()
}

// TestFaultPermissions: a mailbox that cannot be opened is no trouble of others.
func TestFaultPermissions(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.disown()
	v.accepts(4000, victims...)
	if err := os.Chmod(v.maildir("bob"), 0); err != nil {
		t.Fatal(err)
	}
	v.refuses(4000, "451 4.3.0", "bob")
	v.refuses(300<<10, "451 4.3.0", "bob")
	v.refuses(4000, "451 4.3.0", victims...)
	v.accepts(4000, "alice", "carol")
	v.logs("message refused", "permission denied", "bob")
	for range 2 {
		d := v.talk("pop3")
		d.want("USER bob@"+testDomain, "+OK")
		d.want("PASS "+testPassword, "-ERR [SYS/TEMP]")
		v.keeps(1000, "alice", "carol")
		v.kill()
		v.mustStart()
	}
	if err := os.Chmod(v.maildir("bob"), 0o700); err != nil {
		t.Fatal(err)
	}
	v.accepts(4000, victims...)
	v.keeps(1000, victims...)
}

// TestFaultMailboxVanishes: somebody removes a mailbox under a session.
func TestFaultMailboxVanishes(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.accepts(4000, "alice", "bob")
	v.accepts(4000, "alice", "bob")
	d := v.talk("pop3").logIn("alice")
	d.want("RETR 1", "+OK")
	d.multiline()
	if err := os.RemoveAll(v.maildir("alice")); err != nil {
		t.Fatal(err)
	}
	v.ledger.emptied("alice")
	d.want("RETR 1", "-ERR")
	d.want("TOP 2 1", "-ERR")
	d.want("LIST 2", "+OK 2 ")
	d.want("DELE 1", "+OK")
	d.want("QUIT", "+OK")
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "bob")
	v.keeps(1000, victims...)
}

// TestFaultMailTreeGone: mail/ is moved away and back, and then removed, while the
// server runs.
func TestFaultMailTreeGone(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.accepts(4000, "alice", "bob")
	mail, away := filepath.Join(v.data, "mail"), filepath.Join(v.data, "away")
	if err := os.Rename(mail, away); err != nil {
		t.Fatal(err)
	}
	v.accepts(300<<10, "alice") // there
	if err := os.Rename(away, mail); err != nil {
		t.Fatal(err)
	}
	v.accepts(4000, "alice", "bob")
	v.keeps(1000, victims...)
	if err := os.RemoveAll(mail); err != nil {
		t.Fatal(err)
	}
	v.refuses(4000, "451 4.3.0", "carol")
	v.refuses(300<<10, "451 4.3.0", "carol")
	v.logs("message refused", "no such file or directory")
	d := v.talk("pop3")
	d.want("USER carol@"+testDomain, "+OK")
	d.want("PASS "+testPassword, "-ERR [SYS/TEMP]")
	v.kill()
	v.mustStart()
	v.accepts(4000, victims...)
	v.keeps(1000, "carol")
}

// TestFaultJournalGone: nothing is promised that rests on files which nobody will
// find again.
func TestFaultJournalGone(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.accepts(4000, "alice", "bob")
	if err := os.RemoveAll(v.journal()); err != nil {
		t.Fatal(err)
	}
	v.refuses(4000, "451 4.3.0", "alice")
	v.refuses(300<<10, "451 4.3.0", "alice")
	v.logs("message refused", v.journal())
	v.keeps(1000, victims...)
	d := v.talk("pop3").logIn("alice")
	d.want("DELE 1", "+OK")
	d.want("QUIT", "-ERR [SYS/TEMP]")
	v.kill()
	v.mustStart()
	v.accepts(4000, "alice", "bob")
	v.keeps(1000, victims...)
}

// TestFaultTwoServers: the second one does not touch what the first is writing,
// and there is no waiting for a lock of a server that was killed.
func TestFaultTwoServers(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	for range 3 {
		v.accepts(4000, "alice", "bob")
		oneLine(t, failedStart(t, v.config, v.journal()), "another server is running", v.data)
		v.accepts(300<<10, "alice", "bob")
		v.kill()
		v.mustStart()
	}
	v.keeps(1000, victims...)
}

// TestFaultClockWentBack: messages from the future are in the mailbox. They keep
// their UIDLs, and the new ones, which come before them, do no harm. No clock is set
// back here, as it would be that of the whole machine: between two servers the files
// get the names that a clock which was ahead would have given them.
func TestFaultClockWentBack(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.accepts(4000, "alice")
	v.accepts(300<<10, "alice")
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	v.ends()
	files, err := filepath.Glob(filepath.Join(v.maildir("alice"), "new", "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		_, rest, _ := strings.Cut(filepath.Base(file), ".")
		later := strconv.FormatInt(time.Now().Add(300*24*time.Hour).Unix(), 10)
		if err := os.Rename(file, filepath.Join(filepath.Dir(file), later+"."+rest)); err != nil {
			t.Fatal(err)
		}
	}
	v.mustStart()
	v.keeps(1000, "alice")
	newest := v.accepts(4000, "alice")
	d := v.talk("pop3").logIn("alice")
	d.want("RETR 1", "+OK")
	if tag, damage := v.ledger.recognise(d.multiline()); tag != newest || damage != "" {
		t.Errorf("message %d is the first, %s", tag, damage)
	}
	d.want("QUIT", "+OK")
	v.kill()
	v.mustStart()
	v.keeps(1000, "alice")
}
