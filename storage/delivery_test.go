package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

const message = "Subject: greetings\r\n\r\nbare\rCR, bare\nLF, last line without end"

var threeBoxes = []string{alice, "bob@example.org", "carol@example.net"}

func TestDeliverAndFetch(t *testing.T) {
	s, data := openStore(t)
	for n, c := range lineEndExamples {
		size, err := s.Deliver(context.Background(), messageID(n), []string{alice}, iotest.OneByteReader(strings.NewReader(c.in)))
		if want := int64(len(withLineEnds(c.in, "\n"))); err != nil || size != want {
			t.Errorf("%q takes %d octets, %v, want %d", c.in, size, err, want)
		}
	}
	m := openDrop(t, s, alice)
	got := contents(t, m)
	if len(got) != len(lineEndExamples) {
		t.Fatalf("%d messages of %d", len(got), len(lineEndExamples))
	}
	for i, c := range lineEndExamples {
		if got[i] != c.wire {
			t.Errorf("%q came back as %q", c.in, got[i])
		}
	}
	if left := filesIn(t, filepath.Join(data, "mail", draftsDir)); len(left) > 0 {
		t.Errorf("drafts left: %q", left)
	}
	if index := filesIn(t, filepath.Join(data, "index")); len(index) > 0 {
		t.Errorf("index needed for our own files: %q", index)
	}
}

func TestDeliverLargeMessage(t *testing.T) {
	s, _ := openStore(t)
	large := strings.Repeat(strings.Repeat("0123456789", 9)+"\r\n", 20_000)
	deliver(t, s, 1, large, alice)
	if got := contents(t, openDrop(t, s, alice)); got[0] != large {
		t.Error("message came back different")
	}
}

func TestDeliverToSeveral(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, message, append(threeBoxes, alice)...)
	var first os.FileInfo
	for _, name := range threeBoxes {
		dir := filepath.Join(boxDir(data, name), "new")
		st, err := os.Stat(filepath.Join(dir, only(t, dir)))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = st
		}
		if !os.SameFile(first, st) || st.Mode() != 0o600 {
			t.Errorf("%s: mode %s, shared %t", name, st.Mode(), os.SameFile(first, st))
		}
		if got := contents(t, openDrop(t, s, name)); !slices.Equal(got, []string{wireForm(message)}) {
			t.Errorf("%s has %q", name, got)
		}
	}
}

