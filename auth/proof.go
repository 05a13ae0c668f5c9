package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

const (
	proofLife = 30 * time.Minute // since the last login
	maxProofs = 16384
)

// proofs remembers for each account the password that was last seen right, as
// an HMAC that means nothing without the key of this process.
type proofs struct {
	key []byte

	mu      sync.Mutex
	entries map[Address]proof
}

type proof struct {
	state
	version version // of the directory, taken before the state was read
	mac     [sha256.Size]byte
	seen    time.Time // the last login
}

// make computes the proof of an account's state and a password.
func (p *proofs) make(s state, password string) proof {
	made := proof{state: s}
	h := hmac.New(sha256.New, p.key)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(s.id))
	binary.BigEndian.PutUint64(b[8:], uint64(s.stamp))
	h.Write(b[:])
	h.Write([]byte(s.stored))
	h.Write([]byte{0}) // in no stored credential
	h.Write([]byte(password))
	h.Sum(made.mac[:0])
	return made
}

// current makes the proof of a login from the state that the last one found,
// and renews it, if nothing in the directory has changed since. The HMAC is
// computed also when there is nothing to compare it with.
func (p *proofs) current(a Address, present version, password string, now time.Time) (proof, bool) {
	p.mu.Lock()
	last := p.entries[a]
	p.mu.Unlock()
	made := p.make(last.state, password)
	made.version, made.seen = present, now
	if !present.known() || last.version != present {
		return proof{}, false
	}
	return made, p.renew(a, made)
}

// renew reports whether the same was proven before, not too long ago, and notes
// that it is again.
func (p *proofs) renew(a Address, again proof) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.entries[a]
	if !ok {
		return false
	}
	if again.seen.Sub(last.seen) > proofLife {
		delete(p.entries, a)
		return false
	}
	if !hmac.Equal(last.mac[:], again.mac[:]) {
		return false
	}
	p.entries[a] = again
	return true
}

// add remembers a proof. When there is no room, any other makes way: its
// owner's next login is merely slower.
func (p *proofs) add(a Address, proven proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.entries[a]; !ok && len(p.entries) >= maxProofs {
		for other := range p.entries {
			delete(p.entries, other)
			break
		}
	}
	p.entries[a] = proven
}

// failed remembers what was found of passwords with which a login failed, as proofs do
// the right ones: a forgotten device that comes every minute costs no hash each time, and
// does nobody else who repeats a guess. Also the right password of somebody who may not
// log in with it is among them: that it is hashed again would tell that it is right.
type failed struct {
	mu      sync.Mutex
	entries map[presented]outcome
}

// presented is a password for a name. What names borrow from one account must not show in
// the time that the second of them takes.
type presented struct {
	name Address
	mac  [sha256.Size]byte // as of a proof
}

// outcome is whether a password is the one of the account, or the one before the last
// change.
type outcome struct{ match, before bool }

// recall gives what was found of the password, if a login with it has failed.
func (f *failed) recall(what presented) (o outcome, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, known = f.entries[what]
	return o, known
}

// remember notes a failed login. When there is no room, any other makes way.
func (f *failed) remember(what presented, o outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.entries) >= maxProofs {
		for other := range f.entries {
			delete(f.entries, other)
			break
		}
	}
	f.entries[what] = o
}
