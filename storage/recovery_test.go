package storage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// damages is what a crash, or somebody in the time of it, may do to a message
// that was delivered to threeBoxes.
var damages = map[string]struct {
	do     func(t testing.TB, data string)
	aside  []string // mailboxes that cannot be opened: the message is put aside
	log    string   // part of what the log says
	onlyOf string   // "small" or "large" if it is about one of them
}{
	"nothing": {},
	"missing": {do: func(t testing.TB, data string) { remove(t, fileOf(t, data, alice)) }},
	"missing everywhere": {do: func(t testing.TB, data string) {
		for _, name := range threeBoxes {
			remove(t, fileOf(t, data, name))
		}
	}},
	"empty everywhere": {do: func(t testing.TB, data string) { truncate(t, fileOf(t, data, alice), 0) }, onlyOf: "small"},
	"cut short":        {do: func(t testing.TB, data string) { truncate(t, own(t, fileOf(t, data, alice)), 17) }},
	"too long":         {do: func(t testing.TB, data string) { truncate(t, own(t, fileOf(t, data, alice)), 1<<20) }},
	"other octets":     {do: func(t testing.TB, data string) { scramble(t, own(t, fileOf(t, data, alice))) }},
	"other last octet": {do: func(t testing.TB, data string) { scrambleLast(t, own(t, fileOf(t, data, alice))) }},
	"moved and whole":  {do: func(t testing.TB, data string) { seen(t, fileOf(t, data, alice)) }},
	"moved and damaged": {do: func(t testing.TB, data string) {
		scramble(t, own(t, seen(t, fileOf(t, data, alice))))
	}},
	"moved and empty": {do: func(t testing.TB, data string) {
		truncate(t, own(t, seen(t, fileOf(t, data, alice))), 0)
	}},
	"a symlink": {do: func(t testing.TB, data string) {
		file := fileOf(t, data, alice)
		rename(t, file, filepath.Join(data, "elsewhere"))
		if err := os.Symlink(filepath.Join(data, "elsewhere"), file); err != nil {
			t.Fatal(err)
		}
	}},
	"some damaged": {do: func(t testing.TB, data string) {
		scramble(t, own(t, fileOf(t, data, threeBoxes[0])))
		truncate(t, own(t, seen(t, fileOf(t, data, threeBoxes[1]))), 3)
	}},
	"no mailbox": {do: func(t testing.TB, data string) { removeAll(t, boxDir(data, alice)) }},
	"no domain":  {do: func(t testing.TB, data string) { removeAll(t, filepath.Dir(boxDir(data, alice))) }},
	"no new":     {do: func(t testing.TB, data string) { removeAll(t, filepath.Join(boxDir(data, alice), "new")) }},
	"no cur and damaged": {do: func(t testing.TB, data string) {
		removeAll(t, filepath.Join(boxDir(data, alice), "cur"))
		scramble(t, own(t, fileOf(t, data, alice)))
	}},
	"mailbox is a symlink": {do: func(t testing.TB, data string) {
		rename(t, boxDir(data, alice), filepath.Join(data, "elsewhere"))
		if err := os.Symlink(filepath.Join(data, "elsewhere"), boxDir(data, alice)); err != nil {
			t.Fatal(err)
		}
	}, aside: []string{alice}, log: "put aside"},
	"mailbox is a file": {do: func(t testing.TB, data string) {
		removeAll(t, boxDir(data, alice))
		put(t, boxDir(data, alice), "x")
	}, aside: []string{alice}, log: "put aside"},
	"domain is a file": {do: func(t testing.TB, data string) {
		removeAll(t, filepath.Dir(boxDir(data, alice)))
		put(t, filepath.Dir(boxDir(data, alice)), "x")
	}, aside: []string{alice, threeBoxes[1]}, log: "put aside"},
	"a directory has the name": {do: func(t testing.TB, data string) {
		file := fileOf(t, data, alice)
		remove(t, file)
		put(t, filepath.Join(file, "x"), "x")
	}, aside: []string{alice}, log: "put aside"},
	"draft is missing": {do: func(t testing.TB, data string) {
		remove(t, filepath.Join(data, "mail", draftsDir, messageID(1)))
	}, onlyOf: "large"},
	"draft is damaged": {do: func(t testing.TB, data string) {
		for _, name := range threeBoxes {
			own(t, fileOf(t, data, name))
		}
		scramble(t, filepath.Join(data, "mail", draftsDir, messageID(1)))
	}, onlyOf: "large"},
}

