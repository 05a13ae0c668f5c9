package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// placing is whether a step puts a file of mail/.tmp into a mailbox.
func placing(st step) bool {
	return st.op == "rename" && strings.Contains(st.file, "/"+draftsDir+"/") && !strings.Contains(st.to, "/"+draftsDir+"/")
}

// TestRewriteKeepsWhatItCannotCopy: messages have to be written again to another file
// system, by copies, and that is full. The files that are there stay, so the next
// checkpoint finds and writes them.
func TestRewriteKeepsWhatItCannotCopy(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	v.hooks.beforeSyncFS = func() error {
		v.hooks.beforeSyncFS = nil
		return unix.EIO
	}
	full := true
	v.steps.before = func(_ int, st step) error {
		switch {
		case placing(st):
			return unix.EXDEV
		case full && st.op == "create" && filepath.Base(filepath.Dir(st.file)) == "tmp":
			return unix.ENOSPC
		}
		return nil
	}
	v.checkpoint(context.Background())
	holds(t, "while the disk is full", v.data, alice, smallMessage)
	full = false
	v.checkpoint(context.Background())
	holds(t, "when it has room", v.data, alice, smallMessage)
	if v.checkpointer.journal.Needed() {
		t.Error("the journal forgets nothing")
	}
}

// TestRecoveryOfTwoFiles: a message has two files, as a reader moved a damaged one.
// One stays, that which clients had, and whole, even if the reader gives it the other's
// name in the last moment.
func TestRecoveryOfTwoFiles(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	for name, c := range map[string]struct {
		also string // name of the second file, from that of the first in cur/
		hand bool   // the reader gives the file that stays the name of the other
		want string // end of the path
	}{
		"in new":              {also: "../new/%s", want: ":2,S"},
		"in new, moved there": {also: "../new/%s", hand: true, want: ""},
		"in cur":              {also: "%s:2,SR", want: ":2,S"},
		"in cur, moved there": {also: "%s:2,SR", hand: true, want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			data := crashed(t, before.data)
			file := fileOf(t, data, alice)
			base, cur := filepath.Base(file), filepath.Join(boxDir(data, alice), "cur")
			first, second := filepath.Join(cur, base+":2,S"), filepath.Join(cur, fmt.Sprintf(c.also, base))
			rename(t, file, first)
			put(t, second, withLineEnds(smallMessage, "\n"))
			r := newServer(t, data)
			r.steps.before = func(_ int, st step) error {
				if c.hand && st.op == "unlink" && filepath.Clean(st.file) == second {
					rename(t, first, second)
				}
				return nil
			}
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			holds(t, "recovered", data, alice, smallMessage)
			if paths, _ := messagesOf(t, data, alice); len(paths) != 1 || !strings.HasSuffix(paths[0], c.want) {
				t.Errorf("the message is now %q", paths)
			}
		})
	}
}

