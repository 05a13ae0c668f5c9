package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a Sync that waits to be let go on.
type gate struct {
	entered, leave chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func (g *gate) sync(*os.File) error {
	g.entered <- struct{}{}
	<-g.leave
	return nil
}

// Records that come while a frame is written share the next one.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		j := open(t, t.TempDir(), Options{})
		j.options.Sync = g.sync
		var wg sync.WaitGroup
		wg.Go(func() { add(t, j, "first") })
		<-g.entered
		for i := range 20 {
			wg.Go(func() { add(t, j, fmt.Sprint(i)) })
		}
		synctest.Wait()
		g.leave <- struct{}{}
		<-g.entered // that one is for all of them
		synctest.Wait()
		g.leave <- struct{}{}
		wg.Wait()
		if n := len(replayed(t, j)); n != 21 {
			t.Errorf("%d records, want 21", n)
		}
		shut(t, j)
	})
}

// A frame takes as many records as its segment has room for, not more.
func TestFramesFitSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		dir := t.TempDir()
		j := open(t, dir, Options{})
		j.options.Sync = g.sync
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { add(t, j, strings.Repeat("x", 5000)) })
			synctest.Wait()
		}
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }()
		<-g.entered
		for open := true; open; {
			g.leave <- struct{}{}
			select {
			case <-g.entered:
			case <-ended:
				open = false
			}
		}
		for _, s := range j.chain {
			if s.end > small || s.size > small {
				t.Errorf("a segment of %d octets has frames up to %d", s.size, s.end)
			}
		}
		shut(t, j)
	})
}

// fill appends records until no other one is taken without a checkpoint.
func fill(t *testing.T, j *Journal) (n int) {
	t.Helper()
	for !j.full() {
		add(t, j, strings.Repeat("x", 5000))
		n++
	}
	return n
}

func (j *Journal) full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.fits(9000) && len(j.chain) >= j.options.MaxSegments
}

// An Append that has no room waits for a checkpoint, which gets through.
func TestFullWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir(), Options{MaxSegments: 2})
		fill(t, j)
		<-j.Pressure()
		ended := make(chan error)
		for range 3 {
			go func() {
				_, applied, err := j.Append(make([]byte, 5000))
				if err == nil {
					applied()
				}
				ended <- err
			}()
		}
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("Append = %v without room", err)
		case <-j.Pressure():
		}
		seq, err := j.Settled(t.Context()) // does not wait for the three
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Checkpoint(seq); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		shut(t, j)
	})
}

func TestFull(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(j *Journal)
		want error
	}{
		{"a checkpoint fails", func(j *Journal) { j.Stall(errors.New("no")) }, ErrFull},
		{"no checkpoint comes", func(*Journal) { time.Sleep(time.Minute) }, ErrFull},
		{"closed", func(j *Journal) { _ = j.Close() }, ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := open(t, t.TempDir(), Options{MaxSegments: 2})
				n := fill(t, j)
				ended := make(chan error)
				for range 3 {
					go func() {
						_, _, err := j.Append(make([]byte, 5000))
						ended <- err
					}()
				}
				synctest.Wait()
				go c.end(j)
				for range 3 {
					if err := <-ended; !errors.Is(err, c.want) {
						t.Errorf("Append = %v, want %v", err, c.want)
					}
				}
				if c.want == ErrClosed {
					return
				}
				if _, _, err := j.Append(make([]byte, 5000)); !errors.Is(err, ErrFull) {
					t.Errorf("another Append = %v, want %v", err, ErrFull)
				}
				if got := len(replayed(t, j)); got != n {
					t.Errorf("%d records, want %d", got, n)
				}
				if err := j.Checkpoint(j.Last()); err != nil {
					t.Fatal(err)
				}
				add(t, j, strings.Repeat("x", 5000))
				shut(t, j)
			})
		})
	}
}

// Close waits for what is being written.
func TestCloseFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		dir := t.TempDir()
		j := open(t, dir, Options{})
		j.options.Sync = g.sync
		ended := make(chan error)
		go func() {
			_, _, err := j.Append([]byte("one"))
			ended <- err
		}()
		<-g.entered
		go func() { ended <- j.Close() }()
		synctest.Wait()
		g.leave <- struct{}{}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		j = open(t, dir, Options{})
		wantReplay(t, j, "1 one")
		shut(t, j)
	})
}

// settled calls Settled aside, and tells what it returned, or 0 while it waits.
func settled(ctx context.Context, j *Journal) func() uint64 {
	var got uint64
	go func() {
		if seq, err := j.Settled(ctx); err == nil {
			got = seq
		}
	}()
	synctest.Wait()
	return func() uint64 { synctest.Wait(); return got }
}

func TestSettled(t *testing.T) {
	pend := func(t *testing.T, j *Journal) Applied {
		_, applied, err := j.Append([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return applied
	}
	want := func(t *testing.T, name string, got func() uint64, want uint64) {
		t.Helper()
		if got := got(); got != want {
			t.Errorf("%s: Settled = %d (0: waits), want %d", name, got, want)
		}
	}
	for name, test := range map[string]func(t *testing.T, j *Journal){
		"waits for earlier records only": func(t *testing.T, j *Journal) {
			one, two := pend(t, j), pend(t, j)
			s := settled(t.Context(), j)
			three := pend(t, j)
			two()
			want(t, "one is open", s, 0)
			one()
			want(t, "three is open", s, 2)
			three()
			want(t, "none is open", settled(t.Context(), j), 3)
		},
		"a second call waits for what the first waits for": func(t *testing.T, j *Journal) {
			one := pend(t, j)
			first := settled(t.Context(), j)
			pend(t, j)()
			second := settled(t.Context(), j)
			want(t, "first", first, 0)
			want(t, "second", second, 0)
			one()
			want(t, "first", first, 1)
			want(t, "second", second, 2)
		},
		"a call after one that was given up": func(t *testing.T, j *Journal) {
			one := pend(t, j)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := j.Settled(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Settled = %v, want %v", err, context.Canceled)
			}
			s := settled(t.Context(), j)
			want(t, "one is open", s, 0)
			one()
			want(t, "none is open", s, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := open(t, t.TempDir(), Options{})
				test(t, j)
				shut(t, j)
			})
		})
	}
}

// What failed is nothing to wait for.
func TestSettledAfterFailure(t *testing.T) {
	fails := true
	j := open(t, t.TempDir(), Options{Sync: func(*os.File) error {
		if fails {
			return errFault
		}
		return nil
	}})
	if _, _, err := j.Append([]byte("x")); !errors.Is(err, errFault) {
		t.Errorf("Append = %v, want %v", err, errFault)
	}
	fails = false
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := j.Settled(ctx); err != nil {
		t.Error(err)
	}
	shut(t, j)
}
