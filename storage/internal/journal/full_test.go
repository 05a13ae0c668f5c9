package journal

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestUrgentInFullJournal: records that make room are taken while others wait for it,
// or are refused.
func TestUrgentInFullJournal(t *testing.T) {
	for name, failed := range map[string]bool{"waiting": false, "after a failed checkpoint": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				j := open(t, dir, Options{MaxSegments: 2})
				n := fill(t, j)
				if failed {
					j.Stall(errors.New("no"))
				}
				ended := make(chan error, 1)
				go func() {
					_, applied, err := j.Append(make([]byte, 5000))
					if err == nil {
						applied()
					}
					ended <- err
				}()
				synctest.Wait()
				for range 3 {
					_, applied, err := j.AppendUrgent([]byte("removed"))
					if err != nil {
						t.Fatal(err)
					}
					applied()
				}
				if !failed {
					seq, err := j.Settled(t.Context())
					if err == nil {
						err = j.Checkpoint(seq)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if err := <-ended; errors.Is(err, ErrFull) != failed {
					t.Errorf("Append = %v", err)
				}
				want := map[bool]int{true: n + 3, false: 1}[failed]
				if got := len(replayed(t, j)); got != want {
					t.Errorf("%d records, want %d", got, want)
				}
				shut(t, j)
			})
		})
	}
}

// TestUrgentIsBounded: a full journal does not grow by urgent records either.
func TestUrgentIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{MaxSegments: 2})
	defer shut(t, j)
	fill(t, j)
	j.Stall(errors.New("no"))
	err := error(nil)
	for n := 0; err == nil; n++ {
		if n > 100 {
			t.Fatal("the journal grows without end")
		}
		_, _, err = j.AppendUrgent(make([]byte, 5000))
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("AppendUrgent = %v, want %v", err, ErrFull)
	}
	if _, _, err := j.Append([]byte("x")); !errors.Is(err, ErrFull) { // there is a block left
		t.Errorf("Append = %v, want %v", err, ErrFull)
	}
	if got := len(files(t, dir)); got > 2+1+keptByMost {
		t.Errorf("%d files", got)
	}
	if err := j.Checkpoint(j.Last()); err != nil {
		t.Fatal(err)
	}
	add(t, j, "x")
}

// TestPatienceBesideRemovals: removals, which still find room, do not have a delivery
// wait any longer.
func TestPatienceBesideRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir(), Options{MaxSegments: 2})
		fill(t, j)
		begin, waited := time.Now(), time.Duration(0)
		go func() {
			if _, _, err := j.Append(make([]byte, 5000)); !errors.Is(err, ErrFull) {
				t.Errorf("Append = %v, want %v", err, ErrFull)
			}
			waited = time.Since(begin)
		}()
		for range 3 {
			time.Sleep(50 * time.Second)
			if _, applied, err := j.AppendUrgent([]byte("removed")); err != nil {
				t.Error(err)
			} else {
				applied()
			}
			synctest.Wait()
		}
		if waited != time.Minute {
			t.Errorf("Append waited %v of 2m30s, want 1m", waited)
		}
		shut(t, j)
	})
}

// TestOverdue: patience that ends when a checkpoint has just made room stalls nobody.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir(), Options{MaxSegments: 2})
		fill(t, j)
		j.mu.Lock()
		j.hurry()
		j.mu.Unlock()
		if err := j.Checkpoint(j.Last()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		fill(t, j)
		ended := make(chan error)
		go func() {
			_, applied, err := j.Append(make([]byte, 5000))
			if err == nil {
				applied()
			}
			ended <- err
		}()
		synctest.Wait()
		if err := j.Checkpoint(j.Last()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Append = %v, want to wait for the checkpoint", err)
		}
		shut(t, j)
	})
}
