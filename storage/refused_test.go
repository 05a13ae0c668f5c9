package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

// TestRefusedStaysAway: the disk fails when the journal is to be synced. What was
// refused for that, a message and a removal, is not done by the next start, though
// nothing happened since but an end in order.
func TestRefusedStaysAway(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	v.checkpoint(context.Background())
	broken := func(_ int, st step) error {
		if st.op == "syncJournal" {
			return unix.EIO
		}
		return nil
	}
	refused := map[string]func() error{
		"a message": func() error {
			_, err := v.Deliver(context.Background(), messageID(2), []string{alice}, strings.NewReader(otherMessage))
			return err
		},
		"a removal": func() error {
			m := openDrop(t, v.Store, alice)
			defer m.Close()
			_, err := m.Remove(context.Background(), []int{0})
			return err
		},
	}
	for name, call := range refused {
		v.steps.before = broken
		if err := call(); !errors.Is(err, unix.EIO) {
			t.Fatalf("%s: %v", name, err)
		}
		v.steps.before = nil
		v.end(t)
		if err := v.start(); err != nil {
			t.Fatal(err)
		}
		holds(t, name, v.data, alice, smallMessage)
	}
}

// TestRefusedStaysAwayBesideFault: so it is when from then on no mail can be synced,
// be it that a delivery is under way at the end: the disk of the journal is enough.
func TestRefusedStaysAwayBesideFault(t *testing.T) {
	for name, underWay := range map[string]bool{"no sync": false, "no checkpoint": true} {
		v := freshServer(t)
		deliver(t, v.Store, 1, smallMessage, alice)
		v.checkpoint(context.Background())
		nothing := record{kind: recordRemoved, to: []address{{"alice", "example.org"}}}
		_, applied, err := v.checkpointer.journal.Append(nothing.encode())
		if err != nil {
			t.Fatal(err)
		}
		v.steps.before = func(_ int, st step) error {
			if st.op == "syncJournal" {
				return unix.EIO
			}
			return nil
		}
		_, err = v.Deliver(context.Background(), messageID(2), []string{alice}, strings.NewReader(otherMessage))
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("%s: %v", name, err)
		}
		v.steps.before = nil
		v.hooks.beforeSyncFS = func() error { return unix.EIO }
		ctx, cancel := context.WithCancel(context.Background())
		if underWay {
			cancel() // it waits no longer
		} else {
			applied()
		}
		v.checkpoint(ctx)
		cancel()
		if underWay {
			applied()
		}
		data := crashed(t, v.data)
		startServer(t, data)
		holds(t, name, data, alice, smallMessage)
	}
}

// TestRefusalIsTriedAgain: a mailbox cannot take a message, and neither can the journal
// take its removal, for a while. From then on no mail can be synced. When the journal
// works again, be it at the end only, it is told of the removal.
func TestRefusalIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name        string
		failures    int // of the journal
		checkpoints int // before the end
		orderly     bool
	}{
		{"crash after a checkpoint", 1, 1, false},
		{"end at once", 1, 0, true},
		{"end after a checkpoint", 1, 1, true},
		{"a longer fault", 4, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := freshServer(t)
			deliver(t, v.Store, 1, smallMessage, alice)
			v.checkpoint(context.Background())
			failures := 0
			v.steps.before = func(_ int, st step) error {
				switch {
				case st.op == "rename" && strings.Contains(st.file, messageID(2)):
					failures = c.failures
				case st.op == "syncJournal" && failures > 0:
					failures--
				default:
					return nil
				}
				return unix.EIO
			}
			v.hooks.beforeSyncFS = func() error { return unix.EIO }
			_, err := v.Deliver(context.Background(), messageID(2), []string{alice}, strings.NewReader(otherMessage))
			if !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
			for range c.checkpoints {
				v.checkpoint(context.Background())
			}
			if c.orderly {
				v.end(t)
			}
			data := crashed(t, v.data)
			startServer(t, data)
			holds(t, "refused", data, alice, smallMessage)
		})
	}
}

