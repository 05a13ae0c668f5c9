package main

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The mailboxes of a crash. The guest's is removed and made anew between rounds.
const guest = "guest"

var (
	residents = []string{"ada", "bert", "cleo", "dora"}
	everyUser = append(slices.Clone(residents), guest)
)

// crash lets a server under load crash again and again on the same data, and
// checks after each time, and at times before, that every promise in the ledger was
// kept.
type crash struct {
	ledger *ledger
	server *crashServer
	disk   *loopDisk // nil: the server is killed, the power stays
	rng    *rand.Rand
	rounds int
}

// newCrash makes a data directory on disk, or elsewhere if that is nil, and
// starts a server on it.
func newCrash(t *testing.T, program string, disk *loopDisk) *crash {
	t.Helper()
	top := t.TempDir()
	if disk != nil {
		top = disk.dir
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &crash{ledger: newLedger(), disk: disk, rng: rand.New(rand.NewPCG(seed, 0)),
		server: newCrashServer(t, program, filepath.Join(top, "data"), everyUser)}
	targets := make([]string, 0, len(residents))
	for _, user := range residents {
		targets = append(targets, user+"@"+testDomain)
	}
	if err := c.server.command("", append([]string{"alias", "add", groupAlias + "@" + testDomain}, targets...)...); err != nil {
		t.Fatal(err)
	}
	if err := c.server.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Log(c.ledger.summary(c.rounds))
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", c.server.log.text())
		}
	})
	return c
}

// run makes rounds until one of them finds something.
func (c *crash) run(rounds int) {
	for c.rounds < rounds && c.sound() {
		c.rounds++
		c.round()
	}
}

// sound tells that nothing wrong was found. No load may run.
func (c *crash) sound() bool { return len(c.ledger.findings)+len(c.ledger.troubles) == 0 }

func (c *crash) round() {
	if c.rng.IntN(2) == 0 {
		l := c.newLoad()
		l.start(c.rng)
		time.Sleep(time.Duration(c.rng.Int64N(int64(200 * time.Millisecond)))) // for some mail
		l.stop()
		c.glance()
		c.renewGuest()
		if !c.sound() {
			return
		}
	}
	duration := 20*time.Millisecond + time.Duration(c.rng.Int64N(int64(780*time.Millisecond)))
	if c.rng.IntN(10) == 0 {
		duration += 4500 * time.Millisecond // beyond a checkpoint
	}
	l := c.newLoad()
	l.start(c.rng)
	time.Sleep(duration) // the moment of the crash is meant to be any
	l.cut.Store(true)
	err := c.strike()
	l.stop()
	if err == nil {
		err = c.reboot()
	}
	for more := c.rng.IntN(4) == 0; more && err == nil; more = c.rng.IntN(2) == 0 {
		err = c.crashAtStart()
	}
	if err == nil && c.rng.IntN(4) == 0 {
		c.renewGuest() // beside a journal that nobody has completed yet
	}
	if err == nil {
		err = c.restart()
	}
	if err != nil {
		c.ledger.find(finding{kind: stuck, detail: err.Error()})
	}
	if c.sound() {
		c.inspect()
	}
}

func (c *crash) newLoad() *load {
	return &load{ledger: c.ledger, smtp: c.server.smtp, pop3: c.server.pop3, users: everyUser, group: residents}
}

// strike cuts the power, if there is a disk to do it to, and a moment later the
// server, so that it has time to say what it should not.
func (c *crash) strike() error {
	if c.rng.IntN(6) == 0 { // in the middle of an orderly end, or after it
		_ = c.server.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended already
		time.Sleep(time.Duration(c.rng.Int64N(int64(300 * time.Millisecond))))
	}
	if c.disk != nil && c.rng.IntN(8) > 0 {
		if err := c.disk.cutPower(); err != nil {
			return err
		}
		time.Sleep(time.Duration(c.rng.Int64N(int64(30 * time.Millisecond))))
	}
	c.server.kill()
	return nil
}

// reboot mounts the disk again. The server does not run.
func (c *crash) reboot() error {
	if c.disk == nil {
		return nil
	}
	if err := c.disk.unmount(); err != nil {
		return err
	}
	return c.disk.mount()
}

// crashAtStart has the server come up, and crash again when it may be in the
// middle of that, or just through.
func (c *crash) crashAtStart() error {
	if err := c.server.launch(); err != nil {
		return err
	}
	time.Sleep(time.Duration(c.rng.Int64N(int64(150 * time.Millisecond))))
	if err := c.strike(); err != nil {
		return err
	}
	return c.reboot()
}

// restart starts the server after a crash, while for each mailbox a client tries to
// connect: what it sees at its first look has to be complete already.
func (c *crash) restart() error {
	over := make(chan struct{})
	var clients sync.WaitGroup
	for _, user := range everyUser {
		clients.Go(func() {
			if err := firstLook(c.ledger, c.server.pop3, user, over); err != nil {
				c.ledger.find(finding{kind: stuck, mailbox: user, detail: err.Error()})
			}
		})
	}
	err := c.server.start()
	close(over)
	clients.Wait()
	return err
}

// renewGuest removes a user with all mail, and adds it again. What comes back
// later would be read by somebody else.
func (c *crash) renewGuest() {
	address := guest + "@" + testDomain
	if err := c.server.command("", "user", "remove", address, "--yes"); err != nil {
		c.ledger.trouble("%v", err)
		return
	}
	c.ledger.emptied(guest)
	if err := c.server.command(testPassword+"\n", "user", "add", address, "--password-stdin"); err != nil {
		c.ledger.trouble("%v", err)
	}
}

// inspect looks into every mailbox.
func (c *crash) inspect() {
	const keep = 40
	for _, user := range everyUser {
		if err := inspect(c.ledger, c.server.pop3, user, keep); err != nil {
			c.ledger.find(finding{kind: stuck, mailbox: user, detail: err.Error()})
		}
	}
}

// glance looks into every mailbox before a crash: recovery would make good what the
// living server has left out.
func (c *crash) glance() {
	for _, user := range everyUser {
		if err := glance(c.ledger, c.server.pop3, user); err != nil {
			c.ledger.find(finding{kind: stuck, mailbox: user, detail: err.Error()})
		}
	}
}

// report fails the test for everything that was found.
func (c *crash) report(t *testing.T) {
	t.Helper()
	const most = 20
	for i, f := range c.ledger.findings {
		if i == most {
			t.Errorf("and %d more", len(c.ledger.findings)-most)
			break
		}
		t.Error(f)
	}
	for _, trouble := range c.ledger.troubles[:min(most, len(c.ledger.troubles))] {
		t.Error(trouble)
	}
	if !c.sound() {
		t.Errorf("in round %d", c.rounds)
	} else if n := c.ledger.tally; n.accepted < c.rounds || n.checked < c.rounds {
		t.Error("hardly any mail was accepted:", c.ledger.summary(c.rounds))
	}
}
