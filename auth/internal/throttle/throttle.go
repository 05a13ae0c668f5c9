// Package throttle slows down who guesses passwords.
//
// Failures are counted by the address of the client, by its network, and by the
// account that was asked for, whether or not there is one. Who has too many is
// refused, before any password is hashed, for a minute, then two, four and so
// on. Failures fade: in an hour, half of them are forgotten.
//
// Four rules keep those from harm who do not guess:
//
//   - The same wrong password for the same account from the same address counts
//     once. A forgotten device locks nobody out.
//   - The account counts only for addresses that have not logged in to it before:
//     guesses from elsewhere do not lock its user out.
//   - A right password makes the account's failures void, and never those of the
//     network: its owner has one account to be right about, too.
//   - Some networks, such as this machine itself, may be exempt.
//
// Attempts that run at once count as if they had failed already: as many are let
// through together as there are failures left, and the others wait.
package throttle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"
)

// ErrRefused is the refusal of an attempt.
var ErrRefused = errors.New("too many failed logins")

// Digest stands for an account and a password. It must need a secret to make.
type Digest [8]byte

const (
	halfLife   = time.Hour
	firstBlock = time.Minute
	forgiven   = 24 * time.Hour // without a failure, then refusals begin with the first again
	remembered = 16             // wrong passwords of an address
	// trustLife is for how long an account knows an address.
	trustLife = 90 * 24 * time.Hour
)

// rule is what a kind of key may do.
type rule struct {
	limit   float64       // failures until the first refusal
	longest time.Duration // of the refusals
}

// kind of a key.
type kind int

const (
	address kind = iota // an IPv4 address, or an IPv6 /64
	network             // an IPv4 /24, or an IPv6 /48
	account
	exempted // an address that is never refused; only its wrong passwords are kept
)

// The limit of an account is low, as it is only for strangers, and its refusals
// short, as they could be anybody's.
var rules = map[kind]rule{
	address: {10, 4 * time.Hour},
	network: {40, 4 * time.Hour},
	account: {20, 15 * time.Minute},

	exempted: {math.Inf(1), 0},
}

// key is who failures are counted for.
type key struct {
	kind kind
	name string // a prefix, or the name of an account
}

// entry is what is known of a key.
type entry struct {
	failures float64 // at the time of last
	last     time.Time
	until    time.Time // refused until then
	refusals int       // so far, each twice as long as the one before
	wrong    []Digest  // of an address, the newest last
	pending  int       // attempts that have begun
}

// faded is how many failures are left of the entry's.
func (e *entry) faded(now time.Time) float64 {
	if age := now.Sub(e.last); age > 0 {
		return e.failures * math.Exp2(-float64(age)/float64(halfLife))
	}
	return e.failures
}

// trust is an account that somebody has logged in to from an address.
type trust struct{ account, address string }

// Throttle counts failures. It is safe for concurrent use.
type Throttle struct {
	now    func() time.Time
	exempt func(netip.Addr) bool
	max    int // entries

	mu      sync.Mutex
	entries map[key]*entry
	trusted map[trust]time.Time
	changed chan struct{} // closed when an attempt has ended
	dirty   bool
}

// New returns a Throttle that knows nobody. Clients for which exempt says so
// (nil: none) are not counted by address and network. It remembers max accounts,
// addresses and networks, about 300 octets each.
func New(max int, exempt func(netip.Addr) bool) *Throttle {
	if exempt == nil {
		exempt = func(netip.Addr) bool { return false }
	}
	return &Throttle{now: time.Now, exempt: exempt, max: max,
		entries: make(map[key]*entry), trusted: make(map[trust]time.Time), changed: make(chan struct{})}
}

// prefixes of a client: the address it counts as, and its network.
func prefixes(client netip.Addr) (narrow, wide string) {
	if !client.IsValid() {
		return "unknown", ""
	}
	client = client.Unmap().WithZone("")
	bits, wider := 32, 24
	if client.Is6() {
		bits, wider = 64, 48
	}
	return netip.PrefixFrom(client, bits).Masked().String(), netip.PrefixFrom(client, wider).Masked().String()
}

// Attempt is a login that has begun. End must be called once.
type Attempt struct {
	throttle *Throttle
	account  string
	address  key // of the client
	keys     []key
}