// TestRecovery damages what a crash may damage. After the next start, and the one
// after that, each mailbox has the message once and whole.
func TestRecovery(t *testing.T) {
	for kind, message := range map[string]string{"small": smallMessage, "large": largeMessage} {
		before := freshServer(t)
		deliver(t, before.Store, 1, message, threeBoxes...)
		for name, c := range damages {
			if c.onlyOf != "" && c.onlyOf != kind {
				continue
			}
			t.Run(kind+", "+name, func(t *testing.T) {
				data := crashed(t, before.data)
				if c.do != nil {
					c.do(t, data)
				}
				for range 2 {
					r := startServer(t, data)
					checkRecovered(t, data, message, c.aside)
					if log := r.log.String(); !strings.Contains(log, c.log) && !strings.Contains(r.log.String(), c.log) {
						t.Errorf("the log says %s", log)
					}
					c.log = "" // the second start has nothing to say
					if left := filesIn(t, filepath.Join(data, "mail", draftsDir)); len(left) > 0 {
						t.Errorf("drafts left: %q", left)
					}
					r.end(t)
				}
			})
		}
	}
}

// checkRecovered checks that each mailbox has the message, or that it is put
// aside.
func checkRecovered(t testing.TB, data, message string, aside []string) {
	t.Helper()
	for _, name := range threeBoxes {
		isAside := false
		for _, a := range aside {
			isAside = isAside || a == name
		}
		if !isAside {
			holds(t, "recovered", data, name, message)
		}
	}
	files, _ := os.ReadDir(filepath.Join(data, unplacedDir))
	if len(files) != len(aside) {
		t.Errorf("%d messages put aside, want %d", len(files), len(aside))
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(data, unplacedDir, f.Name()))
		if err != nil || string(b) != withLineEnds(message, "\n") {
			t.Errorf("put aside: %d octets, %v", len(b), err)
		}
	}
}

// TestRecoveryKeepsFlags: what a reader has said of a message stays.
func TestRecoveryKeepsFlags(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, threeBoxes...)
	data := crashed(t, before.data)
	scramble(t, own(t, seen(t, fileOf(t, data, alice))))
	startServer(t, data)
	if paths, _ := messagesOf(t, data, alice); len(paths) != 1 || !strings.HasPrefix(paths[0], "cur/") || !strings.HasSuffix(paths[0], ":2,FS") {
		t.Errorf("the message is now %q", paths)
	}
}

// TestRecoveryWithoutDraft: the octets of a large message are nowhere. The start
// goes on, and says so.
func TestRecoveryWithoutDraft(t *testing.T) {
	for name, lose := range map[string]func(t testing.TB, file string){"missing": remove, "damaged": scramble} {
		before := freshServer(t)
		deliver(t, before.Store, 1, largeMessage, threeBoxes...)
		deliver(t, before.Store, 2, smallMessage, threeBoxes...)
		data := crashed(t, before.data)
		loseMailboxes(t, data)
		lose(t, filepath.Join(data, "mail", draftsDir, messageID(1)))
		r := startServer(t, data)
		for _, box := range threeBoxes {
			holds(t, "draft "+name, data, box, smallMessage)
		}
		if n := strings.Count(r.log.String(), "a message is lost"); n != len(threeBoxes) {
			t.Errorf("draft %s: lost %d times in %s", name, n, r.log)
		}
	}
}

// TestRecoverySeesDamagedDraft: that a file is the draft does not say that its
// octets are right.
func TestRecoverySeesDamagedDraft(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, largeMessage, alice)
	data := crashed(t, before.data)
	draft := filepath.Join(data, "mail", draftsDir, messageID(1))
	if !sameFile(t, stat(t, draft), fileOf(t, data, alice)) {
		t.Fatal("the mailbox has another file than the draft")
	}
	scramble(t, draft)
	if log := startServer(t, data).log.String(); !strings.Contains(log, "a message is lost") {
		t.Errorf("the log says %s", log)
	}
}

