package storage

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// step is one change of the file system on the way of a message.
type step struct {
	op   string
	file string // full path of what is changed
	to   string // new path, for link and rename
}

func (s step) String() string { return s.op + " " + filepath.Base(s.file) }

// testDisk does what the system's disk does, unless before says that a step
// fails. It also knows, in the worst case, what a crash would leave: octets that
// were not synced and entries of directories that were not synced are lost,
// though they may as well be kept.
type testDisk struct {
	t      *testing.T
	before func(n int, s step) error
	after  func(s step)
	// journal is whether the store that is tested has the journal.
	journal bool

	mu       sync.Mutex
	steps    []step
	unsynced map[string]bool   // files with octets that a crash may lose
	entries  map[string]string // entry that a crash may lose -> its directory
}

func newTestDisk(t *testing.T, s *Store) *testDisk {
	d := &testDisk{t: t, unsynced: make(map[string]bool), entries: make(map[string]string)}
	s.disk = d
	return d
}

// do runs fn as one step, if the test lets it.
func (d *testDisk) do(s step, fn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.steps)
	d.steps = append(d.steps, s)
	if d.before != nil {
		if err := d.before(n, s); err != nil {
			return err
		}
	}
	err := fn()
	if err == nil && d.after != nil {
		d.after(s)
	}
	return err
}

// openDir and open change nothing, so they are no steps.
func (d *testDisk) openDir(dir *os.File, names ...string) (*os.File, error) {
	return osDisk{}.openDir(dir, names...)
}

func (d *testDisk) open(dir *os.File, name string) (*os.File, error) { return osDisk{}.open(dir, name) }

func (d *testDisk) create(dir *os.File, name string) (f *os.File, err error) {
	p := path.Join(dir.Name(), name)
	err = d.do(step{op: "create", file: p}, func() error {
		f, err = osDisk{}.create(dir, name)
		return err
	})
	return f, err
}

func (d *testDisk) write(f *os.File, p []byte) (n int, err error) {
	err = d.do(step{op: "write", file: f.Name()}, func() error {
		d.unsynced[f.Name()] = true
		n, err = osDisk{}.write(f, p)
		return err
	})
	return n, err
}

func (d *testDisk) sync(f *os.File) error {
	return d.do(step{op: "sync", file: f.Name()}, func() error {
		delete(d.unsynced, f.Name())
		return nil
	})
}

func (d *testDisk) syncDir(dir *os.File) error {
	return d.do(step{op: "syncDir", file: dir.Name()}, func() error {
		for e, in := range d.entries {
			if in == path.Clean(dir.Name()) {
				delete(d.entries, e)
			}
		}
		return nil
	})
}

// syncFS makes everything safe.
func (d *testDisk) syncFS(dir *os.File) error {
	return d.do(step{op: "syncFS", file: dir.Name()}, func() error {
		clear(d.unsynced)
		clear(d.entries)
		return nil
	})
}

func (d *testDisk) writeJournal(f *os.File, p []byte, off int64) error {
	return d.do(step{op: "writeJournal", file: f.Name()}, func() error { return osDisk{}.writeJournal(f, p, off) })
}

func (d *testDisk) syncJournal(f *os.File) error {
	return d.do(step{op: "syncJournal", file: f.Name()}, func() error { return nil })
}

// enter notes an entry for a file, whose octets must be safe by then, unless the
// journal has them.
func (d *testDisk) enter(s step) {
	if d.unsynced[s.file] && !d.journal {
		d.t.Errorf("%s: a crash could leave this entry without its octets", s)
	}
	d.entries[s.to] = path.Dir(s.to)
}

func (d *testDisk) link(from *os.File, name string, to *os.File, newName string) error {
	s := step{op: "link", file: path.Join(from.Name(), name), to: path.Join(to.Name(), newName)}
	return d.do(s, func() error {
		err := osDisk{}.link(from, name, to, newName)
		if err == nil {
			d.enter(s)
		}
		return err
	})
}

func (d *testDisk) rename(from *os.File, name string, to *os.File, newName string) error {
	s := step{op: "rename", file: path.Join(from.Name(), name), to: path.Join(to.Name(), newName)}
	return d.do(s, func() error {
		err := osDisk{}.rename(from, name, to, newName)
		if err == nil {
			d.enter(s)
		}
		return err
	})
}

func (d *testDisk) unlink(dir *os.File, name string) error {
	p := path.Join(dir.Name(), name)
	return d.do(step{op: "unlink", file: p}, func() error {
		delete(d.entries, p)
		return osDisk{}.unlink(dir, name)
	})
}

func (d *testDisk) mkdir(root *os.Root, name string) error {
	p := path.Join(root.Name(), name)
	return d.do(step{op: "mkdir", file: p}, func() error {
		err := osDisk{}.mkdir(root, name)
		if err == nil {
			d.entries[p] = path.Dir(p)
		}
		return err
	})
}

// losable lists the entries below dir that a crash may lose.
func (d *testDisk) losable(dir string) []string {
	var lost []string
	for e := range d.entries {
		if rel, err := filepath.Rel(dir, e); err == nil && filepath.IsLocal(rel) {
			lost = append(lost, fmt.Sprint(rel))
		}
	}
	return lost
}

// count is how many steps of a kind there were on path.
func (d *testDisk) count(op, path string) int {
	n := 0
	for _, s := range d.steps {
		if s.op == op && filepath.Clean(s.file) == path {
			n++
		}
	}
	return n
}

// TestRecoverySyncsEveryDisk: what a recovery finds whole may be in memory only, on
// a disk that nothing else is about.
func TestRecoverySyncsEveryDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount something")
	}
	before := freshServer(t)
	deliver(t, before.Store, 1, smallMessage, threeBoxes...)
	data := crashed(t, before.data)
	domain := filepath.Dir(boxDir(data, alice))
	if err := unix.Mount("none", domain, "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(domain, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("cp", "-a", filepath.Dir(boxDir(before.data, alice))+"/.", domain).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := newServer(t, data)
	synced := 0
	r.hooks.beforeSyncFS = func() error { synced++; return nil }
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.log.String(), "completed=0") && synced != 2 {
		t.Errorf("%d file systems were synced, the log says %s", synced, r.log)
	}
}
