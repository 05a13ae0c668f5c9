package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

func sameFile(t *testing.T, a os.FileInfo, file string) bool {
	t.Helper()
	return os.SameFile(a, stat(t, file))
}

func stat(t *testing.T, file string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFailedSyncRewrites: after a sync that failed once, files are made anew from
// the journal, under the names and flags that they have. So is, at the next
// checkpoint, what was delivered too late for this one.
func TestFailedSyncRewrites(t *testing.T) {
	for _, message := range []string{smallMessage, largeMessage} {
		v := freshServer(t)
		deliver(t, v.Store, 1, message, threeBoxes...)
		early := seen(t, fileOf(t, v.data, alice))
		before := stat(t, early)
		v.hooks.beforeSyncFS = func() error {
			v.hooks.beforeSyncFS = nil
			deliver(t, v.Store, 2, message, "late@example.net")
			return unix.EIO
		}
		v.checkpoint(context.Background())
		if sameFile(t, before, early) {
			t.Error("the octets of a failed sync were trusted")
		}
		for _, name := range threeBoxes {
			holds(t, "written again", v.data, name, message)
		}
		late := fileOf(t, v.data, "late@example.net")
		before = stat(t, late)
		v.checkpoint(context.Background())
		if sameFile(t, before, late) {
			t.Error("a later checkpoint trusted octets of the time of a failed sync")
		}
		before = stat(t, late)
		deliver(t, v.Store, 3, otherMessage, alice)
		v.checkpoint(context.Background())
		if !sameFile(t, before, late) {
			t.Error("written again without need")
		}
		if v.checkpointer.journal.Needed() {
			t.Error("the journal forgets nothing")
		}
		if left := filesIn(t, filepath.Join(v.data, "mail", draftsDir)); len(left) > 0 {
			t.Errorf("drafts left: %q", left)
		}
		v.end(t)
		holds(t, "at the end", v.data, "late@example.net", message)
	}
}

// TestRewriteKeepsRemoved: what a session has removed is not written again, not
// even for a moment: the server is serving.
func TestRewriteKeepsRemoved(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, largeMessage, alice)
	deliver(t, v.Store, 3, otherMessage, alice)
	m := openDrop(t, v.Store, alice)
	if n, err := m.Remove(context.Background(), []int{0, 1}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	before := len(v.steps.steps)
	if err := v.rewrite(math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	for _, st := range v.steps.steps[before:] {
		if name := filepath.Base(st.to); name == m.msgs[0].name || name == m.msgs[1].name {
			t.Errorf("%s to %s, which was removed", st, name)
		}
	}
	holds(t, "written again", v.data, alice, otherMessage)
}

// TestRewriteOfRefused: a checkpoint that writes messages again leaves out one that
// is just being refused, and one whose refusal the journal could not take.
func TestRewriteOfRefused(t *testing.T) {
	v := freshServer(t)
	refusing := false
	v.steps.before = func(_ int, st step) error {
		if st.op == "rename" && strings.Contains(st.to, "/bob/") && strings.HasSuffix(st.file, messageID(1)) {
			refusing = true
			return unix.EIO
		}
		if refusing && st.op == "writeJournal" {
			return unix.EIO
		}
		return nil
	}
	records := 0
	v.hooks.beforeJournal = func() {
		if records++; records == 2 { // the message, its removal
			if err := v.rewrite(math.MaxUint64); err != nil {
				t.Error(err)
			}
			holds(t, "being refused", v.data, alice)
		}
	}
	if _, err := v.Deliver(context.Background(), messageID(1), threeBoxes[:2], strings.NewReader(smallMessage)); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if records < 2 || !strings.Contains(v.log.String(), "a refused message is still in the journal") {
		t.Fatalf("%d writes of the journal, the log says %s", records, v.log)
	}
	v.steps.before = nil
	v.hooks.beforeSyncFS = func() error {
		v.hooks.beforeSyncFS = nil
		return unix.EIO
	}
	v.checkpoint(context.Background())
	holds(t, "refused", v.data, alice)
	holds(t, "refused", v.data, threeBoxes[1])
	if v.checkpointer.journal.Needed() {
		t.Error("the journal forgets nothing")
	}
}

// TestSyncFailsForGood: the journal keeps its records and refuses more when it is
// full, at once. When the fault goes it takes mail again, and has lost nothing.
func TestSyncFailsForGood(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	v.Store.journalOptions = journal.Options{SegmentSize: 64 << 10, MaxSegments: 4, Patience: time.Hour}
	v.Store.checkpointEvery = time.Millisecond
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	var fault sync.Mutex
	broken := true
	v.hooks.beforeSyncFS = func() error {
		fault.Lock()
		defer fault.Unlock()
		if broken {
			return unix.EIO
		}
		return nil
	}
	var accepted []string
	send := func(n int) error {
		text := fmt.Sprintf("message %d\n%s", n, strings.Repeat("more text\n", 500))
		_, err := v.Deliver(context.Background(), messageID(n), []string{alice}, strings.NewReader(text))
		if err == nil {
			accepted = append(accepted, text)
		}
		return err
	}
	n, err := 0, error(nil)
	for ; err == nil; n++ {
		if n > 1000 {
			t.Fatal("the journal grows without end")
		}
		err = send(n)
	}
	if !errors.Is(err, journal.ErrFull) || !errors.Is(err, unix.EIO) {
		t.Errorf("refused with %v", err)
	}
	holds(t, "full", v.data, alice, accepted...)
	lost := crashed(t, v.data)
	loseMailboxes(t, lost)
	r := newServer(t, lost)
	r.Store.journalOptions = v.Store.journalOptions
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	holds(t, "full, and a crash", lost, alice, accepted...)
	fault.Lock()
	broken = false
	fault.Unlock()
	for deadline := time.Now().Add(20 * time.Second); send(n) != nil; n++ {
		if time.Now().After(deadline) {
			t.Fatal("it takes no mail after the fault")
		}
		time.Sleep(time.Millisecond)
	}
	v.end(t)
	holds(t, "at the end", v.data, alice, accepted...)
	if len(filesIn(t, filepath.Join(v.data, journalDir))) > 8 {
		t.Error("the journal does not give its files back")
	}
}

// TestFailingEnd: when the last checkpoint fails, the next start has the records, and
// whoever ends it is told.
func TestFailingEnd(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, largeMessage, alice)
	v.hooks.beforeSyncFS = func() error { return unix.EIO }
	if !v.end(t) {
		t.Error("the end does not say that the journal is needed")
	}
	after := crashed(t, v.data)
	loseMailboxes(t, after)
	next := startServer(t, after)
	holds(t, "after the end", after, alice, smallMessage, largeMessage)
	if next.end(t) {
		t.Error("the end says that the journal is needed, and it is not")
	}
}

// TestManyHandsJournaled is TestManyHands in the server, with a checkpoint every
// other moment, of which some fail.
func TestManyHandsJournaled(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	v.hooks.disk = osDisk{}
	v.Store.journalOptions = journal.Options{SegmentSize: 128 << 10, MaxSegments: 3}
	v.Store.checkpointEvery = 2 * time.Millisecond
	syncs := 0 // of the one who makes checkpoints
	v.hooks.beforeSyncFS = func() error {
		if syncs++; syncs%5 == 0 {
			return unix.EIO
		}
		return nil
	}
	if err := v.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	const senders, each = 4, 60
	var sending, others sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for k := range each {
				text := fmt.Sprintf("message %d\n", i*each+k)
				if k%20 == 0 {
					text += strings.Repeat("a large one\n", 10_000)
				}
				if _, err := v.Deliver(context.Background(), messageID(i*each+k), []string{alice, threeBoxes[1]}, strings.NewReader(text)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	busy := func(what func()) {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					what()
				}
			}
		})
	}
	busy(func() { moveNew(boxDir(v.data, alice)) })
	fetched := make(map[string]int)
	busy(func() { fetchAll(t, v.Store, fetched) })
	sending.Wait()
	close(done)
	others.Wait()
	after := crashed(t, v.data)
	fetchAll(t, v.Store, fetched)
	if len(fetched) != senders*each {
		t.Errorf("%d of %d messages were fetched", len(fetched), senders*each)
	}
	for text, n := range fetched {
		if n != 1 {
			t.Errorf("%.20q was fetched %d times", text, n)
		}
	}
	v.end(t)
	if syncs < 5 {
		t.Errorf("%d syncs only", syncs)
	}
	for _, data := range []string{v.data, after} {
		paths, _ := messagesOf(t, startServer(t, data).data, threeBoxes[1])
		if len(paths) != senders*each {
			t.Errorf("%s has %d of %d messages", threeBoxes[1], len(paths), senders*each)
		}
	}
}