// TestRecoveryInterrupted lets a recovery end at each of its steps, by an error
// there, or with the disk gone from there on. The next one completes it.
func TestRecoveryInterrupted(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, threeBoxes...)
	deliver(t, before.Store, 2, largeMessage, threeBoxes...)
	deliver(t, before.Store, 3, otherMessage, threeBoxes...)
	m := openDrop(t, before.Store, alice)
	back := filepath.Join(boxDir(before.data, alice), "new", m.msgs[2].name)
	if n, err := m.Remove(context.Background(), []int{2}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	damaged := crashed(t, before.data)
	put(t, filepath.Join(boxDir(damaged, alice), "new", filepath.Base(back)), withLineEnds(otherMessage, "\n"))
	bob := boxDir(damaged, threeBoxes[1])
	paths, _ := messagesOf(t, damaged, threeBoxes[1])
	scramble(t, own(t, seen(t, filepath.Join(bob, paths[0]))))
	remove(t, filepath.Join(bob, paths[1]))
	removeAll(t, filepath.Dir(boxDir(damaged, threeBoxes[2])))
	for _, dead := range []bool{false, true} {
		steps := 0
		for n, more := 0, true; more; n++ {
			data := crashed(t, damaged)
			r := newServer(t, data)
			d := r.steps
			failed := step{op: "nothing"}
			opened, spare := false, false
			d.before = func(k int, st step) error {
				// Until the first record is done again, only what the journal has is needed.
				opened = opened || !strings.Contains(st.file, "/"+journalDir+"/")
				if k == n {
					spare = !opened && filepath.Base(st.file) != "segment-0"
				}
				if k == n || dead && k > n {
					failed = st
					return unix.EIO
				}
				return nil
			}
			err := r.start()
			more = failed.op != "nothing"
			if err == nil && more && failed.op != "unlink" && !spare {
				t.Errorf("step %d, %s, failed and the start did not", n, failed)
			}
			d.before = nil
			r.end(t)
			what := failed.String() + " failed"
			again := startServer(t, data)
			holds(t, what, data, alice, smallMessage, largeMessage)
			for _, name := range threeBoxes[1:] {
				holds(t, what, data, name, smallMessage, largeMessage, otherMessage)
			}
			again.end(t)
			steps = n
		}
		if steps < 15 {
			t.Errorf("%d steps only", steps)
		}
	}
}

// TestRecoveryOfRemovals: what was removed does not come back, who ever removed it,
// neither from the journal nor as a file that a crash has brought back.
func TestRecoveryOfRemovals(t *testing.T) {
	before := freshServer(t)
	other := openStoreAt(t, before.data)
	for n := range 4 {
		deliver(t, before.Store, n, smallMessage, alice)
	}
	deliver(t, before.Store, 4, largeMessage, alice)
	deliver(t, before.Store, 5, otherMessage, alice)
	full := crashed(t, before.data)
	for _, c := range []struct {
		by *Store
		i  []int
	}{{before.Store, []int{0, 1}}, {other, []int{0, 2}}} {
		m := openDrop(t, c.by, alice)
		if n, err := m.Remove(context.Background(), c.i); n != len(c.i) || err != nil {
			t.Fatal(n, err)
		}
		m.Close()
	}
	for _, back := range []bool{false, true} {
		data := crashed(t, before.data)
		if back {
			removeAll(t, filepath.Join(data, "mail"))
			rename(t, filepath.Join(crashed(t, full), "mail"), filepath.Join(data, "mail"))
		}
		startServer(t, data)
		holds(t, "after removals", data, alice, smallMessage, otherMessage)
		if notes := filesIn(t, filepath.Join(data, notesDir)); len(notes) > 0 {
			t.Errorf("notes left: %q", notes)
		}
	}
	before.checkpoint(context.Background())
	if notes := filesIn(t, filepath.Join(before.data, notesDir)); len(notes) > 0 {
		t.Errorf("notes left by a checkpoint: %q", notes)
	}
}

