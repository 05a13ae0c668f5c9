// Package throttle slows down who guesses passwords.
//
// Failures are counted by the address of the client, by its network, and by the
// account that was asked for, whether or not there is one. Who has too many is
// refused, before any password is hashed, for a minute, then two, four and so
// on. Failures fade: in an hour, half of them are forgotten.
//
// Five rules keep those from harm who do not guess:
//
//   - The same wrong password for the same account from the same address counts
//     once. A forgotten device locks nobody out.
//   - The password before the last change is no failure at an address from which that
//     account has been logged in to. Nor do all the devices of an office lock it out.
//   - Account and network do not count for an account at an address that has logged
//     in to it before: guesses from elsewhere, or by neighbours, do not lock its user
//     out. Nor does the account for an address whose network has logged in to it:
//     phones change theirs all the time.
//   - A right password makes the account's failures void, and never those of the
//     network: its owner has one account to be right about, too.
//   - Some networks, such as this machine itself, may be exempt. There the account
//     counts for everybody.
//
// Attempts that run at once count as if they had failed already: as many are let
// through together as there are failures left, and the others wait, a bounded number
// of them.
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

// ErrRefused is the refusal of an attempt. One that is only about the account, not
// about the client, is an ErrAccountRefused too.
var (
	ErrRefused        = errors.New("too many failed logins")
	ErrAccountRefused = errors.New("for this account")
)

// Digest stands for an account and a password. It must need a secret to make.
type Digest [8]byte

const (
	halfLife   = time.Hour
	firstBlock = time.Minute
	forgiven   = 24 * time.Hour // without a failure, then refusals begin with the first again
	remembered = 16             // wrong passwords of an address
	maxWaiting = 300            // attempts for the end of others, for each key
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
	waiting  int       // attempts that wait for the end of those
}

// faded is how many failures are left of the entry's.
func (e *entry) faded(now time.Time) float64 {
	if age := now.Sub(e.last); age > 0 {
		return e.failures * math.Exp2(-float64(age)/float64(halfLife))
	}
	return e.failures
}

// trust is an account that somebody has logged in to from an address, or a network.
type trust struct{ account, prefix string }

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

// Attempt is a login that has begun. It is settled by the first of Right, Wrong,
// Outdated and Harmless that is called, of which one must be.
type Attempt struct {
	throttle *Throttle
	account  string
	address  key // of the client
	network  key // likewise; without a name there is none
	keys     []key
	settled  bool
}

// Begin admits an attempt to log in to the account, by its canonical name, or
// refuses it with an ErrRefused. It waits, until ctx ends, while so many others
// run that the next failure could be one too many.
func (t *Throttle) Begin(ctx context.Context, client netip.Addr, name string) (*Attempt, error) {
	narrow, wide := prefixes(client)
	a := &Attempt{throttle: t, account: name, address: key{exempted, narrow}, network: key{network, wide}}
	if client.IsValid() && !t.exempt(client) {
		a.address.kind = address
	}
	var waited *entry
	for {
		wait, behind, err := t.admit(a, waited)
		if wait == nil {
			return a, err
		}
		waited = behind
		select {
		case <-wait:
		case <-ctx.Done():
			t.mu.Lock()
			defer t.mu.Unlock()
			waited.waiting--
			return nil, ctx.Err()
		}
	}
}

// admit counts the attempt in, or gives what to wait for, and behind whom, or
// refuses. waited is behind whom it has waited.
func (t *Throttle) admit(a *Attempt, waited *entry) (wait <-chan struct{}, behind *entry, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if waited != nil {
		waited.waiting--
	}
	now := t.now()
	keys := t.keys(a, now)
	for _, k := range keys {
		e := t.entries[k]
		if e == nil {
			continue
		}
		if now.Before(e.until) {
			return nil, nil, refusal(k, "is refused until "+e.until.UTC().Format(time.RFC3339))
		}
		if e.pending > 0 && math.Ceil(e.faded(now))+float64(e.pending) >= rules[k.kind].limit {
			if e.waiting >= maxWaiting {
				return nil, nil, refusal(k, "has too many logins at once")
			}
			e.waiting++
			return t.changed, e, nil
		}
	}
	a.keys = keys
	for _, k := range keys {
		t.entry(k, now).pending++
	}
	return nil, nil, nil
}

func refusal(k key, why string) error {
	if k.kind == account {
		return fmt.Errorf("%w %w: %s %s", ErrRefused, ErrAccountRefused, k.name, why)
	}
	return fmt.Errorf("%w: %s %s", ErrRefused, k.name, why)
}

// keys are those that an attempt counts for: first those that tell most of the client.
func (t *Throttle) keys(a *Attempt, now time.Time) []key {
	keys := append(make([]key, 0, 3), a.address)
	known := a.address.kind == address && t.knows(a.account, a.address.name, now)
	if a.address.kind == address && !known {
		keys = append(keys, a.network)
	}
	if a.account != "" && !known && (a.address.kind == exempted || !t.knows(a.account, a.network.name, now)) {
		keys = append(keys, key{account, a.account})
	}
	return keys
}

// knows tells whether the account was logged in to from there.
func (t *Throttle) knows(name, prefix string, now time.Time) bool {
	at, ok := t.trusted[trust{name, prefix}]
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
		if e.pending+e.waiting > 0 {
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
	now := t.now()
	t.trust(trust{a.account, a.address.name}, now)
	if a.address.kind == address {
		t.trust(trust{a.account, a.network.name}, now)
	}
}

// trust notes a login. Once a day is enough.
func (t *Throttle) trust(who trust, now time.Time) {
	last, known := t.trusted[who]
	if known && now.Sub(last) < trustLife/90 {
		return
	}
	if !known && len(t.trusted) >= t.max {
		for other := range t.trusted {
			delete(t.trusted, other)
			break
		}
	}
	t.trusted[who], t.dirty = now, true
}

// Harmless says that the attempt came to no end.
func (a *Attempt) Harmless() {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(a)
}

// Wrong says that the password, which the digest stands for, was wrong. It gives
// how many failures the client's address has, this one counted; 0 if it is exempt.
func (a *Attempt) Wrong(d Digest) float64 {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	return a.fail(d, t.now())
}

// Outdated says that the password, which the digest stands for, was the one before the
// last change. Where the account has been logged in to before that is a device somebody
// forgot, and nothing is counted; it gives what Wrong would. Anywhere else it is Wrong.
func (a *Attempt) Outdated(d Digest) float64 {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if !t.knows(a.account, a.address.name, now) {
		return a.fail(d, now)
	}
	defer t.settle(a)
	if a.address.kind == exempted {
		return 0
	}
	return t.entry(a.address, now).faded(now) + 1
}

// fail counts a failure for all keys, unless it is an old one, and settles the attempt.
func (a *Attempt) fail(d Digest, now time.Time) float64 {
	t := a.throttle
	defer t.settle(a)
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

// settle counts the attempt out, once. An entry that nothing is known of goes.
func (t *Throttle) settle(a *Attempt) {
	if a.settled {
		return
	}
	a.settled = true
	for _, k := range a.keys {
		e := t.entries[k]
		if e == nil {
			continue // it was cleared since
		}
		e.pending = max(e.pending-1, 0)
		if e.pending+e.waiting == 0 && e.failures == 0 {
			delete(t.entries, k)
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}
