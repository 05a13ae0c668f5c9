package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// used is the usage, counted anew whenever something has changed.
func used(t *testing.T, s *Store, name string) int64 {
	t.Helper()
	a, err := parseAddress(name)
	if err != nil {
		t.Fatal(err)
	}
	u := s.usages.get(a)
	u.mu.Lock()
	u.next = time.Time{}
	u.mu.Unlock()
	n, err := s.Usage(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUsage(t *testing.T) {
	s, data := openStore(t)
	other := openStoreAt(t, data)
	check := func(what string, want int64) {
		t.Helper()
		if n := used(t, s, "ann@example.org"); n != want {
			t.Errorf("%s: %d octets, want %d", what, n, want)
		}
	}
	check("no mailbox", 0)
	deliver(t, s, 1, "12345\r\n", "ann@example.org", "bob@example.org")
	check("one delivered", 6)
	deliver(t, other, 2, "1234567890\n", "ann@example.org")
	check("one by another process", 17)
	box := boxDir(data, "ann@example.org")
	put(t, filepath.Join(box, "cur", "1.foreign,S=7:2,S"), strings.Repeat("x", 100))
	put(t, filepath.Join(box, "new", ".hidden"), strings.Repeat("x", 1000))
	if err := os.MkdirAll(filepath.Join(box, ".Sent", "cur"), 0o700); err != nil {
		t.Fatal(err)
	}
	check("a foreign one", 117)
	m := openDrop(t, s, "ann@example.org")
	if _, err := m.Remove(context.Background(), []int{0}); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if n := used(t, s, "ann@example.org"); n >= 117 {
		t.Errorf("after a removal: %d octets", n)
	}
	if n := used(t, s, "bob@example.org"); n != 6 {
		t.Errorf("the message of two mailboxes: %d octets in the other", n)
	}
}

// Deliveries show at once, also while the mailbox may not be counted again.
func TestUsageBetweenCounts(t *testing.T) {
	s, _ := openStore(t)
	deliver(t, s, 1, "12345\n", "ann@example.org")
	if n := used(t, s, "ann@example.org"); n != 6 {
		t.Fatalf("%d octets", n)
	}
	u := s.usages.get(address{"ann", "example.org"})
	u.next = time.Now().Add(time.Hour)
	deliver(t, s, 2, "1234567890\n", "ann@example.org")
	if n, err := s.Usage(context.Background(), "ann@example.org"); n != 17 || err != nil {
		t.Errorf("before the next count: %d octets, %v", n, err)
	}
	if n := used(t, s, "ann@example.org"); n != 17 {
		t.Errorf("counted: %d octets", n)
	}
}

func TestFits(t *testing.T) {
	ctx := context.Background()
	s, _ := openStore(t)
	deliver(t, s, 1, "123456789\n", "ann@example.org")
	for _, c := range []struct {
		size, quota int64
		fits        bool
		claimed     bool
	}{
		{0, 9, false, false}, {0, 10, false, false}, {0, 11, true, true}, {1, 10, false, false}, {1, 11, true, true},
		{2, 11, false, true}, {90, 100, true, true}, {91, 100, false, true}, {1 << 62, 1<<63 - 1, true, true},
	} {
		if err := s.Fits(ctx, "ann@example.org", c.size, c.quota); c.fits != (err == nil) || err != nil && !errors.Is(err, ErrOverQuota) {
			t.Errorf("%d octets into %d: %v", c.size, c.quota, err)
		}
		release, err := s.Claim(ctx, "ann@example.org", c.size, c.quota)
		if c.claimed != (err == nil) || err != nil && !errors.Is(err, ErrOverQuota) {
			t.Errorf("%d octets into %d, claimed: %v", c.size, c.quota, err)
		}
		if err == nil {
			if full := s.Fits(ctx, "ann@example.org", 0, 10+c.size); !errors.Is(full, ErrOverQuota) {
				t.Errorf("%d octets are on their way: %v", c.size, full)
			}
			release()
		}
	}
	if err := s.Fits(ctx, "ann@example.org", 1, 11); err != nil {
		t.Errorf("all was released: %v", err)
	}
	if err := s.Fits(ctx, "none", 1, 100); err == nil || errors.Is(err, ErrOverQuota) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := s.Claim(ctx, "none", 1, 100); err == nil || errors.Is(err, ErrOverQuota) {
		t.Errorf("a bad name: %v", err)
	}
}

// Of messages that end at the same time only the last one goes over the quota.
func TestClaimAtOnce(t *testing.T) {
	s, _ := openStore(t)
	var claimed atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := s.Claim(context.Background(), "ann@example.org", 10, 105); err == nil {
				claimed.Add(1)
			}
		})
	}
	all.Wait()
	if n := claimed.Load(); n != 11 {
		t.Errorf("%d messages of 10 octets were let into 105, want 11", n)
	}
}

// Nor do more, when others are delivered in between.
func TestClaimWhileDelivered(t *testing.T) {
	s, _ := openStore(t)
	const quota, size = 105, 10
	ann := address{"ann", "example.org"}
	deliver(t, s, 1, "123456789\n", "ann@example.org")
	for round := range 2000 {
		u := s.usages.get(ann)
		u.next, u.counted = time.Now().Add(time.Hour), 0 // only what is added counts from here
		u.added.Store(0)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				release, err := s.Claim(context.Background(), "ann@example.org", size, quota)
				if err != nil {
					return
				}
				s.usages.add([]address{ann}, size)
				release()
			})
		}
		all.Wait()
		if n := u.added.Load(); n > quota/size*size+size {
			t.Fatalf("round %d: %d octets in a mailbox of %d", round, n, quota)
		}
		if n := u.coming.Load(); n != 0 {
			t.Fatalf("round %d: %d octets are still on their way", round, n)
		}
	}
}

// A delivery that was seen in one of its mailboxes, before it was in all of them,
// counts once in the end.
func TestUsageOfSlowDelivery(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "12345\n", "ann@example.org")
	put(t, filepath.Join(boxDir(data, "ann@example.org"), "new", "1.foreign"), "1234567890\n") // as if it were the delivery
	u := s.usages.get(address{"ann", "example.org"})
	for deadline := time.Now().Add(10 * time.Second); used(t, s, "ann@example.org") != 17 || !u.version.settled; {
		if time.Now().After(deadline) {
			t.Fatal("the mailbox never settles")
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.usages.add([]address{{"ann", "example.org"}}, 11)
	if n := used(t, s, "ann@example.org"); n != 17 {
		t.Errorf("%d octets, want 17", n)
	}
}
