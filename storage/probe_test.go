package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbe: the probe fails when mail would be refused, and leaves nothing.
func TestProbe(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, "one\n", alice)
	var broken atomic.Bool
	v.steps.before = func(_ int, s step) error {
		if broken.Load() && strings.Contains(s.file, journalDir) {
			return unix.EIO
		}
		return nil
	}
	for _, faulty := range []bool{false, true, false} {
		broken.Store(faulty)
		if err := v.Probe(); errors.Is(err, unix.EIO) != faulty || (err != nil) != faulty {
			t.Errorf("the journal cannot be written: %t; the probe says %v", faulty, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(v.data, "mail", draftsDir)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	lost := crashed(t, v.data)
	loseMailboxes(t, lost)
	r := startServer(t, lost)
	holds(t, "after a crash", lost, alice, "one\n")
	if names, err := r.List(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("mailboxes %q, %v", names, err)
	}
	if log := r.log.String(); strings.Contains(log, "ERROR") {
		t.Error(log)
	}
}
