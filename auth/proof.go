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
	entries map[int64]proof
}

type proof struct {
	mac  [sha256.Size]byte
	seen time.Time
}

// make computes the proof of an account's state and a password.
func (p *proofs) make(row loginRow, password string) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.key)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(row.id))
	binary.BigEndian.PutUint64(b[8:], uint64(row.stamp))
	h.Write(b[:])
	h.Write([]byte(row.stored))
	h.Write([]byte{0}) // in no stored credential
	h.Write([]byte(password))
	h.Sum(mac[:0])
	return mac
}

// known reports whether mac was added before, and renews it.
func (p *proofs) known(id int64, mac [sha256.Size]byte, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.entries[id]
	if !ok {
		return false
	}
	if now.Sub(e.seen) > proofLife {
		delete(p.entries, id)
		return false
	}
	if !hmac.Equal(e.mac[:], mac[:]) {
		return false
	}
	e.seen = now
	p.entries[id] = e
	return true
}

// add remembers mac. When there is no room, any other makes way: its owner's
// next login is merely slower.
func (p *proofs) add(id int64, mac [sha256.Size]byte, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.entries[id]; !ok && len(p.entries) >= maxProofs {
		for other := range p.entries {
			delete(p.entries, other)
			break
		}
	}
	p.entries[id] = proof{mac: mac, seen: now}
}
