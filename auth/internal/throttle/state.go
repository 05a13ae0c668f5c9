package throttle

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// least is how many failures are worth keeping.
const least = 0.1

// Ban is somebody who is refused, or has failed.
type Ban struct {
	Kind     string    // "address", "network", "account", or "exempt": an address that is never refused
	Name     string    // a prefix such as 192.0.2.7/32, or the name of the account
	Failures float64   // as they have faded
	Until    time.Time // refused until then; past: not any more
}

// kinds are the names of the kinds.
var kinds = []string{"address", "network", "account", "exempt"}

func (k kind) String() string { return kinds[k] }

// Bans lists who has failed lately, those that are refused longest first.
func (t *Throttle) Bans() []Ban {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var all []Ban
	for k, e := range t.entries {
		if f := e.faded(now); f >= least || now.Before(e.until) {
			all = append(all, Ban{k.kind.String(), k.name, f, e.until})
		}
	}
	slices.SortFunc(all, func(a, b Ban) int {
		if c := b.Until.Compare(a.Until); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

// Clear forgets the failures of everybody, and gives how many entries that were.
func (t *Throttle) Clear() int { return t.forget(func(key) bool { return true }) }

// ClearClient forgets those of an address and of its network.
func (t *Throttle) ClearClient(client netip.Addr) int {
	narrow, wide := prefixes(client)
	return t.forget(func(k key) bool { return k.kind != account && (k.name == narrow || k.name == wide) })
}

// ClearName forgets those of an account, or of a prefix as Bans names it.
func (t *Throttle) ClearName(name string) int {
	return t.forget(func(k key) bool { return k.name == name })
}

func (t *Throttle) forget(chosen func(key) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	cleared := 0
	for k, e := range t.entries {
		if !chosen(k) {
			continue
		}
		e.failures, e.refusals, e.until, e.wrong = 0, 0, time.Time{}, nil
		cleared++
		if e.pending+e.waiting == 0 {
			delete(t.entries, k)
		}
	}
	t.dirty = t.dirty || cleared > 0
	close(t.changed)
	t.changed = make(chan struct{})
	return cleared
}

// saved is the state in a file.
type saved struct {
	Entries []savedEntry `json:"entries"`
	Trusted []savedTrust `json:"trusted"`
}

type savedEntry struct {
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	Failures float64   `json:"failures"`
	Last     time.Time `json:"last"`
	Until    time.Time `json:"until,omitzero"`
	Refusals int       `json:"refusals,omitempty"`
	Wrong    []string  `json:"wrong,omitempty"`
}

type savedTrust struct {
	Account string    `json:"account"`
	Address string    `json:"address"`
	At      time.Time `json:"at"`
}

// Changed tells whether there is something to save since the last Save or Load.
func (t *Throttle) Changed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirty
}

// Save writes what is known, for Load. Logins wait only while it is copied.
func (t *Throttle) Save(w io.Writer) error {
	entries, trusted := t.copy()
	s := saved{Entries: make([]savedEntry, 0, len(entries)), Trusted: make([]savedTrust, 0, len(trusted))}
	for k, e := range entries {
		kept := savedEntry{Kind: k.kind.String(), Name: k.name, Failures: e.failures, Last: e.last, Until: e.until, Refusals: e.refusals}
		for _, d := range e.wrong {
			kept.Wrong = append(kept.Wrong, hex.EncodeToString(d[:]))
		}
		s.Entries = append(s.Entries, kept)
	}
	for who, at := range trusted {
		s.Trusted = append(s.Trusted, savedTrust{who.account, who.prefix, at})
	}
	err := json.NewEncoder(w).Encode(s)
	if err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
	}
	return err
}

// copy is what is worth keeping.
func (t *Throttle) copy() (map[key]entry, map[trust]time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	entries, trusted := make(map[key]entry), make(map[trust]time.Time)
	for k, e := range t.entries {
		if e.faded(now) < least {
			continue
		}
		kept := *e
		kept.wrong = slices.Clone(e.wrong)
		entries[k] = kept
	}
	for who, at := range t.trusted {
		if now.Sub(at) < trustLife {
			trusted[who] = at
		}
	}
	t.dirty = false
	return entries, trusted
}

var errState = errors.New("throttle: the saved state is damaged")

// Load takes what Save has written. A state that is damaged changes nothing.
func (t *Throttle) Load(r io.Reader) error {
	var s saved
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return fmt.Errorf("%w: %v", errState, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	latest := t.now()
	for _, v := range s.Entries {
		k := key{kind(slices.Index(kinds, v.Kind)), v.Name}
		if k.kind < 0 || v.Failures < 0 || len(t.entries) >= t.max {
			continue
		}
		// A clock that was wrong must not refuse anybody for years.
		e := &entry{failures: min(v.Failures, 1000), refusals: max(v.Refusals, 0), last: earlier(v.Last, latest),
			until: earlier(v.Until, latest.Add(rules[k.kind].longest))}
		for _, text := range v.Wrong {
			var d Digest
			if n, err := hex.Decode(d[:], []byte(text[:min(len(text), 2*len(d))])); err == nil && n == len(d) && len(e.wrong) < remembered {
				e.wrong = append(e.wrong, d)
			}
		}
		t.entries[k] = e
	}
	for _, v := range s.Trusted {
		if len(t.trusted) < t.max {
			t.trusted[trust{v.Account, v.Address}] = earlier(v.At, latest)
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
