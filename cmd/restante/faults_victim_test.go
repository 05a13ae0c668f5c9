package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// victim is a server that things happen to. Its ledger knows what was accepted,
// and what must not be there.
type victim struct {
	*crashServer
	t      *testing.T
	data   string
	ledger *ledger
}

var victims = []string{"alice", "bob", "carol"}

// newVictim starts a server whose data directory is below top; "" is a temporary
// directory.
func newVictim(t *testing.T, top string) *victim {
	t.Helper()
	if top == "" {
		top = t.TempDir()
	}
	data := filepath.Join(top, "data")
	v := &victim{newCrashServer(t, "restante", data, victims), t, data, newLedger()}
	t.Cleanup(func() {
		for _, fault := range []string{"DATA RACE", "panic", "unexpected fault"} {
			if strings.Contains(v.log.text(), fault) {
				t.Errorf("%s in the server", fault)
			}
		}
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", v.log.text())
		}
	})
	config, err := os.ReadFile(v.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, v.config, bytes.Replace(config, []byte("[log]"), []byte("[log]\nlevel = \"debug\""), 1))
	v.mustStart()
	return v
}

func (v *victim) journal() string { return filepath.Join(v.data, "journal") }

func (v *victim) maildir(user string) string {
	return filepath.Join(v.data, "mail", testDomain, user)
}

func (v *victim) mustStart() {
	v.t.Helper()
	if err := v.start(); err != nil {
		v.t.Fatal(err)
	}
}

// staysDown expects that the server ends at its start, and says why in one line
// that has these parts.
func (v *victim) staysDown(parts ...string) {
	v.t.Helper()
	if err := v.launch(); err != nil {
		v.t.Fatal(err)
	}
	v.ends()
	oneLine(v.t, v.log.text()+"\n", parts...)
	if code := v.cmd.ProcessState.ExitCode(); code != exitFailed {
		v.t.Errorf("exit status %d instead of %d", code, exitFailed)
	}
}

// ends waits until the server has ended.
func (v *victim) ends() {
	v.t.Helper()
	eventually(v.t, "the server ends", func() bool {
		select {
		case <-v.exited:
			return true
		default:
			return false
		}
	})
}

// talk connects to the port smtp or pop3 and reads the greeting.
func (v *victim) talk(port string) *caller {
	v.t.Helper()
	return (&testServer{smtp: v.smtp, pop3: v.pop3}).talk(v.t, port)
}

// send sends a message of about so many octets, and returns the answer to it.
func (v *victim) send(octets int, to ...string) (answer string) {
	v.t.Helper()
	var addresses []string
	for _, user := range to {
		addresses = append(addresses, user+"@"+testDomain)
	}
	d := v.talk("smtp").envelope(addresses...)
	defer d.conn.Close()
	tag, text := v.ledger.compose(octets)
	v.ledger.sending(tag, to)
	d.write(string(bytes.ReplaceAll(text, []byte("\n."), []byte("\n.."))))
	answer = d.ask(".")
	v.ledger.sent(tag, to, strings.HasPrefix(answer, "250 "))
	d.want("QUIT", "221")
	return answer
}

// accepts sends a message that the server has to take, and returns its tag.
func (v *victim) accepts(octets int, to ...string) (tag int) {
	v.t.Helper()
	v.answers(octets, "250 2.0.0 OK ", to...)
	return len(v.ledger.sums)
}

// refuses sends a message that the server must not take now, and which the
// sender is to send again.
func (v *victim) refuses(octets int, answer string, to ...string) {
	v.t.Helper()
	v.answers(octets, answer, to...)
}

func (v *victim) answers(octets int, beginning string, to ...string) {
	v.t.Helper()
	if answer := v.send(octets, to...); !strings.HasPrefix(answer, beginning) {
		v.t.Fatalf("%q instead of %q for a message to %v", answer, beginning, to)
	}
}

// keeps fails the test if a mailbox does not hold what it should, whole and
// once. Then all but keep messages of each are removed.
func (v *victim) keeps(keep int, users ...string) {
	v.t.Helper()
	for _, user := range users {
		if err := inspect(v.ledger, v.pop3, user, keep); err != nil {
			v.t.Fatalf("mailbox of %s: %v", user, err)
		}
	}
	for _, f := range v.ledger.findings {
		v.t.Error(f)
	}
	if v.t.Failed() {
		v.t.FailNow()
	}
}

// logs waits until a line of the log has these parts.
func (v *victim) logs(parts ...string) {
	v.t.Helper()
	eventually(v.t, fmt.Sprintf("the log has a line with %q", parts), func() bool { return v.logged(parts...) })
}

// logged is whether a line of the log has these parts.
func (v *victim) logged(parts ...string) bool {
	for line := range strings.Lines(v.log.text()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

// killedAfter kills the server as soon as it has accepted some messages, which are in its
// journal then. Once that was too late the messages are removed, and it is done again.
func (v *victim) killedAfter(accept func()) {
	v.t.Helper()
	for range 5 {
		before := v.checkpoints()
		accept()
		v.kill()
		if v.checkpoints() == before {
			return
		}
		v.mustStart()
		v.keeps(0, victims...)
	}
	v.t.Fatal("there is a checkpoint each time before it can be killed")
}

// checkpoints is how many the server has made.
func (v *victim) checkpoints() int { return len(v.log.find("checkpoint", nil)) }