// TestRemovalsBesideDeliveries removes a mailbox again and again while the server
// delivers to it. After a crash nobody misses what could be seen before it, and
// what was there before the last removal began stays away.
func TestRemovalsBesideDeliveries(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	v.hooks.disk = osDisk{}
	v.Store.journalOptions = journal.Options{SegmentSize: 4 << 20} // no checkpoint is needed
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	other := openStoreAt(t, v.data)
	deliver(t, v.Store, 0, "the first\n", alice)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for k := range 100 {
				// One that meets the removal in the middle may be refused.
				_, _ = v.Deliver(context.Background(), messageID(1+i*100+k), []string{alice}, strings.NewReader(fmt.Sprintf("message %d of %d\n", k, i)))
			}
		})
	}
	for range 20 {
		if err := other.RemoveMailbox(context.Background(), alice); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	deliver(t, v.Store, 1000, "the last\n", alice)
	_, visible := messagesOf(t, v.data, alice)
	after := crashed(t, v.data)
	loseMailboxes(t, after)
	startServer(t, after)
	_, got := messagesOf(t, after, alice)
	for _, m := range visible {
		if !slices.Contains(got, m) {
			t.Errorf("%q is lost", m)
		}
	}
	if slices.Contains(got, "the first\n") {
		t.Error("a message is back that was there before the first removal")
	}
}
