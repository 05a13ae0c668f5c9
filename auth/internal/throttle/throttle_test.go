package throttle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a time that tests set.
type clock struct{ at time.Time }

func newThrottle() (*Throttle, *clock) {
	c := &clock{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	t := New(1000, func(a netip.Addr) bool { return a.IsLoopback() })
	t.now = func() time.Time { return c.at }
	return t, c
}

func digest(s string) (d Digest) {
	copy(d[:], s)
	return d
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// wrong fails once with a password that was not tried before, and tells whether
// the attempt was let in.
func wrong(t *testing.T, th *Throttle, client, account, password string) bool {
	t.Helper()
	a, err := th.Begin(t.Context(), addr(client), account)
	if errors.Is(err, ErrRefused) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	a.Wrong(digest(password))
	return true
}

func right(t *testing.T, th *Throttle, client, account string) bool {
	t.Helper()
	a, err := th.Begin(t.Context(), addr(client), account)
	if err != nil {
		return false
	}
	a.Right()
	return true
}

// until counts the attempts that are let in, each with another password.
func until(t *testing.T, th *Throttle, most int, attempt func(i int) (client, account string)) int {
	for i := range most {
		client, account := attempt(i)
		if !wrong(t, th, client, account, fmt.Sprint("p", i)) {
			return i
		}
	}
	return most
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		what    string
		attempt func(i int) (client, account string)
		want    int
	}{
		{"one address, one account", func(int) (string, string) { return "192.0.2.7", "a@x" }, 10},
		{"one address, many accounts", func(i int) (string, string) { return "192.0.2.7", fmt.Sprint(i) }, 10},
		{"one address, mapped", func(int) (string, string) { return "::ffff:192.0.2.7", "a@x" }, 10},
		{"one network", func(i int) (string, string) { return fmt.Sprintf("192.0.2.%d", i), fmt.Sprint(i) }, 40},
		{"an IPv6 network of one customer", func(i int) (string, string) { return fmt.Sprintf("2001:db8::%x", i), fmt.Sprint(i) }, 10},
		{"a site", func(i int) (string, string) { return fmt.Sprintf("2001:db8:0:%x::1", i), fmt.Sprint(i) }, 40},
		{"one account from everywhere", func(i int) (string, string) { return fmt.Sprintf("198.%d.2.1", i), "a@x" }, 20},
		{"this machine", func(i int) (string, string) { return "127.0.0.1", fmt.Sprint(i) }, 100},
		{"this machine, one account", func(i int) (string, string) { return "127.0.0.1", "a@x" }, 20},
	} {
		th, _ := newThrottle()
		if got := until(t, th, 100, test.attempt); got != test.want {
			t.Errorf("%s: %d attempts, want %d", test.what, got, test.want)
		}
	}
}

// TestGrowth: refusals double, and end.
func TestGrowth(t *testing.T) {
	th, c := newThrottle()
	until(t, th, 100, func(int) (string, string) { return "192.0.2.7", "a@x" })
	last := time.Duration(0)
	for i := range 12 {
		blocked := time.Duration(0)
		for ; !wrong(t, th, "192.0.2.7", "a@x", fmt.Sprint("q", i)); c.at = c.at.Add(10 * time.Second) {
			if blocked += 10 * time.Second; blocked > 5*time.Hour {
				t.Fatal("refused for ever")
			}
		}
		if i > 0 && i < 6 && blocked < last*3/2 {
			t.Errorf("refusal %d lasted %v, the one before %v", i, blocked, last)
		}
		last = blocked
	}
	c.at = c.at.Add(24 * time.Hour)
	if n := until(t, th, 100, func(int) (string, string) { return "192.0.2.7", "b@x" }); n < 9 {
		t.Errorf("a day later there are only %d attempts", n)
	}
}

// TestForgottenDevice: the same wrong password does not add up, for anybody.
func TestForgottenDevice(t *testing.T) {
	th, c := newThrottle()
	for i := range 1000 {
		if !wrong(t, th, "192.0.2.7", "a@x", "old one") {
			t.Fatalf("refused after %d", i)
		}
		c.at = c.at.Add(time.Second)
	}
	if !right(t, th, "192.0.2.7", "b@x") {
		t.Error("the office is locked out")
	}
	// Another account makes it another guess.
	if n := until(t, th, 100, func(i int) (string, string) { return "192.0.2.7", fmt.Sprint(i) }); n != 9 {
		t.Errorf("%d attempts after the phone's", n)
	}
}

// TestForgottenForDays: a device that comes every five minutes locks its user out neither
// where it is nor elsewhere, not even if its address changes each time.
func TestForgottenForDays(t *testing.T) {
	for what, address := range map[string]func(poll int) string{
		"at one address":        func(int) string { return "192.0.2.7" },
		"in one network":        func(poll int) string { return fmt.Sprintf("192.0.2.%d", poll%256) },
		"everywhere":            func(poll int) string { return fmt.Sprintf("198.%d.%d.1", poll/256, poll%256) },
		"everywhere, with IPv6": func(poll int) string { return fmt.Sprintf("2001:db8:%x::1", poll) },
	} {
		th, c := newThrottle()
		for poll := range 7 * 24 * 12 {
			for _, client := range []string{address(poll), "203.0.113.1"} {
				a, err := th.Begin(t.Context(), addr(client), "a@x")
				if err != nil {
					t.Fatalf("%s, poll %d: %v", what, poll, err)
				}
				if client == "203.0.113.1" {
					a.Harmless()
				} else {
					a.Wrong(digest("old one"))
				}
			}
			c.at = c.at.Add(5 * time.Minute)
		}
		if !right(t, th, "203.0.113.1", "a@x") || !right(t, th, address(0), "a@x") {
			t.Errorf("%s: its user is locked out", what)
		}
	}
}

// TestRight: a right password is good for the account, not for the network.
func TestRight(t *testing.T) {
	th, _ := newThrottle()
	for round := range 3 {
		for i := range 3 {
			if !wrong(t, th, "192.0.2.7", "a@x", fmt.Sprint(round, i)) {
				t.Fatal("refused too early")
			}
		}
		if !right(t, th, "192.0.2.7", "mine@x") {
			t.Fatal("the attacker's own account was refused too early")
		}
	}
	if !wrong(t, th, "192.0.2.7", "a@x", "tenth") || right(t, th, "192.0.2.7", "mine@x") {
		t.Error("a right password has reset the address")
	}

	th, _ = newThrottle()
	if !right(t, th, "203.0.113.1", "a@x") {
		t.Fatal("refused at once")
	}
	from := func(i int) (string, string) { return fmt.Sprintf("198.%d.2.1", i), "a@x" }
	if n := until(t, th, 100, from); n != 20 {
		t.Fatalf("%d attempts", n)
	}
	if right(t, th, "198.100.2.1", "a@x") {
		t.Error("a stranger is let in while the account is refused")
	}
	if !right(t, th, "203.0.113.1", "a@x") {
		t.Error("the user is locked out of a place known")
	}
	others := func(i int) (string, string) { return fmt.Sprintf("198.%d.2.1", i+100), "a@x" }
	if n := until(t, th, 100, others); n != 20 {
		t.Errorf("%d attempts after a right password, want 20", n)
	}
}

// TestParallel: attempts at once do not get past the limit, and all of them end.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := New(1000, nil)
		var let, together, most atomic.Int32
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				a, err := th.Begin(t.Context(), addr("192.0.2.7"), "a@x")
				if err != nil {
					return
				}
				for n := together.Add(1); n > most.Load(); {
					most.Store(n)
				}
				time.Sleep(time.Duration(50+i%7) * time.Millisecond) // they fade a little between
				let.Add(1)
				together.Add(-1)
				a.Wrong(digest(fmt.Sprint(i)))
			})
		}
		all.Wait()
		if n := let.Load(); n != 10 {
			t.Errorf("%d of 200 attempts at once were let in, want 10", n)
		}
		if n := most.Load(); n > 10 {
			t.Errorf("%d at once", n)
		}
	})
}

