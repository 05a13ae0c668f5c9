package metrics

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// A disk that hangs is asked once, not again and again.
func TestReadinessThatHangs(t *testing.T) {
	var asked atomic.Int64
	hang := make(chan error)
	r := &readiness{log: slog.New(slog.DiscardHandler), ready: func(context.Context) error {
		asked.Add(1)
		return <-hang
	}}
	for range 2 {
		r.asked = time.Time{}
		if err := r.check(); err == nil {
			t.Error("ready, though nothing answers")
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	close(hang)
	r.asked = time.Time{}
	if err := r.check(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// What a check says that nobody has waited for is no answer to a question of later.
func TestReadinessIsOfNow(t *testing.T) {
	old := make(chan error, 1)
	old <- nil
	r := &readiness{under: old, log: slog.New(slog.DiscardHandler), ready: func(context.Context) error { return errors.New("no") }}
	if r.check() == nil {
		t.Error("ready, as it was a while ago")
	}
}

// Those who ask often get the answer of a moment ago.
func TestReadinessIsKept(t *testing.T) {
	asked := 0
	r := &readiness{log: slog.New(slog.DiscardHandler), ready: func(context.Context) error { asked++; return errors.New("no") }}
	for range 100 {
		if r.check() == nil {
			t.Fatal("ready")
		}
	}
	if asked > 2 {
		t.Errorf("asked %d times", asked)
	}
}
