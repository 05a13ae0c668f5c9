package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests of the files attack_*.go do to the program what is done to servers on
// the open internet, and see that nothing comes of it.

// tolerant lifts the limits that would end an attack before all its forms are tried.
func tolerant(env ...string) serverOptions {
	return serverOptions{env: append([]string{"RESTANTE_LIMITS_PAUSE=0s", "RESTANTE_SMTP_MAX_ERRORS=10000", "RESTANTE_SMTP_MAX_REFUSED=10000",
		"RESTANTE_SMTP_MAX_COMMANDS=1000000"}, env...)}
}

// allow gives the connection more time.
func (d *caller) allow(t time.Duration) {
	d.t.Helper()
	d.until = time.Now().Add(t)
	if err := d.conn.SetDeadline(d.until); err != nil {
		d.t.Fatal(err)
	}
}

// sentinel is a command that no attack uses, so that its answer is known.
const sentinel, sentinelAnswer = "VRFY sentinel", "252 "

// replies gives the last lines of the replies to all that was sent; nothing may be
// under way but them. The sentinel's is not among them.
func (d *caller) replies() (lines []string) {
	d.t.Helper()
	d.write(sentinel + "\r\n")
	for {
		line := d.ask("")
		if strings.HasPrefix(line, sentinelAnswer) {
			return lines
		}
		lines = append(lines, line)
	}
}

// codes are the first words of replies.
func codes(lines []string) string {
	var all []string
	for _, line := range lines {
		all = append(all, line[:3])
	}
	return strings.Join(all, " ")
}

// segments sends each piece when the server has read the one before. Nobody else may
// speak to the server meanwhile.
func (d *caller) segments(s *testServer, pieces ...string) {
	d.t.Helper()
	for _, piece := range pieces {
		before := s.octetsRead(d.t)
		d.write(piece)
		for end := time.Now().Add(deadline); s.octetsRead(d.t) < before+len(piece); time.Sleep(50 * time.Microsecond) {
			if time.Now().After(end) {
				d.t.Fatal("the server does not read")
			}
		}
	}
}

// octetsRead is how many octets the server has read so far, from whatever.
func (s *testServer) octetsRead(t *testing.T) (octets int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &octets); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return octets
}

// treeNames are the mailboxes of the only domain that there is on the disk.
func treeNames(t *testing.T, dir string) (mailboxes []string) {
	t.Helper()
	mail := filepath.Join(dir, "data", "mail")
	for _, place := range []struct {
		dir  string
		want []string
	}{{mail, []string{".tmp", testDomain}}, {filepath.Join(mail, ".tmp"), nil}} {
		if got := names(t, place.dir); !slices.Equal(got, place.want) {
			t.Errorf("%q in %s, not %q", got, place.dir, place.want)
		}
	}
	return names(t, filepath.Join(mail, testDomain))
}

// names are those in a directory, sorted.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