// TestParallelRight: an office in which everybody fetches at the same second.
func TestParallelRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := New(1000, nil)
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				a, err := th.Begin(t.Context(), addr("192.0.2.7"), fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(20 * time.Millisecond)
				a.Right()
			})
		}
		all.Wait()
		if len(th.entries) != 0 {
			t.Errorf("%d entries are left", len(th.entries))
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := New(1000, nil)
		var open []*Attempt
		for range 10 {
			a, err := th.Begin(t.Context(), addr("192.0.2.7"), "")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, a)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := th.Begin(ctx, addr("192.0.2.7"), ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, a := range open {
			a.Harmless()
		}
	})
}

// TestBound: memory is bounded, and those who failed most are kept.
func TestBound(t *testing.T) {
	th, _ := newThrottle()
	until(t, th, 100, func(int) (string, string) { return "192.0.2.7", "a@x" })
	for i := range 20000 {
		wrong(t, th, fmt.Sprintf("10.%d.%d.1", i/250, i%250), fmt.Sprint("account", i), "p")
		right(t, th, fmt.Sprintf("11.%d.%d.1", i/250, i%250), fmt.Sprint("account", i))
	}
	if len(th.entries) > 1000 || len(th.trusted) > 1000 {
		t.Errorf("%d entries, %d trusted", len(th.entries), len(th.trusted))
	}
	if wrong(t, th, "192.0.2.7", "b@x", "p") {
		t.Error("a flood has made a refusal forgotten")
	}
}