// TestRewriteOfTwoFiles: so it is while the server runs, and who removes the message
// is done with it.
func TestRewriteOfTwoFiles(t *testing.T) {
	for name, c := range map[string]struct {
		hand func(t *testing.T, first, second string)
		want []string
	}{
		"moved over the other": {hand: func(t *testing.T, first, second string) { rename(t, first, second) }, want: []string{smallMessage}},
		"mailbox removed": {hand: func(t *testing.T, first, _ string) {
			removeAll(t, filepath.Dir(filepath.Dir(first)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := freshServer(t)
			deliver(t, v.Store, 1, smallMessage, alice)
			first := seen(t, fileOf(t, v.data, alice))
			second := first + "R"
			put(t, second, withLineEnds(smallMessage, "\n"))
			v.steps.before = func(_ int, st step) error {
				if st.op == "unlink" && filepath.Clean(st.file) == second {
					c.hand(t, first, second)
				}
				return nil
			}
			if err := v.rewrite(math.MaxUint64); err != nil {
				t.Fatal(err)
			}
			holds(t, "written again", v.data, alice, c.want...)
		})
	}
}

// TestOneMessageInTheWay: a message that cannot be put where it belongs, for whatever
// reason, or cannot be looked at, does not keep the others from their mailboxes.
func TestOneMessageInTheWay(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	deliver(t, before.Store, 2, otherMessage, threeBoxes[1])
	for name, prepare := range map[string]func(r *server, file string){
		"it is not to be found when it is replaced": func(r *server, _ string) {
			r.steps.before = func(_ int, st step) error {
				if placing(st) && strings.Contains(st.to, messageID(1)) {
					return unix.ENOENT
				}
				return nil
			}
		},
		"a reader moves it all the time": func(r *server, file string) {
			seen := filepath.Join(boxDir(r.data, alice), "cur", filepath.Base(file)+":2,S")
			r.hooks.beforeOpen = func(name string) error {
				if name == filepath.Base(seen) {
					return os.Rename(seen, file)
				} else if name == filepath.Base(file) {
					return os.Rename(file, seen)
				}
				return nil
			}
		},
		"the disk does not let it be opened or replaced": func(r *server, _ string) {
			r.hooks.beforeOpen = func(name string) error {
				if strings.Contains(name, messageID(1)) {
					return unix.EIO
				}
				return nil
			}
			r.steps.before = func(_ int, st step) error {
				if placing(st) && strings.Contains(st.to, messageID(1)) {
					return unix.EIO
				}
				return nil
			}
		},
		"the disk lets its mailbox be neither listed nor changed": func(r *server, _ string) {
			listing := false
			r.hooks.beforeOpenDir = func(names []string) error {
				err := noMailbox(alice)(names)
				if err != nil && names[2] == "new" {
					if listing = !listing; !listing { // it opens when a file is to be placed there
						err = nil
					}
				}
				return err
			}
			r.steps.before = func(_ int, st step) error {
				if placing(st) && strings.Contains(st.to, boxDir("", alice)) {
					return unix.EIO
				}
				return nil
			}
		},
		"the disk does not let its mailbox be opened": func(r *server, _ string) {
			r.hooks.beforeOpenDir = noMailbox(alice)
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := crashed(t, before.data)
			file := fileOf(t, data, alice)
			truncate(t, file, 0)
			removeAll(t, boxDir(data, threeBoxes[1]))
			r := newServer(t, data)
			prepare(r, file)
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			r.steps.before, r.steps.after, r.hooks.beforeOpen, r.hooks.beforeOpenDir = nil, nil, nil, nil
			holds(t, "beside it", data, threeBoxes[1], otherMessage)
			dir := filepath.Join(data, unplacedDir)
			aside, err := os.ReadFile(filepath.Join(dir, only(t, dir)))
			if err != nil || string(aside) != withLineEnds(smallMessage, "\n") {
				t.Errorf("put aside: %q, %v", aside, err)
			}
			if log := r.log.String(); strings.Count(log, "put aside") != 1 {
				t.Errorf("the log says %s", log)
			}
			if r.checkpointer.journal.Needed() {
				t.Error("the journal forgets nothing")
			}
		})
	}
}

// TestRewriteByCopyBesideRemoval: the mailbox is removed while its messages are written
// again by copies. It does not come back.
func TestRewriteByCopyBesideRemoval(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	removed := false
	v.steps.before = func(_ int, st step) error {
		if !placing(st) {
			return nil
		}
		if !removed {
			removed = true
			if err := openStoreAt(t, v.data).RemoveMailbox(context.Background(), alice); err != nil {
				t.Error(err)
			}
		}
		return unix.EXDEV
	}
	if err := v.rewrite(math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	if exists, _, err := v.MailboxExists(alice); exists || err != nil || !removed {
		t.Errorf("the mailbox exists: %t, %v", exists, err)
	}
}

// TestHiddenLate: that a message which readers move is missing from one listing does not
// mean that it was removed, however late that is.
func TestHiddenLate(t *testing.T) {
	v := newServer(t, filepath.Join(t.TempDir(), "data"))
	replays, file, hidden := 0, "", filepath.Join(v.data, "hidden")
	v.Store.journalOptions.Read = func(f *os.File, p []byte, off int64) (int, error) {
		switch replays++; {
		case file == "":
		case replays == 1+surelyGone: // the first was to learn
			rename(t, file, hidden)
		case replays == 2+surelyGone: // it was listed without the file
			rename(t, hidden, file)
		}
		return f.ReadAt(p, off)
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	deliver(t, v.Store, 1, smallMessage, alice)
	file = fileOf(t, v.data, alice)
	old := stat(t, file)
	v.hooks.beforeOpen = func(string) error {
		if replays <= surelyGone {
			return unix.ENOENT
		}
		return nil
	}
	replays = 0
	if err := v.rewrite(math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	holds(t, "written again", v.data, alice, smallMessage)
	if sameFile(t, old, file) || replays < 3+surelyGone {
		t.Errorf("the message was not written again, in %d readings of the journal", replays)
	}
}

// TestRewriteKnowsRefusals: a message was refused, and the journal could not be told of
// that. A rewrite, which cannot see the mailbox, does not deliver it.
func TestRewriteKnowsRefusals(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	v.checkpoint(context.Background())
	broken, untold, unsynced := false, true, true
	v.hooks.beforeOpenDir = func(names []string) error {
		if broken {
			return noMailbox(alice)(names)
		}
		return nil
	}
	v.steps.before = func(_ int, st step) error {
		switch {
		case st.op == "rename" && strings.Contains(st.file, messageID(2)):
			broken = true
			return unix.EIO
		case broken && untold && st.op == "syncJournal":
			untold = false
			return unix.EIO
		}
		return nil
	}
	v.hooks.beforeSyncFS = func() error {
		if unsynced {
			unsynced = false
			return unix.EIO
		}
		return nil
	}
	if _, err := v.Deliver(context.Background(), messageID(2), []string{alice}, strings.NewReader(otherMessage)); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := v.checkpoint(context.Background()); err != nil || unsynced || untold {
		t.Fatal("not the case that is meant: ", err, unsynced, untold)
	}
	broken = false
	holds(t, "refused", v.data, alice, smallMessage)
	if _, err := os.Stat(filepath.Join(v.data, unplacedDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was put aside: %v", err)
	}
}

// TestFenceIsACheckpoint: when only the record of the last checkpoint fails once, the end is
// one in order.
func TestFenceIsACheckpoint(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	failed := false
	v.steps.before = func(_ int, st step) error {
		if st.op == "syncJournal" && !failed {
			failed = true
			return unix.EIO
		}
		return nil
	}
	if v.end(t) || !failed {
		t.Error("nothing is left, and the end says that something is; or nothing failed")
	}
}
