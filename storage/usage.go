package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrOverQuota: the mailbox has no room for the message.
var ErrOverQuota = errors.New("mailbox is over its quota")

// countShare is the part of the time that may go into counting one mailbox: a
// large one that changes all the time is not counted anew for every message.
const countShare = 10

// usages are the mailboxes that somebody has asked about. The zero value is empty.
type usages struct {
	mu sync.RWMutex
	of map[address]*usage
}

// usage is what a mailbox takes on disk, in octets.
type usage struct {
	added    atomic.Int64 // by deliveries since the count, some of them perhaps counted
	reserved atomic.Int64 // for messages that are under way

	mu      sync.Mutex // of what follows
	counted int64
	version version   // of the mailbox that was counted
	next    time.Time // when it may be counted again
}

func (u *usages) get(a address) *usage {
	u.mu.RLock()
	found := u.of[a]
	u.mu.RUnlock()
	if found != nil {
		return found
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = make(map[address]*usage)
	}
	if u.of[a] == nil {
		u.of[a] = new(usage)
	}
	return u.of[a]
}

// add tells of a delivery.
func (u *usages) add(to []address, size int64) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	for _, a := range to {
		if found := u.of[a]; found != nil {
			found.added.Add(size)
		}
	}
}

// Usage is what the messages of a mailbox take on disk, in octets; a message that
// is in several mailboxes counts in each. One that does not exist takes nothing.
// What this store delivers shows at once, what others do to a large mailbox only
// after ten times as long as counting it takes.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	a, err := parseAddress(name)
	if err != nil {
		return 0, err
	}
	return s.usage(ctx, a, s.usages.get(a))
}

// Reserve makes sure that a message of size octets (0: not known) fits into a
// mailbox of quota octets, beside what is in it and what else is reserved, and
// keeps room for it until release is called, once. ErrOverQuota when it does not.
func (s *Store) Reserve(ctx context.Context, name string, size, quota int64) (release func(), err error) {
	a, err := parseAddress(name)
	if err != nil {
		return nil, err
	}
	u := s.usages.get(a)
	used, err := s.usage(ctx, a, u)
	if err != nil {
		return nil, fmt.Errorf("counting mailbox %s: %w", a, err)
	}
	all := u.reserved.Add(size)
	if used >= quota || used+all > quota {
		u.reserved.Add(-size)
		return nil, fmt.Errorf("%s: %w: %d of %d octets, %d more are under way", a, ErrOverQuota, used, quota, all)
	}
	return func() { u.reserved.Add(-size) }, nil
}

func (s *Store) usage(ctx context.Context, a address, u *usage) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Now().Before(u.next) {
		return u.counted + u.added.Load(), nil
	}
	m, err := s.openMailbox(a)
	if errors.Is(err, ErrNoMailbox) {
		u.counted, u.version = 0, version{}
		u.added.Store(0)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer m.close()
	// What was added may have been in the mailbox when it was counted.
	if m.listed = u.version; u.added.Load() == 0 && m.unchanged() {
		return u.counted, nil
	}
	if err := u.count(ctx, m); err != nil {
		return 0, err
	}
	return u.counted + u.added.Load(), nil
}

// count adds up the messages. A delivery that is seen here, but was not added yet,
// counts twice until the next count.
func (u *usage) count(ctx context.Context, m *mailbox) error {
	began, added := time.Now(), u.added.Load()
	entries, err := m.weighed(ctx, make(map[string]time.Time))
	if err != nil {
		return err
	}
	u.counted = 0
	for i := range entries {
		u.counted += entries[i].size
	}
	u.added.Add(-added)
	u.version = m.listed
	u.next = time.Now().Add(countShare * time.Since(began))
	return nil
}
