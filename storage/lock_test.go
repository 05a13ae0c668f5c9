package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestMaildropLock(t *testing.T) {
	s, data := openStore(t)
	other := openStoreAt(t, data) // another process as far as flock is concerned
	ctx := context.Background()
	m := openDrop(t, s, alice)
	for _, st := range []*Store{s, other} {
		if _, err := st.OpenMaildrop(ctx, alice); !errors.Is(err, ErrInUse) {
			t.Errorf("second session: %v", err)
		}
		if err := st.RemoveMailbox(ctx, alice); !errors.Is(err, ErrInUse) {
			t.Errorf("removal in a session: %v", err)
		}
		if _, err := st.Stat(ctx, alice); err != nil {
			t.Errorf("Stat in a session: %v", err)
		}
		deliver(t, st, len(filesIn(t, boxDir(data, alice))), message, alice)
	}
	if again, err := other.OpenMaildrop(ctx, "alice@example.net"); err != nil {
		t.Errorf("another mailbox: %v", err)
	} else {
		again.Close()
	}
	m.Close()
	openDrop(t, other, alice).Close()
	if _, err := s.OpenMaildrop(ctx, "alice"); err == nil {
		t.Error("opened a mailbox without a domain")
	}
}

func TestServerLock(t *testing.T) {
	s, data := openStore(t)
	other := openStoreAt(t, data)
	release, err := s.LockServer()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range []*Store{s, other} {
		if _, err := st.LockServer(); !errors.Is(err, ErrServerRunning) {
			t.Errorf("second server: %v", err)
		}
	}
	openDrop(t, other, "someone@server").Close() // a domain of that name is another thing
	if err := release(); err != nil {
		t.Error(err)
	}
	release, err = other.LockServer()
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// TestLockOfRemovedFile: who waits for a lock file that is then removed must not
// believe to have the lock.
func TestLockOfRemovedFile(t *testing.T) {
	s, data := openStore(t)
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "locks", "example.org", "alice")
	put(t, path, "")
	stale, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer stale.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.flockOpened(stale, "example.org/alice"); !errors.Is(err, errUnlinked) {
		t.Errorf("removed lock file: %v", err)
	}
	put(t, path, "")
	if err := s.flockOpened(stale, "example.org/alice"); !errors.Is(err, errUnlinked) {
		t.Errorf("replaced lock file: %v", err)
	}
	f, err := s.lock(a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	late, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := s.flockOpened(late, "example.org/alice"); !errors.Is(err, ErrInUse) {
		t.Errorf("lock file of another: %v", err)
	}
}

// TestLockAgainstRemoval lets many take the lock of a mailbox that is removed
// again and again. Never may two have it.
func TestLockAgainstRemoval(t *testing.T) {
	s, data := openStore(t)
	stores := []*Store{s, openStoreAt(t, data), s}
	var holders sync.Mutex // tells whether the lock excludes
	var wg sync.WaitGroup
	for i, st := range stores {
		wg.Go(func() {
			for range 200 {
				if i == len(stores)-1 {
					if err := st.RemoveMailbox(context.Background(), alice); err != nil && !errors.Is(err, ErrInUse) {
						t.Error(err)
					}
					continue
				}
				m, err := st.OpenMaildrop(context.Background(), alice)
				if errors.Is(err, ErrInUse) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !holders.TryLock() {
					t.Error("two sessions at once")
					return
				}
				if _, err := st.Stat(context.Background(), alice); err != nil {
					t.Error(err)
				}
				holders.Unlock()
				m.Close()
			}
		})
	}
	wg.Wait()
}
