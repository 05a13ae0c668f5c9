package journal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	errFault   = errors.New("injected fault")
	errCrashed = errors.New("the machine is off")
)

const sector = 512

// simDisk is a disk below a journal: it knows what of each file is on stable
// storage, lets calls fail, and can be cut off at any of them.
type simDisk struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	dir     string
	files   map[string]*simFile
	faults  float64 // how many calls fail
	limited bool    // the disk becomes full
	room    int64   // octets that files can still grow by, if limited
	crashAt int     // calls until the end; never when negative
	kill    bool    // the end is that of the process only
	after   *simDisk
	next    string // directory of after
	byKill  bool   // it came to be by the end of a process only
}

type simFile struct {
	stable  []byte
	named   bool
	pending []simWrite // since the last sync
	lied    bool       // a sync failed: octets that can be read need not be stable
	pieces  bool       // its header was cut off within a sector, which no good disk does: it looks like damage
}

type simWrite struct {
	data []byte
	off  int64
}

func newSimDisk(rnd *rand.Rand, dir string) *simDisk {
	return &simDisk{rnd: rnd, dir: dir, files: make(map[string]*simFile), crashAt: -1}
}

func (d *simDisk) options() Options {
	return Options{SegmentSize: 64 << 10, MaxSegments: 4, Write: d.write, Sync: d.sync, SyncDir: d.syncDir}
}

func (d *simDisk) write(f *os.File, p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.after != nil {
		return errCrashed
	}
	s, err := d.file(f)
	if err != nil {
		return err
	}
	if err := d.grow(f, off+int64(len(p))); err != nil {
		if d.step() {
			return errCrashed
		}
		return err
	}
	fails := d.rnd.Float64() < d.faults
	if fails {
		p = p[:d.rnd.IntN(len(p)+1)]
	}
	s.pending = append(s.pending, simWrite{slices.Clone(p), off})
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	if d.step() {
		return errCrashed
	}
	if fails {
		return errFault
	}
	return nil
}

func (d *simDisk) sync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.after != nil || d.step() {
		return errCrashed
	}
	s, err := d.file(f)
	if err != nil {
		return err
	}
	if d.rnd.Float64() < d.faults { // and the system forgets that something was to be written
		s.stable, s.pending, s.lied = s.torn(d.rnd), nil, true
		return errFault
	}
	for _, w := range s.pending {
		s.stable = w.apply(s.stable)
	}
	s.pending = nil
	return nil
}

// syncDir makes the names of files stable. Some systems do so with the first sync of a
// file; that is not to be counted on.
func (d *simDisk) syncDir(dir *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.after != nil || d.step() {
		return errCrashed
	}
	if d.rnd.Float64() < d.faults {
		return errFault
	}
	for name, s := range d.files {
		if _, err := os.Lstat(filepath.Join(dir.Name(), name)); err == nil {
			s.named = true
		}
	}
	return nil
}

// file finds the state of f, which is another file than the last of that name when
// it is empty.
func (d *simDisk) file(f *os.File) (*simFile, error) {
	name := filepath.Base(f.Name())
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := d.files[name]
	if s == nil || st.Size() == 0 && len(s.pending) == 0 {
		s = &simFile{}
		d.files[name] = s
	}
	return s, nil
}

func (w simWrite) apply(to []byte) []byte {
	if end := int(w.off) + len(w.data); end > len(to) {
		to = append(slices.Clip(to), make([]byte, end-len(to))...)
	}
	copy(to[w.off:], w.data)
	return to
}

// torn is what the disk may have when the power fails: of the sectors written
// since the last sync any, in part or not at all.
func (s *simFile) torn(rnd *rand.Rand) []byte {
	b := slices.Clone(s.stable)
	size := len(b)
	luck := rnd.Float64()
	for _, w := range s.pending {
		for at := 0; at < len(w.data); {
			n := min(sector-int(w.off+int64(at))%sector, len(w.data)-at)
			part := w.data[at : at+n]
			if rnd.IntN(8) == 0 {
				part = part[:rnd.IntN(n)]
				s.pieces = s.pieces || w.off+int64(at) == 0
			}
			if rnd.Float64() < luck {
				b = simWrite{part, w.off + int64(at)}.apply(b)
			}
			at += n
		}
	}
	if len(b) > size && rnd.IntN(2) == 0 { // growth that was lost
		b = b[:size+rnd.IntN(len(b)-size)]
	}
	return b
}

// step counts a call, and is true when it is the last.
func (d *simDisk) step() bool {
	if d.crashAt != 0 {
		d.crashAt--
		return false
	}
	d.after = newSimDisk(d.rnd, d.next)
	d.after.byKill = d.kill
	for name, s := range d.files {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		removed := err != nil
		keep := &simFile{named: true, lied: s.lied, pieces: s.pieces}
		if d.kill {
			if removed {
				continue
			}
			keep.stable, keep.pending, keep.named = s.stable, s.pending, s.named
		} else {
			if (removed || !s.named) && d.rnd.IntN(2) == 0 {
				continue
			}
			b = s.torn(d.rnd)
			keep.stable, keep.pieces = slices.Clone(b), s.pieces
		}
		d.after.files[name] = keep
		if err := os.WriteFile(filepath.Join(d.next, name), b, 0o600); err != nil {
			panic(err) // no test to tell it to; the disk of the test itself is at fault
		}
	}
	return true
}

// crashed gives the disk as it is after the end.
func (d *simDisk) crashed() *simDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.after
}

func (d *simDisk) plan(t *testing.T, crashAt int, kill bool, faults float64) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashAt, d.kill, d.faults, d.next = crashAt, kill, faults, t.TempDir()
}

// limit lets the disk become full.
func (d *simDisk) limit(limited bool, room int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limited, d.room = limited, room
}

// grow takes the room for a file that is going to end at a later octet.
func (d *simDisk) grow(f *os.File, end int64) error {
	st, err := f.Stat()
	if err != nil || !d.limited || end <= st.Size() {
		return err
	}
	if end-st.Size() > d.room {
		return unix.ENOSPC
	}
	d.room -= end - st.Size()
	return nil
}

// excuses is whether err is about a header that the power cut has left in pieces.
func (d *simDisk) excuses(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.files {
		if s.pieces && strings.Contains(err.Error(), "/"+name+" has no valid header") {
			return true
		}
	}
	return false
}

// rot damages the header of one segment that has a copy of it.
func (d *simDisk) rot(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name, s := range d.files {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil || len(s.pending) > 0 {
			continue
		}
		h, ok := decodeHeader(b)
		if !ok {
			continue
		}
		if f, ok := decodeFrame(b[block:], h.salt); ok {
			if again, ok := f.header(h.salt); ok && again == h {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	name, at := names[d.rnd.IntN(len(names))], d.rnd.IntN(headerOctets)
	d.files[name].stable[at] ^= 1
	change(t, filepath.Join(d.dir, name), func(b []byte) { b[at] ^= 1 })
}

func (d *simDisk) lied() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.files {
		if s.lied {
			return true
		}
	}
	return false
}