func TestState(t *testing.T) {
	th, c := newThrottle()
	until(t, th, 100, func(int) (string, string) { return "192.0.2.7", "a@x" })
	wrong(t, th, "192.0.2.8", "a@x", "phone")
	right(t, th, "203.0.113.1", "b@x")
	if !th.Changed() {
		t.Error("nothing to save")
	}
	var file bytes.Buffer
	if err := th.Save(&file); err != nil || th.Changed() {
		t.Fatal(err, "or still to be saved")
	}
	text := file.String()
	again, _ := newThrottle()
	if err := again.Load(&file); err != nil {
		t.Fatal(err)
	}
	if got, want := again.Bans(), th.Bans(); !slices.Equal(got, want) || len(got) != 4 {
		t.Errorf("got %v, want %v", got, want)
	}
	if wrong(t, again, "192.0.2.7", "c@x", "p") {
		t.Error("a restart has ended a refusal")
	}
	before := again.Bans()
	if wrong(t, again, "192.0.2.8", "a@x", "phone"); !slices.Equal(before, again.Bans()) {
		t.Error("a restart made the forgotten device count again")
	}
	if !again.knows("b@x", "203.0.113.1/32", c.at) {
		t.Error("a restart has made an address forgotten")
	}
	for _, damaged := range []string{"", "{", "[]", text[:len(text)/2]} {
		if err := again.Load(strings.NewReader(damaged)); err == nil {
			t.Errorf("%q was taken", damaged)
		}
	}
}

// TestClockBack: a state from the future refuses nobody for longer than it may.
func TestClockBack(t *testing.T) {
	th, c := newThrottle()
	until(t, th, 100, func(int) (string, string) { return "192.0.2.7", "a@x" })
	var file bytes.Buffer
	if err := th.Save(&file); err != nil {
		t.Fatal(err)
	}
	again, earlierClock := newThrottle()
	earlierClock.at = c.at.Add(-10 * 365 * 24 * time.Hour)
	if err := again.Load(&file); err != nil {
		t.Fatal(err)
	}
	earlierClock.at = earlierClock.at.Add(4*time.Hour + time.Second)
	if !wrong(t, again, "192.0.2.7", "a@x", "p") {
		t.Error("refused for years")
	}
}

func TestClear(t *testing.T) {
	th, _ := newThrottle()
	attempt := func(i int) (string, string) { return fmt.Sprintf("192.0.2.%d", i%5), "a@x" }
	until(t, th, 100, attempt)
	if n := th.ClearClient(addr("198.51.100.1")) + th.ClearName("198.51.100.1/32") + th.ClearName("b@x"); n != 0 {
		t.Errorf("%d cleared of nobody", n)
	}
	// With the address goes what its network is refused for.
	th.ClearName("a@x")
	if n := th.ClearClient(addr("192.0.2.1")); n != 2 || !wrong(t, th, "192.0.2.1", "b@x", "p") {
		t.Errorf("%d cleared, or still refused", n)
	}
	if n := th.ClearName("192.0.2.2/32"); n != 1 || !wrong(t, th, "192.0.2.2", "b@x", "p") {
		t.Errorf("%d cleared, or still refused", n)
	}
	if th.Clear(); len(th.Bans()) != 0 {
		t.Errorf("after all were cleared there is %v", th.Bans())
	}
}