// TestRefusalsAreForgotten: one that the journal has taken, and one whose message it
// has forgotten, are not tried any more.
func TestRefusalsAreForgotten(t *testing.T) {
	for name, mended := range map[string]bool{"removal": false, "checkpoint": true} {
		v := freshServer(t)
		broken := false
		v.steps.before = func(_ int, st step) error {
			if st.op == "rename" {
				broken = true
				return unix.EIO
			}
			if broken && st.op == "writeJournal" {
				return unix.EIO
			}
			return nil
		}
		_, err := v.Deliver(context.Background(), messageID(2), []string{alice}, strings.NewReader(otherMessage))
		if !errors.Is(err, unix.EIO) || len(v.Store.refusals) != 1 {
			t.Fatalf("%s: %v, %d refusals are kept", name, err, len(v.Store.refusals))
		}
		broken = false
		if !mended {
			v.hooks.beforeSyncFS = func() error { return unix.EIO }
		}
		v.checkpoint(context.Background())
		if len(v.Store.refusals) > 0 {
			t.Errorf("%s: %d refusals are kept", name, len(v.Store.refusals))
		}
	}
}

// TestRefusedInFullJournal: mailboxes and the file system fail until the journal is
// full. Its last segment has room for what was refused, and for removals, so no
// start delivers it, and neither does the server when the fault is over.
func TestRefusedInFullJournal(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	v.Store.journalOptions = journal.Options{SegmentSize: 64 << 10, MaxSegments: 2, Patience: time.Hour}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, otherMessage, alice)
	broken := true
	v.hooks.beforeSyncFS = func() error {
		if broken {
			return unix.EIO
		}
		return nil
	}
	v.steps.before = func(_ int, st step) error {
		if broken && st.op == "rename" {
			return unix.EIO
		}
		return nil
	}
	v.checkpoint(context.Background())
	for n, lines := 3, 2500; lines >= 0; n++ { // to the last block
		message := fmt.Sprintf("message %d\n%s", n, strings.Repeat("more text\n", lines))
		_, err := v.Deliver(context.Background(), messageID(n), []string{alice}, strings.NewReader(message))
		if n > 100 || err == nil {
			t.Fatalf("message %d: %v", n, err)
		}
		if errors.Is(err, journal.ErrFull) {
			lines -= 2500
			v.checkpoint(context.Background()) // as one is made for want of room
		}
	}
	m := openDrop(t, v.Store, alice)
	if n, err := m.Remove(context.Background(), []int{1}); n != 1 || err != nil {
		t.Errorf("removed %d from a mailbox while the journal is full: %v", n, err)
	}
	m.Close()
	if log := v.log.String(); strings.Contains(log, "still in the journal") {
		t.Errorf("the log says %s", log)
	}
	after := crashed(t, v.data)
	loseMailboxes(t, after)
	startServer(t, after)
	holds(t, "after a crash", after, alice, smallMessage)
	broken = false
	v.checkpoint(context.Background())
	holds(t, "after the fault", v.data, alice, smallMessage)
	if v.checkpointer.journal.Needed() {
		t.Error("the journal forgets nothing")
	}
}

// pickyDisk refuses what has some octets in it to the journal.
type pickyDisk struct {
	disk
	refused string
}

func (d *pickyDisk) writeJournal(f *os.File, p []byte, off int64) error {
	if bytes.Contains(p, []byte(d.refused)) {
		return unix.EIO
	}
	return d.disk.writeJournal(f, p, off)
}

// TestRefusalsDoNotFillJournal: what is left of messages that the journal could not take
// while no mail can be synced does not fill it: it takes others, also when that lasts.
func TestRefusalsDoNotFillJournal(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	v.Store.disk = &pickyDisk{disk: v.Store.disk, refused: "Subject: another"}
	v.Store.journalOptions = journal.Options{SegmentSize: 64 << 10, MaxSegments: 4}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	v.hooks.beforeSyncFS = func() error { return unix.EIO }
	for n := range 20 {
		_, err := v.Deliver(context.Background(), messageID(n), []string{alice}, strings.NewReader(otherMessage))
		if !errors.Is(err, unix.EIO) || errors.Is(err, journal.ErrFull) {
			t.Fatalf("message %d: %v", n, err)
		}
		v.checkpoint(context.Background())
	}
	deliver(t, v.Store, 100, smallMessage, alice)
	holds(t, "after the refusals", v.data, alice, smallMessage)
}

// TestRewriteSeesDamage: a checkpoint that is to write messages again does not forget
// those that the journal cannot give any more.
func TestRewriteSeesDamage(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, otherMessage, alice)
	segments, err := filepath.Glob(filepath.Join(v.data, journalDir, "segment-*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	overwrite(t, segments[0], func(b []byte) { b[4096+100] ^= 1 })
	if err := v.rewrite(math.MaxUint64); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("rewrite = %v", err)
	}
}
