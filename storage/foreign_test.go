package storage

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const foreignName = "1600000000.M1P2.elsewhere"

// TestForeignFiles puts things into cur/ between two messages of our own.
func TestForeignFiles(t *testing.T) {
	served := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) { put(t, path, content) }
	}
	for what, c := range map[string]struct {
		name string
		make func(t *testing.T, path string)
		want []string
	}{
		"plain":          {foreignName + ":2,S", served("a\nb\n"), []string{"a\r\nb\r\n"}},
		"without :2,":    {foreignName, served("a\nb\n"), []string{"a\r\nb\r\n"}},
		"CRLF":           {foreignName + ":2,", served("a\r\nb\r\n"), []string{"a\r\nb\r\n"}},
		"mixed ends":     {foreignName + ":2,", served("a\r\r\nb\rc"), []string{"a\r\nb\rc\r\n"}},
		"wrong size":     {foreignName + ",S=99,W=7:2,", served("a\n"), []string{"a\r\n"}},
		"right size":     {foreignName + ",S=2,W=3:2,", served("a\n"), []string{"a\r\n"}},
		"empty":          {foreignName + ",S=5:2,", served(""), []string{""}},
		"odd flags":      {foreignName + ":2,abcé", served("a\n"), []string{"a\r\n"}},
		"experimental":   {foreignName + ":1,x", served("a\n"), []string{"a\r\n"}},
		"odd name":       {"it's a\nfile \xff,S=,", served("a\n"), []string{"a\r\n"}},
		"only flags":     {":2,S", served("a\n"), []string{"a\r\n"}},
		"hidden":         {".hidden", served("a\n"), nil},
		"directory":      {foreignName, func(t *testing.T, path string) { put(t, path+"/file", "a\n") }, nil},
		"FIFO":           {foreignName, makeFIFO, nil},
		"socket":         {foreignName, makeSocket, nil},
		"symbolic link":  {foreignName, makeSymlink, nil},
		"our name, FIFO": {"1600000000." + messageID(9) + ".mx,S=1,W=2:2,", makeFIFO, nil},
		"our name, link": {"1600000000." + messageID(9) + ".mx,S=1,W=2:2,", makeSymlink, nil},
	} {
		t.Run(what, func(t *testing.T) {
			s, data := openStore(t)
			deliver(t, s, 1, "first\n", alice)
			deliver(t, s, 2, "second\n", alice)
			path := filepath.Join(boxDir(data, alice), "cur", c.name)
			c.make(t, path)
			want := append(slices.Clone(c.want), "first\r\n", "second\r\n")
			var ids []string
			for range 3 { // measured, from the index, and measured again
				m := openDrop(t, s, alice)
				if got := contents(t, m); !slices.Equal(got, want) {
					t.Errorf("maildrop has %q, want %q", got, want)
				}
				if ids != nil && !slices.Equal(ids, uidls(m)) {
					t.Errorf("unique-ids were %q, now %q", ids, uidls(m))
				}
				if ids != nil {
					os.RemoveAll(filepath.Join(data, "index"))
				}
				ids = uidls(m)
				for _, id := range ids {
					checkUIDL(t, id)
				}
				if info, err := s.Stat(context.Background(), alice); err != nil || info.Messages != len(want) {
					t.Errorf("Stat: %+v, %v", info, err)
				}
				m.Close()
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("another program's file was moved: %v", err)
			}
		})
	}
}

