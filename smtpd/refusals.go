package smtpd

import (
	"math"
	"net/netip"
	"sync"
	"time"
)

const (
	// refusalsFade is when half of the refusals of a client are forgotten.
	refusalsFade = 10 * time.Minute
	// maxTallies is how many addresses and networks are remembered, about 150 octets each.
	maxTallies = 20_000
	// networkShare is how many refusals of a network weigh as much as one of an address.
	networkShare = 8
	// farOver is how many times MaxRefused an address may have, then it is turned away
	// before it has said anything.
	farOver = 4
)

// refusals counts the recipients that clients were refused, over all connections of
// an address (an IPv4 address, or an IPv6 /64) and of its network (/24, /48): who tries
// names and connects anew for the next ones gains nothing. It is safe for concurrent use.
type refusals struct {
	now func() time.Time
	max int

	mu    sync.Mutex
	tally map[netip.Prefix]tally
}

// tally is a number of refusals at a time. They fade.
type tally struct {
	count float64
	at    time.Time
}

func newRefusals() *refusals {
	return &refusals{now: time.Now, max: maxTallies, tally: make(map[netip.Prefix]tally)}
}

// of is how much a client has against it.
func (r *refusals) of(client netip.Addr) float64 {
	address, network := prefixes(client)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	return max(r.tally[address].faded(now), r.tally[network].faded(now)/networkShare)
}

// add counts a refusal, and gives how much the client has against it now.
func (r *refusals) add(client netip.Addr) float64 {
	address, network := prefixes(client)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	return max(r.count(address, now), r.count(network, now)/networkShare)
}

func (r *refusals) count(p netip.Prefix, now time.Time) float64 {
	old, known := r.tally[p]
	if !known && len(r.tally) >= r.max {
		r.evict(now)
	}
	t := tally{old.faded(now) + 1, now}
	r.tally[p] = t
	return t.count
}

// evict makes room: of some, the one with the fewest refusals goes.
func (r *refusals) evict(now time.Time) {
	var victim netip.Prefix
	least, seen := math.Inf(1), 0
	for p, t := range r.tally {
		if n := t.faded(now); n < least {
			victim, least = p, n
		}
		if seen++; seen >= 16 {
			break
		}
	}
	delete(r.tally, victim)
}

// faded is how many refusals are left.
func (t tally) faded(now time.Time) float64 {
	age := now.Sub(t.at)
	if t.count == 0 || age <= 0 {
		return t.count
	}
	return t.count * math.Exp2(-float64(age)/float64(refusalsFade))
}

// prefixes are as whom a client counts.
func prefixes(client netip.Addr) (address, network netip.Prefix) {
	bits, wider := 32, 24
	if client.Is6() {
		bits, wider = 64, 48
	}
	return netip.PrefixFrom(client, bits).Masked(), netip.PrefixFrom(client, wider).Masked()
}

// recall takes over what the client has against it from earlier connections, and tells
// whether that is far too much.
func (w *wire) recall() bool {
	exempt := w.config.Exempt
	w.counted = w.remote.IsValid() && !w.remote.IsLoopback() && (exempt == nil || !exempt(w.remote))
	if w.counted {
		w.against = w.server.refusals.of(w.remote)
	}
	return w.farOver()
}

// farOver tells whether the client is not to be heard for some minutes.
func (w *wire) farOver() bool { return w.against > float64(farOver*w.config.MaxRefused) }

// count counts a refusal by its code, and gives the reply to one too many. A name was tried
// only where the reply is about whether there is the recipient (550): one that is malformed
// (501, 553) is an error like others. What a client has sent together with a MAIL that was
// refused is none (RFC 2920): it could not know. The number of commands bounds that.
func (w *wire) count(code int) (last reply) {
	if w.stray && code == 503 {
		return last
	}
	w.stray = w.stray || w.verb == "MAIL"
	if w.verb == "RCPT" && code == 550 {
		if w.counted {
			w.against = w.server.refusals.add(w.remote)
		}
		if w.refused++; w.refused > w.config.MaxRefused || w.farOver() {
			return replyTooManyRefused
		}
	} else if w.errors++; w.errors > w.config.MaxErrors {
		return replyTooManyErrors
	}
	return last
}
