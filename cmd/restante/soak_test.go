package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSoak keeps a server busy for the time in SOAK, such as 30m, with senders,
// POP3 clients, commands, reloads and, in the first third, kills. No promise may
// be broken, and the last server, which lives for two thirds of the time, may
// not grow.
func TestSoak(t *testing.T) {
	text := os.Getenv("SOAK")
	if text == "" {
		t.Skip("SOAK does not say how long, such as SOAK=30m")
	}
	whole, err := time.ParseDuration(text)
	if err != nil || whole <= 0 {
		t.Fatalf("SOAK is %q, not a length of time", text)
	}
	c := newCrash(t, "restante", nil)
	defer c.report(t)
	for end := time.Now().Add(whole / 3); time.Now().Before(end) && c.sound(); {
		c.rounds++
		l := c.soak(whole/60 + rand.N(whole/20))
		l.cut.Store(true)
		c.server.kill()
		l.stop()
		if err := c.restart(); err != nil {
			t.Fatal(err)
		}
		if c.sound() {
			c.inspect()
		}
	}
	if !c.sound() {
		return
	}
	c.soak(whole * 2 / 9).stop()
	before := c.idle(t)
	c.soak(whole * 4 / 9).stop()
	after := c.idle(t)
	t.Logf("idle after a third of the load: %v; after all of it: %v", before, after)
	// The database keeps as many connections as were ever needed at a time.
	const more, moreGoroutines, moreMemory = 16, 10, 16 << 20
	if after.descriptors > before.descriptors+more || after.threads > before.threads+more ||
		after.goroutines > before.goroutines+moreGoroutines ||
		after.memory > before.memory+before.memory/4+moreMemory {
		t.Errorf("the server grows: idle after a third of the load %v, after all of it %v", before, after)
	}
	c.inspect()
}

// soak runs a load for a while and leaves it running.
func (c *crash) soak(d time.Duration) *load {
	l := c.newLoad()
	l.pause = 100 * time.Millisecond
	l.start(c.rng)
	admin := &administrator{sender: &sender{load: l, profile: profile{size: 1000, each: 1}, rng: rand.New(rand.NewPCG(c.rng.Uint64(), 4))}, server: c.server}
	l.wg.Go(func() { l.repeat("administrator", admin.rng, time.Second, admin.visit) })
	time.Sleep(d) // the load is to last so long
	return l
}

// administrator changes users and aliases while the server runs, sends mail to
// them, and has the server reload.
type administrator struct {
	*sender
	server *crashServer
}

// visit adds a user and an alias, both get mail, and removes them. The commands
// work whether a server runs or not.
func (a *administrator) visit() error {
	const visitor, both = "visitor", "both"
	address, alias := visitor+"@"+testDomain, both+"@"+testDomain
	err := errors.Join(
		a.server.command(testPassword+"\n", "user", "add", address, "--password-stdin"),
		a.server.command("", "alias", "add", alias, address, residents[0]+"@"+testDomain))
	if err != nil {
		a.ledger.trouble("%v", err) // even if the server is gone
		return nil
	}
	mailed := a.mail([]string{both}, []string{visitor, residents[0]})
	if mailed == nil {
		mailed = a.mail([]string{visitor}, []string{visitor})
	}
	_ = a.server.cmd.Process.Signal(syscall.SIGHUP) // fails when it was just killed
	err = errors.Join(
		a.server.command("", "mailbox", "list"),
		a.server.command("", "alias", "remove", alias),
		a.server.command("", "user", "remove", address, "--yes"))
	if err != nil {
		a.ledger.trouble("%v", err)
		return nil
	}
	a.ledger.emptied(visitor)
	if mailed == nil {
		mailed = a.refused(visitor)
	}
	return mailed
}

// mail sends one message.
func (a *administrator) mail(to, mailboxes []string) error {
	c, err := a.greet()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.message(c, to, mailboxes); !errors.Is(err, errHungUp) {
		return err
	}
	return nil
}

// refused wants no mail to be taken for a user that was removed.
func (a *administrator) refused(user string) error {
	c, err := a.greet()
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.say("MAIL FROM:<>"), c.expect("250"), c.say("RCPT TO:<"+user+"@"+testDomain+">"), c.expect("550"))
}

// usage is what a process takes.
type usage struct {
	descriptors, threads, goroutines int
	memory                           int // octets, with its part of what it shares
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d goroutines, %d KiB", u.descriptors, u.threads, u.goroutines, u.memory>>10)
}

// idle waits until the server has no connection left, and tells what it takes.
func (c *crash) idle(t *testing.T) (u usage) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(c.server.cmd.Process.Pid))
	eventually(t, "all connections are closed", func() bool {
		links, err := filepath.Glob(filepath.Join(proc, "fd", "*"))
		if err != nil {
			t.Fatal(err)
		}
		sockets := 0
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
				sockets++
			}
		}
		u.descriptors = len(links)
		const listening = 4 // SMTP, POP3, metrics, and the control socket
		return sockets == listening
	})
	u.threads = numberIn(t, textOf(t, filepath.Join(proc, "status")), `(?m)^Threads:\s+(\d+)`)
	u.memory = numberIn(t, textOf(t, filepath.Join(proc, "smaps_rollup")), `(?m)^Pss:\s+(\d+) kB`) << 10
	u.goroutines = numberIn(t, c.server.scrape(t), `(?m)^go_goroutines (\d+)$`)
	return u
}

// scrape gets the metrics, and leaves no connection behind.
func (s *crashServer) scrape(t *testing.T) []byte {
	t.Helper()
	client := &http.Client{Timeout: deadline, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func textOf(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// numberIn is the one that a pattern finds in a text.
func numberIn(t *testing.T, text []byte, pattern string) int {
	t.Helper()
	match := regexp.MustCompile(pattern).FindSubmatch(text)
	if match == nil {
		t.Fatalf("no %s in:\n%s", pattern, text)
	}
	n, err := strconv.Atoi(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