func makeFIFO(t *testing.T, path string) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeSocket(t *testing.T, path string) {
	if err := unix.Mknod(path, unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
}

// linked is in the file that makeSymlink leads to.
const linked = "not of this mailbox\n"

func makeSymlink(t *testing.T, path string) {
	target := filepath.Join(t.TempDir(), "target")
	put(t, target, linked)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// TestFileBecomesFIFO: what was a file at login must not hang the session.
func TestFileBecomesFIFO(t *testing.T) {
	for what, make := range map[string]func(*testing.T, string){"FIFO": makeFIFO, "link": makeSymlink} {
		s, data := openStore(t)
		deliver(t, s, 1, linked, alice) // as long as what the link leads to
		m := openDrop(t, s, alice)
		dir := filepath.Join(boxDir(data, alice), "new")
		path := filepath.Join(dir, only(t, dir))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		make(t, path)
		if r, err := m.Message(0); err == nil {
			r.Close()
			t.Errorf("%s opened as a message", what)
		}
	}
}

func TestUnreadableFiles(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "mine\n", alice)
	deliver(t, s, 2, "locked\n", alice)
	box := boxDir(data, alice)
	foreign := filepath.Join(box, "cur", foreignName)
	put(t, foreign, "secret\n")
	ours := filepath.Join(box, "new", filesIn(t, box+"/new")[1])
	asMortal(t, data, []string{foreign, ours}, func() {
		m := openDrop(t, s, alice)
		defer m.Close()
		if m.Len() != 2 {
			t.Fatalf("%d messages, want the two with our names", m.Len())
		}
		if got := content(t, m, 0); got != "mine\r\n" {
			t.Errorf("readable message is %q", got)
		}
		if r, err := m.Message(1); err == nil {
			r.Close()
			t.Error("unreadable message was read")
		}
	})
}

// asMortal runs fn as a user who may read everything below dir but not these
// files. Permissions do not hold root back, so root becomes another user, which
// Linux can do for one thread.
func asMortal(t *testing.T, dir string, unreadable []string, fn func()) {
	t.Helper()
	for _, f := range unreadable {
		if err := os.Chmod(f, 0); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() != 0 {
		fn()
		return
	}
	const nobody = 65534
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0)
	fn()
}

func TestIDsThatDifferInSizesOnly(t *testing.T) {
	s, data := openStore(t)
	cur := filepath.Join(boxDir(data, alice), "cur")
	put(t, filepath.Join(cur, "1.a,S=1:2,S"), "1\n")
	put(t, filepath.Join(cur, "1.a,S=2:2,"), "2\n")
	put(t, filepath.Join(cur, "1.a"), "3\n")
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	m := openDrop(t, s, alice)
	ids := uidls(m)
	if got := contents(t, m); len(got) != 3 {
		t.Errorf("maildrop has %q", got)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 3 {
		t.Errorf("unique-ids %q", ids)
	}
}

// What stands where a mailbox or a domain should be neither hangs nor misleads.
func TestNoDirectory(t *testing.T) {
	const bob = "bob@example.org"
	for what, make := range map[string]func(*testing.T, string){
		"FIFO": makeFIFO,
		"file": func(t *testing.T, path string) { put(t, path, "") },
		"link to a mailbox": func(t *testing.T, path string) {
			if err := os.Symlink(filepath.Base(boxDir("", alice)), path); err != nil {
				t.Fatal(err)
			}
		},
		"link to a domain": func(t *testing.T, path string) {
			if err := os.Rename(filepath.Dir(path), filepath.Dir(path)+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Base(filepath.Dir(path))+".real", filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s, data := openStore(t)
		deliver(t, s, 1, "first\n", alice)
		make(t, boxDir(data, bob))
		if _, err := s.Deliver(context.Background(), messageID(2), []string{alice, bob}, strings.NewReader("second\n")); err == nil {
			t.Errorf("%s: delivered", what)
		}
		if _, err := s.OpenMaildrop(context.Background(), bob); err == nil {
			t.Errorf("%s: opened", what)
		}
		if files, err := filepath.Glob(filepath.Join(data, "mail", "*", "*", "new", "*"+messageID(2)+"*")); err != nil || len(files) != 0 {
			t.Errorf("%s: %v, %v stay", what, files, err)
		}
	}
}

// atPlacing calls fn once, when the recovery or a checkpoint is about to put a file
// where it has found one, or none.
func atPlacing(v *server, fn func()) {
	done := false
	v.steps.before = func(_ int, st step) error {
		if st.op == "link" && !done {
			done = true
			fn()
		}
		return nil
	}
}

// TestRecoveryBesideReader: a reader moves or removes what the recovery has found,
// before it is replaced. In the end there is one file, and it is whole.
func TestRecoveryBesideReader(t *testing.T) {
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, alice)
	for name, c := range map[string]struct {
		lost bool // it is not there at first
		hand func(t *testing.T, file string)
		cur  bool // where it is at the end
	}{
		"moves a damaged one": {hand: func(t *testing.T, file string) { seen(t, file) }, cur: true},
		"removes a damaged one": {hand: func(t *testing.T, file string) {
			remove(t, file)
		}},
		"puts back a damaged one": {lost: true, hand: func(t *testing.T, file string) {
			put(t, filepath.Join(filepath.Dir(filepath.Dir(file)), "cur", filepath.Base(file)+":2,S"), "")
		}, cur: true},
	} {
		t.Run(name, func(t *testing.T) {
			data := crashed(t, before.data)
			file := fileOf(t, data, alice)
			truncate(t, file, 0)
			if c.lost {
				remove(t, file)
			}
			r := newServer(t, data)
			atPlacing(r, func() { c.hand(t, file) })
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			holds(t, "recovered", data, alice, smallMessage)
			if paths, _ := messagesOf(t, data, alice); len(paths) != 1 || strings.HasPrefix(paths[0], "cur/") != c.cur {
				t.Errorf("the message is now %q", paths)
			}
			if r.checkpointer.journal.Needed() {
				t.Error("the journal forgets nothing")
			}
		})
	}
}

// TestRewriteBesideReader: so it is while the server runs, and what others have
// removed stays away then.
func TestRewriteBesideReader(t *testing.T) {
	for name, c := range map[string]struct {
		early, hand func(t *testing.T, v *server, file string)
		want        []string
	}{
		"moved": {hand: func(t *testing.T, _ *server, file string) { seen(t, file) }, want: []string{smallMessage}},
		"removed before": {early: func(t *testing.T, _ *server, file string) {
			remove(t, file)
		}},
		"mailbox removed before": {early: func(t *testing.T, v *server, _ string) {
			removeAll(t, boxDir(v.data, alice))
		}},
		"mailbox removed by a command": {hand: func(t *testing.T, v *server, _ string) {
			if err := openStoreAt(t, v.data).RemoveMailbox(context.Background(), alice); err != nil {
				t.Fatal(err)
			}
		}},
		"no cur": {early: func(t *testing.T, v *server, _ string) {
			removeAll(t, filepath.Join(boxDir(v.data, alice), "cur"))
		}, want: []string{smallMessage}},
	} {
		t.Run(name, func(t *testing.T) {
			v := freshServer(t)
			deliver(t, v.Store, 1, smallMessage, alice, threeBoxes[1])
			file := fileOf(t, v.data, alice)
			old := stat(t, file)
			if c.early != nil {
				c.early(t, v, file)
			}
			if c.hand != nil {
				atPlacing(v, func() { c.hand(t, v, file) })
			}
			if err := v.rewrite(math.MaxUint64); err != nil {
				t.Fatal(err)
			}
			holds(t, "written again", v.data, alice, c.want...)
			holds(t, "written again", v.data, threeBoxes[1], smallMessage)
			if paths, _ := messagesOf(t, v.data, alice); len(paths) > 0 && sameFile(t, old, filepath.Join(boxDir(v.data, alice), paths[0])) {
				t.Error("the octets of a failed sync were trusted")
			}
			exists, _, err := v.MailboxExists(alice)
			if gone := len(c.want) == 0 && !strings.HasPrefix(name, "removed"); err != nil || exists == gone {
				t.Errorf("the mailbox exists: %t, %v", exists, err)
			}
		})
	}
}