// Begin admits an attempt to log in to the account, by its canonical name, or
// refuses it with an ErrRefused. It waits, until ctx ends, while so many others
// run that the next failure could be one too many.
func (t *Throttle) Begin(ctx context.Context, client netip.Addr, name string) (*Attempt, error) {
	a := &Attempt{throttle: t, account: name}
	narrow, wide := prefixes(client)
	if a.address = (key{exempted, narrow}); client.IsValid() && !t.exempt(client) {
		a.address.kind = address
		a.keys = append(a.keys, key{network, wide})
	}
	a.keys = append(a.keys, a.address)
	for {
		wait, err := t.admit(a)
		if wait == nil {
			return a, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// admit counts the attempt in, or gives what to wait for, or refuses.
func (t *Throttle) admit(a *Attempt) (wait <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	keys := a.keys
	if a.account != "" && !t.knows(a, now) {
		keys = append(keys[:len(keys):len(keys)], key{account, a.account})
	}
	for _, k := range keys {
		e := t.entries[k]
		if e == nil {
			continue
		}
		if now.Before(e.until) {
			return nil, fmt.Errorf("%w: %s is refused until %s", ErrRefused, k.name, e.until.UTC().Format(time.RFC3339))
		}
		if e.pending > 0 && math.Ceil(e.faded(now))+float64(e.pending) >= rules[k.kind].limit {
			return t.changed, nil
		}
	}
	a.keys = keys
	for _, k := range keys {
		t.entry(k, now).pending++
	}
	return nil, nil
}

// knows tells whether the account was logged in to from the address.
func (t *Throttle) knows(a *Attempt, now time.Time) bool {
	at, ok := t.trusted[trust{a.account, a.address.name}]
	return ok && now.Sub(at) < trustLife
}

// entry finds the entry of a key, or makes it.
func (t *Throttle) entry(k key, now time.Time) *entry {
	e := t.entries[k]
	if e == nil {
		if len(t.entries) >= t.max {
			t.evict(now)
		}
		e = &entry{last: now}
		t.entries[k] = e
	}
	return e
}

// evict makes room: of some entries, the one with the fewest failures goes.
func (t *Throttle) evict(now time.Time) {
	var victim key
	least, seen := math.Inf(1), 0
	for k, e := range t.entries {
		if e.pending > 0 {
			continue
		}
		if f := e.faded(now); f < least {
			victim, least = k, f
		}
		if seen++; seen >= 16 {
			break
		}
	}
	delete(t.entries, victim)
}

// Right says that the password was right.
func (a *Attempt) Right() {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[key{account, a.account}]; e != nil {
		e.failures, e.refusals, e.until = 0, 0, time.Time{}
	}
	t.settle(a)
	if a.account == "" {
		return
	}
	where, now := trust{a.account, a.address.name}, t.now()
	last, known := t.trusted[where]
	if known && now.Sub(last) < trustLife/90 {
		return // once a day is enough
	}
	if !known && len(t.trusted) >= t.max {
		for other := range t.trusted {
			delete(t.trusted, other)
			break
		}
	}
	t.trusted[where], t.dirty = now, true
}

// Harmless says that the attempt came to no end, or was wrong in a way that is no
// guess. It gives what Wrong would have given, so that nobody can tell which it was.
func (a *Attempt) Harmless() float64 {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.settle(a)
	if a.address.kind == exempted {
		return 0
	}
	now := t.now()
	return t.entry(a.address, now).faded(now) + 1
}

// Wrong says that the password, which the digest stands for, was wrong. It gives
// how many failures the client's address has, this one counted; 0 if it is exempt.
func (a *Attempt) Wrong(d Digest) float64 {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.settle(a)
	now := t.now()
	own := t.entry(a.address, now)
	if !own.remembers(d) {
		t.dirty = true
		for _, k := range a.keys {
			t.entry(k, now).fail(rules[k.kind], now)
		}
		own.wrong = append(own.wrong, d)
		own.wrong = own.wrong[max(0, len(own.wrong)-remembered):]
	}
	if a.address.kind == exempted {
		return 0
	}
	return own.faded(now)
}

// remembers tells whether the same was wrong before.
func (e *entry) remembers(d Digest) bool {
	for _, w := range e.wrong {
		if w == d {
			return true
		}
	}
	return false
}

// fail counts a failure.
func (e *entry) fail(r rule, now time.Time) {
	if now.Sub(e.last) > forgiven {
		e.refusals = 0
	}
	e.failures = e.faded(now) + 1
	e.last = now
	if math.Ceil(e.failures) >= r.limit {
		e.until = now.Add(min(firstBlock<<min(e.refusals, 20), r.longest))
		e.refusals++
	}
}

// settle counts the attempt out. An entry that nothing is known of goes.
func (t *Throttle) settle(a *Attempt) {
	for _, k := range a.keys {
		e := t.entries[k]
		if e == nil {
			continue // it was cleared since
		}
		e.pending = max(e.pending-1, 0)
		if e.pending == 0 && e.failures == 0 {
			delete(t.entries, k)
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}
