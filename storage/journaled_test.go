package storage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"restante/storage/internal/journal"
)

// byTest is a time between checkpoints for which a server makes none by itself.
const byTest = time.Hour

// server is a store that has the journal. Its checkpoints are made by the test,
// unless that sets checkpointEvery: a journal that fills makes none beside the test
// either, whose faults may so be plain variables.
type server struct {
	*Store
	*checkpointer
	data  string
	lock  *os.File // while it has the journal
	log   *logText
	steps *testDisk   // below hooks; counts from the start
	hooks *hookedDisk // the disk of the store
}

// logText is what a store has logged.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newServer opens a store that is no server yet, with a journal of small segments.
func newServer(t *testing.T, data string) *server {
	t.Helper()
	v := &server{data: data, log: &logText{}}
	var err error
	v.Store, err = Open(data, Options{Hostname: "mx.example.org", Log: slog.New(slog.NewTextHandler(v.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	v.steps = newTestDisk(t, v.Store)
	v.steps.journal = true
	v.hooks = &hookedDisk{disk: v.steps}
	v.Store.disk = v.hooks
	v.Store.checkpointEvery = byTest
	v.Store.journalOptions = journal.Options{SegmentSize: 512 << 10}
	t.Cleanup(func() {
		v.end(t)
		if err := v.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// start does what LockServer does.
func (v *server) start() error {
	lock, err := v.Store.flock(serverLock)
	if err != nil {
		return err
	}
	c, err := v.Store.openJournal()
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	if err := v.Store.sweepDrafts(); err != nil {
		return errors.Join(err, c.close(), lock.Close())
	}
	if v.Store.checkpointEvery == byTest {
		c.stop()
		<-c.stopped
	}
	v.checkpointer, v.lock = c, lock
	v.steps.steps = nil
	return nil
}

// end ends it in order; it may be called again. It tells whether the journal was
// left with records.
func (v *server) end(t testing.TB) (left bool) {
	t.Helper()
	if v.checkpointer == nil {
		return false
	}
	err := v.checkpointer.close()
	left = errors.Is(err, errLeft)
	if err != nil && !left {
		t.Error(err)
	}
	if err := v.lock.Close(); err != nil {
		t.Error(err)
	}
	v.checkpointer = nil
	return left
}

func startServer(t *testing.T, data string) *server {
	t.Helper()
	v := newServer(t, data)
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	return v
}

func freshServer(t *testing.T) *server {
	t.Helper()
	return startServer(t, filepath.Join(t.TempDir(), "data"))
}

// crashed copies a data directory as it is now.
func crashed(t testing.TB, data string) string {
	t.Helper()
	const tries = 20 // each lost only to a checkpoint that removes drafts in that moment
	for try := 1; ; try++ {
		to := filepath.Join(t.TempDir(), "data")
		out, err := exec.Command("cp", "-a", data, to).CombinedOutput()
		if err == nil {
			return to
		}
		if try == tries {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// loseMailboxes does to a copy the worst that a crash can do to what was not
// synced: nothing is left.
func loseMailboxes(t testing.TB, data string) {
	t.Helper()
	for _, domain := range []string{"example.org", "example.net"} {
		if err := os.RemoveAll(filepath.Join(data, "mail", domain)); err != nil {
			t.Fatal(err)
		}
	}
}

// messagesOf reads the files of a mailbox, those in new/ first. A mailbox that is
// not there has none.
func messagesOf(t testing.TB, data, name string) (paths, contents []string) {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		dir := filepath.Join(boxDir(data, name), sub)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			paths, contents = append(paths, filepath.Join(sub, e.Name())), append(contents, string(b))
		}
	}
	return paths, contents
}

// holds checks that the mailbox has these messages and no others, in any order.
func holds(t testing.TB, what, data, name string, want ...string) {
	t.Helper()
	_, got := messagesOf(t, data, name)
	slices.Sort(got)
	var disk []string
	for _, m := range want {
		disk = append(disk, withLineEnds(m, "\n"))
	}
	slices.Sort(disk)
	for i := range disk { // the end of a message without a last line end stays
		if i < len(got) && got[i]+"\n" == disk[i] {
			disk[i] = got[i]
		}
	}
	if !slices.Equal(got, disk) {
		t.Errorf("%s: %s has %d messages %.60q, want %d", what, name, len(got), got, len(want))
	}
}

var (
	smallMessage = "Subject: small\r\n\r\n" + strings.Repeat("a line of text\r\n", 20)
	largeMessage = "Subject: large\r\n\r\n" + strings.Repeat("a line of text\r\n", 10_000)
	otherMessage = "Subject: another\r\n\r\nx\r\n"
)

// TestJournaledCommit: when Deliver returns, the journal alone brings the message
// to every mailbox.
func TestJournaledCommit(t *testing.T) {
	v := freshServer(t)
	d := v.steps
	deliver(t, v.Store, 1, smallMessage, threeBoxes...)
	if d.kinds("sync", "syncDir", "syncFS") > 0 || d.kinds("syncJournal") != 1 {
		t.Errorf("syncs of a small message: %v", d.steps)
	}
	deliver(t, v.Store, 2, largeMessage, threeBoxes...)
	if d.kinds("sync") != 1 || d.kinds("syncDir") != 1 || d.kinds("syncJournal") != 2 {
		t.Errorf("syncs of a large message too: %v", d.steps)
	}
	if left := filesIn(t, filepath.Join(v.data, "mail", draftsDir)); !slices.Equal(left, []string{messageID(2)}) {
		t.Errorf("drafts: %q, the journal needs that of the large message", left)
	}
	for _, copying := range []bool{false, true} {
		after := crashed(t, v.data)
		loseMailboxes(t, after)
		r := newServer(t, after)
		rd := r.steps
		rd.before = func(_ int, st step) error {
			if copying && (st.op == "link" || st.op == "rename" && filepath.Dir(st.to) != filepath.Dir(filepath.Dir(st.file)) && !strings.Contains(st.file, "/tmp/")) {
				return unix.EXDEV
			}
			return nil
		}
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
		for _, name := range threeBoxes {
			holds(t, "after the crash", after, name, smallMessage, largeMessage)
		}
		if lost := rd.losable(filepath.Join(after, "mail")); len(lost) > 0 || len(rd.unsynced) > 0 {
			t.Errorf("recovered and not synced: %q %v", lost, rd.unsynced)
		}
		if left := filesIn(t, filepath.Join(after, "mail", draftsDir)); len(left) > 0 {
			t.Errorf("drafts left: %q", left)
		}
	}
}

// TestReleaseLeavesNothing: after an end in order there is nothing to recover,
// and the store syncs by itself.
func TestReleaseLeavesNothing(t *testing.T) {
	v := freshServer(t)
	d := v.steps
	deliver(t, v.Store, 1, smallMessage, alice)
	deliver(t, v.Store, 2, largeMessage, alice)
	v.end(t)
	if lost := d.losable(filepath.Join(v.data, "mail")); len(lost) > 0 || len(d.unsynced) > 0 {
		t.Errorf("not synced at the end: %q %v", lost, d.unsynced)
	}
	if left := filesIn(t, filepath.Join(v.data, "mail", draftsDir)); len(left) > 0 {
		t.Errorf("drafts left: %q", left)
	}
	after := crashed(t, v.data)
	loseMailboxes(t, after) // an owner did that, no crash can
	startServer(t, after)
	holds(t, "nothing to recover", after, alice)
	deliver(t, v.Store, 3, otherMessage, alice)
	if d.kinds("sync") != 2 { // the draft before, this one now
		t.Errorf("a store without the journal does not sync: %v", d.steps)
	}
}

// kinds is how many steps there were of some kinds.
func (d *testDisk) kinds(ops ...string) (n int) {
	for _, s := range d.steps {
		if slices.Contains(ops, s.op) {
			n++
		}
	}
	return n
}

// hookedDisk calls a function before some steps; not while it holds a lock.
type hookedDisk struct {
	disk
	beforeOpenDir func(names []string) error
	beforeOpen    func(name string) error
	beforeSyncFS  func() error
	beforeJournal func()
	afterSyncDir  func() // of those with mail
}

func (d *hookedDisk) openDir(dir *os.File, names ...string) (*os.File, error) {
	if d.beforeOpenDir != nil {
		if err := d.beforeOpenDir(names); err != nil {
			return nil, err
		}
	}
	return d.disk.openDir(dir, names...)
}

func (d *hookedDisk) open(dir *os.File, name string) (*os.File, error) {
	if d.beforeOpen != nil {
		if err := d.beforeOpen(name); err != nil {
			return nil, err
		}
	}
	return d.disk.open(dir, name)
}

func (d *hookedDisk) syncFS(dir *os.File) error {
	if d.beforeSyncFS != nil {
		if err := d.beforeSyncFS(); err != nil {
			return err
		}
	}
	return d.disk.syncFS(dir)
}

func (d *hookedDisk) writeJournal(f *os.File, p []byte, off int64) error {
	if d.beforeJournal != nil {
		d.beforeJournal()
	}
	return d.disk.writeJournal(f, p, off)
}

func (d *hookedDisk) syncDir(dir *os.File) error {
	err := d.disk.syncDir(dir)
	if d.afterSyncDir != nil && !strings.Contains(dir.Name(), "/"+journalDir) {
		d.afterSyncDir()
	}
	return err
}

// TestFailureAtEachStepJournaled lets each single step of a delivery through the
// journal fail. Who gets an error has the message nowhere, now and after a crash;
// else it is everywhere, also after a crash that loses all that was not synced.
func TestFailureAtEachStepJournaled(t *testing.T) {
	for name, c := range map[string]struct {
		message         string
		copying, reader bool
		fault           error
	}{
		"small":              {smallMessage, false, false, unix.EIO},
		"small, disk full":   {smallMessage, false, false, unix.ENOSPC},
		"small, with reader": {smallMessage, false, true, unix.EIO},
		"small, copied":      {smallMessage, true, false, unix.EIO},
		"large":              {largeMessage, false, false, unix.EIO},
		"large, over quota":  {largeMessage, false, true, unix.EDQUOT},
		"large, copied":      {largeMessage, true, true, unix.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 0; failJournaledAt(t, n, c.message, c.copying, c.reader, c.fault); n++ {
				if n > 200 {
					t.Fatal("no end of steps")
				}
			}
		})
	}
}

// failJournaledAt delivers with step n failing, and reports whether there was one.
func failJournaledAt(t *testing.T, n int, message string, copying, reader bool, fault error) bool {
	v := freshServer(t)
	if err := v.CreateMailbox(context.Background(), threeBoxes[1]); err != nil {
		t.Fatal(err)
	}
	d := v.steps
	var failed *step
	d.before = func(k int, st step) error {
		if k == n {
			failed = &st
			return fault
		}
		fromDrafts := strings.Contains(st.file, draftsDir) && st.to != ""
		if copying && fromDrafts {
			return unix.EXDEV
		}
		return nil
	}
	d.after = func(st step) {
		if reader && filepath.Base(filepath.Dir(st.to)) == "new" {
			cur := filepath.Join(filepath.Dir(filepath.Dir(st.to)), "cur")
			rename(t, st.to, filepath.Join(cur, filepath.Base(st.to)+":2,S"))
		}
	}
	_, err := v.Deliver(context.Background(), messageID(1), threeBoxes, strings.NewReader(message))
	d.before, d.after = nil, nil
	if failed == nil {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	var want []string
	if err == nil {
		want = []string{message}
		if failed.op != "unlink" {
			t.Errorf("%s failed and Deliver did not", failed)
		}
	} else if errors.Is(err, ErrNoSpace) != (fault != unix.EIO) || !errors.Is(err, fault) {
		t.Errorf("%s failed, and the error is %v", failed, err)
	}
	for _, name := range threeBoxes {
		holds(t, failed.String()+" failed", v.data, name, want...)
	}
	deliver(t, v.Store, 2, otherMessage, alice) // the store works on
	for _, lose := range []bool{false, true} {
		after := crashed(t, v.data)
		if lose {
			loseMailboxes(t, after)
		}
		r := startServer(t, after)
		holds(t, failed.String()+" failed, crash", after, alice, append(want, otherMessage)...)
		for _, name := range threeBoxes[1:] {
			holds(t, failed.String()+" failed, crash", after, name, want...)
		}
		r.end(t)
	}
	return true
}