// TestNeighbours: who has logged in from an address is not refused for what others of
// its network do, nor for guesses at the account when the address changes.
func TestNeighbours(t *testing.T) {
	th, _ := newThrottle()
	if !right(t, th, "192.0.2.200", "a@x") {
		t.Fatal("refused at first")
	}
	until(t, th, 100, func(i int) (string, string) { return fmt.Sprintf("192.0.2.%d", i), fmt.Sprint(i) })
	if wrong(t, th, "192.0.2.201", "b@x", "p") {
		t.Error("the network is not refused")
	}
	if !right(t, th, "192.0.2.200", "a@x") {
		t.Error("refused for the network")
	}
	until(t, th, 100, func(i int) (string, string) { return fmt.Sprintf("198.%d.2.1", i), "a@x" })
	if wrong(t, th, "203.0.113.1", "a@x", "p") {
		t.Error("the account is not refused")
	}
	th.ClearName("192.0.2.0/24")
	if !right(t, th, "192.0.2.99", "a@x") {
		t.Error("at another address of its network the user is refused for the account")
	}
}

// TestExempt: from where nobody is refused for the address, a login makes nobody free
// to guess.
func TestExempt(t *testing.T) {
	th, _ := newThrottle()
	right(t, th, "127.0.0.1", "a@x")
	if n := until(t, th, 1000, func(int) (string, string) { return "127.0.0.1", "a@x" }); n != 20 {
		t.Errorf("%d guesses at one account", n)
	}
}

// TestNothingLeft: who does everything right leaves nothing.
func TestNothingLeft(t *testing.T) {
	th, _ := newThrottle()
	for i := range 50 {
		a, err := th.Begin(t.Context(), addr(fmt.Sprintf("192.0.2.%d", i)), "a@x")
		if err != nil {
			t.Fatal(err)
		}
		a.Right()
		a.Harmless()
	}
	if len(th.entries) != 0 || th.ClearClient(addr("192.0.2.7")) != 0 {
		t.Errorf("%d entries are left", len(th.entries))
	}
}

// TestManyWait: no more than some wait for the end of others, and what is settled is
// settled once.
func TestManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, _ := newThrottle()
		var begun []*Attempt
		for range 10 {
			a, err := th.Begin(t.Context(), addr("192.0.2.7"), "")
			if err != nil {
				t.Fatal(err)
			}
			begun = append(begun, a)
		}
		var waiting sync.WaitGroup
		for range maxWaiting {
			waiting.Go(func() {
				a, err := th.Begin(t.Context(), addr("192.0.2.7"), "")
				if err != nil {
					t.Error(err)
					return
				}
				a.Harmless()
			})
		}
		synctest.Wait()
		if _, err := th.Begin(t.Context(), addr("192.0.2.7"), ""); !errors.Is(err, ErrRefused) {
			t.Errorf("one more than may wait: %v", err)
		}
		for _, a := range begun {
			a.Right()
			a.Harmless()
		}
		waiting.Wait()
		if len(th.entries) != 0 {
			t.Errorf("%d entries are left", len(th.entries))
		}
	})
}

// TestOutdated: an office whose passwords were all changed is not locked out by its
// devices; who has never logged in from there guesses.
func TestOutdated(t *testing.T) {
	for _, office := range []string{"192.0.2.7", "127.0.0.1"} {
		th, c := newThrottle()
		outdated := func(i int, client string) float64 {
			name := fmt.Sprintf("user%d@example.org", i)
			a, err := th.Begin(t.Context(), addr(client), name)
			if err != nil {
				t.Fatalf("%s at %s: %v", name, c.at, err)
			}
			return a.Outdated(digest(fmt.Sprint("p", i)))
		}
		for i := range 20 {
			right(t, th, office, fmt.Sprintf("user%d@example.org", i))
		}
		want := 1.0
		if addr(office).IsLoopback() {
			want = 0 // exempt
		}
		for range 24 * 12 {
			for i := range 20 {
				if failures := outdated(i, office); failures != want {
					t.Fatalf("%s: %v failures, want %v", office, failures, want)
				}
			}
			c.at = c.at.Add(5 * time.Minute)
		}
		if !right(t, th, office, "new@example.org") {
			t.Errorf("%s: a colleague is refused", office)
		}
		if n := len(th.entries); n > 0 {
			t.Errorf("%s: %d entries are left", office, n)
		}
		for i := range 10 {
			if failures := outdated(i, "198.51.100.1"); math.Round(failures) != float64(i+1) {
				t.Errorf("a stranger: %v failures, want %d", failures, i+1)
			}
		}
		if right(t, th, "198.51.100.1", "new@example.org") {
			t.Error("the stranger is let in")
		}
	}
}
