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
	added  atomic.Int64 // by deliveries since the count, some of them perhaps counted
	coming atomic.Int64 // by deliveries under way; it grows under mu only

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
	a, u, err := s.lockUsage(name)
	if err != nil {
		return 0, err
	}
	defer u.mu.Unlock()
	used, _, err := s.counted(ctx, a, u)
	return used, err
}

// Fits tells whether a message of size octets (0: not known) fits into a mailbox of
// quota octets, beside what is in it and what is on its way there: nil, or
// ErrOverQuota. It keeps no room.
func (s *Store) Fits(ctx context.Context, name string, size, quota int64) error {
	a, u, err := s.lockUsage(name)
	if err != nil {
		return err
	}
	defer u.mu.Unlock()
	used, coming, err := s.counted(ctx, a, u)
	if err != nil {
		return err
	}
	if used += coming; used >= quota || used+size > quota {
		return fmt.Errorf("%s: %w: %d of %d octets", a, ErrOverQuota, used, quota)
	}
	return nil
}

// Claim has a message of size octets, all of which have come, count as on its way to a
// mailbox of quota octets until release is called, once. It may go over the quota, but
// only as the last one: ErrOverQuota when there is no room at all.
func (s *Store) Claim(ctx context.Context, name string, size, quota int64) (release func(), err error) {
	a, u, err := s.lockUsage(name)
	if err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	used, coming, err := s.counted(ctx, a, u)
	if err != nil {
		return nil, err
	}
	if used+coming >= quota {
		return nil, fmt.Errorf("%s: %w: %d of %d octets, %d more are on their way", a, ErrOverQuota, used, quota, coming)
	}
	u.coming.Add(size)
	return func() { u.coming.Add(-size) }, nil
}

// lockUsage is the usage of a mailbox, locked.
func (s *Store) lockUsage(name string) (address, *usage, error) {
	a, err := parseAddress(name)
	if err != nil {
		return a, nil, err
	}
	u := s.usages.get(a)
	u.mu.Lock()
	return a, u, nil
}

// counted is what a mailbox holds, and what is on its way. That is looked at first: what
// arrives in between counts in both, and would else be in neither. u is locked, so that
// no more can set out.
func (s *Store) counted(ctx context.Context, a address, u *usage) (used, coming int64, err error) {
	coming = u.coming.Load()
	if used, err = s.usage(ctx, a, u); err != nil {
		return 0, 0, fmt.Errorf("counting mailbox %s: %w", a, err)
	}
	return used, coming, nil
}

func (s *Store) usage(ctx context.Context, a address, u *usage) (int64, error) {
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