// TestRecoveryOfRemovedMailbox: the removal of a mailbox by another process is for
// good, and does not touch what is delivered after it, be it in the middle of it.
func TestRecoveryOfRemovedMailbox(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, threeBoxes...)
	deliver(t, v.Store, 2, largeMessage, alice)
	seen(t, fileOf(t, v.data, threeBoxes[1]))
	other := openStoreAt(t, v.data)
	n := 10
	other.disk = &hookedDisk{disk: other.disk, afterSyncDir: func() { // the old one is out of sight
		n++
		deliver(t, v.Store, n, otherMessage, threeBoxes[:2]...)
	}}
	for _, name := range []string{alice, threeBoxes[1]} {
		if err := other.RemoveMailbox(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, lose := range []bool{false, true} {
		data := crashed(t, v.data)
		if lose {
			loseMailboxes(t, data)
		}
		startServer(t, data)
		holds(t, "removed before", data, alice, otherMessage, otherMessage)
		holds(t, "removed before", data, threeBoxes[1], otherMessage)
		holds(t, "not removed", data, threeBoxes[2], smallMessage)
	}
}

// TestRemovedBeforeRecovery: after a crash and before the next start, the journal
// may have mail for a mailbox that is not in it. Its removal takes that along.
func TestRemovedBeforeRecovery(t *testing.T) {
	for _, missing := range []bool{false, true} {
		v := freshServer(t)
		deliver(t, v.Store, 1, smallMessage, threeBoxes...)
		deliver(t, v.Store, 2, largeMessage, threeBoxes...)
		data := crashed(t, v.data)
		remove(t, filepath.Join(boxDir(data, alice), "new", messageNames(t, data, alice)[0]))
		if missing {
			loseMailboxes(t, data)
		}
		other := openStoreAt(t, data)
		if err := other.RemoveMailbox(context.Background(), alice); err != nil {
			t.Fatal(err)
		}
		deliver(t, other, 3, otherMessage, alice)
		startServer(t, data)
		holds(t, "removed before", data, alice, otherMessage)
		holds(t, "not removed", data, threeBoxes[1], smallMessage, largeMessage)
	}
}

// TestRemovalCutOff: a command that was killed after the mailbox was out of sight,
// and given again, leaves nothing that comes back.
func TestRemovalCutOff(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, threeBoxes...)
	a, err := parseAddress(alice)
	if err != nil {
		t.Fatal(err)
	}
	rename(t, boxDir(v.data, alice), filepath.Join(v.data, "mail", draftsDir, removedPrefix+a.digest()))
	if err := openStoreAt(t, v.data).RemoveMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	data := crashed(t, v.data)
	startServer(t, data)
	holds(t, "removed", data, alice)
	holds(t, "not removed", data, threeBoxes[1], smallMessage)
}

// TestCheckpointForgets: what is older than a checkpoint is not done again.
func TestCheckpointForgets(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, threeBoxes...)
	deliver(t, v.Store, 2, largeMessage, threeBoxes...)
	v.checkpoint(context.Background())
	if left := filesIn(t, filepath.Join(v.data, "mail", draftsDir)); len(left) > 0 {
		t.Errorf("drafts left: %q", left)
	}
	deliver(t, v.Store, 3, otherMessage, alice)
	data := crashed(t, v.data)
	loseMailboxes(t, data)
	startServer(t, data)
	holds(t, "after a checkpoint", data, alice, otherMessage)
	holds(t, "after a checkpoint", data, threeBoxes[1])
}

// TestAsideWithLongName: the longest names that there are still can be put aside.
func TestAsideWithLongName(t *testing.T) {
	before := freshServer(t)
	before.host = safeHost(strings.Repeat("h", 300))
	long := strings.Repeat("l", 255) + "@" + strings.Repeat("d", 255)
	deliver(t, before.Store, 1, smallMessage, long)
	data := crashed(t, before.data)
	removeAll(t, boxDir(data, long))
	put(t, boxDir(data, long), "x")
	startServer(t, data)
	only(t, filepath.Join(data, unplacedDir))
}

// TestDamagedNote: it is reported, and does not stay.
func TestDamagedNote(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	data := crashed(t, before.data)
	put(t, filepath.Join(data, notesDir, "A"), "what is this")
	r := startServer(t, data)
	holds(t, "damaged note", data, alice, smallMessage)
	if log := r.log.String(); !strings.Contains(log, "a note beside the journal cannot be read") {
		t.Errorf("the log says %s", log)
	}
	if notes := filesIn(t, filepath.Join(data, notesDir)); len(notes) > 0 {
		t.Errorf("left: %q", notes)
	}
}