func TestDeliverRefuses(t *testing.T) {
	s, data := openStore(t)
	to := []string{alice}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	broken := errors.New("connection lost")
	cut := io.MultiReader(strings.NewReader(message), iotest.ErrReader(broken))
	for what, c := range map[string]struct {
		ctx  context.Context
		id   string
		to   []string
		r    io.Reader
		want error
	}{
		"read error":   {context.Background(), messageID(1), to, cut, broken},
		"canceled":     {canceled, messageID(1), to, strings.NewReader(message), context.Canceled},
		"short id":     {context.Background(), "abc", to, strings.NewReader(message), nil},
		"path as id":   {context.Background(), "../../../../etcx", to, strings.NewReader(message), nil},
		"no mailboxes": {context.Background(), messageID(1), nil, strings.NewReader(message), nil},
		"bad mailbox":  {context.Background(), messageID(1), []string{alice, "../x@y"}, strings.NewReader(message), nil},
	} {
		size, err := s.Deliver(c.ctx, c.id, c.to, c.r)
		if err == nil || size != 0 || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v", what, size, err)
		}
	}
	if left := filesIn(t, filepath.Join(data, "mail")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestSameIDTwice(t *testing.T) {
	s, data := openStore(t)
	d := newTestDisk(t, s)
	deliver(t, s, 1, message, alice)
	taken := only(t, filepath.Join(boxDir(data, alice), "new"))
	// The second comes within another second, perhaps: it meets the same name.
	d.before = func(_ int, st step) error {
		if st.op == "link" {
			return &os.LinkError{Op: "link", Old: st.file, New: st.to, Err: unix.EEXIST}
		}
		return nil
	}
	if _, err := s.Deliver(context.Background(), messageID(1), []string{alice}, strings.NewReader(message)); !errors.Is(err, os.ErrExist) {
		t.Errorf("delivered onto another message: %v", err)
	}
	if got := only(t, filepath.Join(boxDir(data, alice), "new")); got != taken {
		t.Errorf("%s was there, now %s", taken, got)
	}
}

// TestCommitOrder checks the argument of the package comment: no entry without
// its octets (the disk of the test watches that), and on success nothing on the
// path to the message that a crash could lose.
func TestCommitOrder(t *testing.T) {
	for _, link := range []error{nil, unix.EXDEV, unix.EPERM, unix.EMLINK, unix.EOPNOTSUPP} {
		s, data := openStore(t)
		d := newTestDisk(t, s)
		d.before = func(_ int, st step) error {
			if st.op == "link" {
				return link
			}
			return nil
		}
		for n := range 3 {
			deliver(t, s, n, message, threeBoxes...)
			if lost := d.losable(filepath.Join(data, "mail")); len(lost) > 0 {
				t.Errorf("link: %v: a crash after delivery %d may lose %q", link, n, lost)
			}
		}
		for _, name := range threeBoxes {
			if got := contents(t, openDrop(t, s, name)); len(got) != 3 || got[0] != wireForm(message) {
				t.Errorf("link: %v: %s has %q", link, name, got)
			}
			if tmp := filesIn(t, filepath.Join(boxDir(data, name), "tmp")); len(tmp) > 0 {
				t.Errorf("link: %v: left in tmp: %q", link, tmp)
			}
		}
	}
}

// TestSyncsDirectoriesOfOthers: a mailbox that another process has just made is
// perhaps not on stable storage.
func TestSyncsDirectoriesOfOthers(t *testing.T) {
	s, data := openStore(t)
	box := boxDir(data, alice)
	parents := []string{box, filepath.Dir(box), filepath.Join(data, "mail")}
	make := func() {
		for _, sub := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(box, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	make()
	d := newTestDisk(t, s)
	for n, want := range []int{1, 2} {
		deliver(t, s, n, message, alice)
		for _, p := range parents {
			if got := d.count("syncDir", p); got != want {
				t.Errorf("delivery %d: %s synced %d times, want %d", n, p, got, want)
			}
		}
	}
}

// TestFailureAtEachStep lets each single step of a delivery fail, once with
// linking and once with copying, and with a reader that moves what it sees. Then
// nobody may have the message; or everybody, if Deliver returns nil.
func TestFailureAtEachStep(t *testing.T) {
	for name, c := range map[string]struct{ copying, reader bool }{
		"link":              {false, false},
		"copy":              {true, false},
		"link, with reader": {false, true},
		"copy, with reader": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; failAt(t, n, c.copying, c.reader); n++ {
				if n > 200 {
					t.Fatal("no end of steps")
				}
			}
		})
	}
}

// failAt delivers with step n failing, and reports whether there was a step n.
func failAt(t *testing.T, n int, copying, reader bool) bool {
	s, data := openStore(t)
	if err := s.CreateMailbox(context.Background(), threeBoxes[1]); err != nil {
		t.Fatal(err)
	}
	d := newTestDisk(t, s)
	var failed *step
	d.before = func(k int, st step) error {
		if k == n {
			failed = &st
			return unix.EIO
		}
		if copying && st.op == "link" {
			return unix.EXDEV
		}
		return nil
	}
	d.after = func(st step) {
		if reader && st.to != "" {
			cur := filepath.Join(filepath.Dir(filepath.Dir(st.to)), "cur")
			rename(t, st.to, filepath.Join(cur, filepath.Base(st.to)+":2,S"))
		}
	}
	_, err := s.Deliver(context.Background(), messageID(1), threeBoxes, strings.NewReader(message))
	if failed == nil {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	d.before, d.after = nil, nil
	want := 0
	if err == nil {
		want = 1
		if failed.op != "unlink" {
			t.Errorf("%s failed and Deliver did not", failed)
		}
	} else if !errors.Is(err, unix.EIO) {
		t.Errorf("%s failed, and the error is %v", failed, err)
	}
	for _, name := range threeBoxes {
		var got int
		for _, sub := range []string{"new", "cur"} {
			dir := filepath.Join(boxDir(data, name), sub)
			if _, err := os.Stat(dir); err == nil {
				got += len(filesIn(t, dir))
			}
		}
		if got != want {
			t.Errorf("%s failed: %s has %d messages, want %d (%v)", failed, name, got, want, err)
		}
	}
	if lost := d.losable(filepath.Join(data, "mail")); err == nil && len(lost) > 0 {
		t.Errorf("%s failed: a crash may lose %q", failed, lost)
	}
	return true
}

// TestDiskDies lets everything fail from each step on, as a power cut does: what
// can be seen then is whole, and start-up and the next delivery work.
func TestDiskDies(t *testing.T) {
	for n, more := 0, true; more; n++ {
		s, data := openStore(t)
		d := newTestDisk(t, s)
		d.before = func(k int, _ step) error {
			if k >= n {
				return unix.EIO
			}
			return nil
		}
		_, err := s.Deliver(context.Background(), messageID(1), threeBoxes, strings.NewReader(message))
		more = err != nil
		after := openStoreAt(t, data)
		release, err := after.LockServer()
		if err != nil {
			t.Fatal(err)
		}
		if drafts := filesIn(t, filepath.Join(data, "mail", draftsDir)); len(drafts) > 0 {
			t.Errorf("dead from step %d: drafts left %q", n, drafts)
		}
		deliver(t, after, 2, message, threeBoxes...)
		for _, name := range threeBoxes {
			for _, got := range contents(t, openDrop(t, after, name)) {
				if got != wireForm(message) {
					t.Errorf("dead from step %d: %s has %q", n, name, got)
				}
			}
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
}
