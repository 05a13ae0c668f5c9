package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// scanTries bounds how often a scan starts again because a reader renamed files
// under it. Renaming hides a file from a directory reading at times.
const scanTries = 3

// list returns the messages of the mailbox in maildrop order. Those with foreign
// names have no sizes yet.
func (m *mailbox) list() ([]entry, error) {
	files, err := m.files()
	entries := arrange(files)
	if len(entries) < len(files) {
		m.listed.settled = false // some messages have files that are not among the entries
	}
	return entries, err
}

// files reads new/ and then cur/: in this order a file on its way from one to
// the other cannot be missed.
func (m *mailbox) files() (found []entry, err error) {
	if m.listed, err = m.version(); err != nil {
		return nil, err
	}
	var r direntReader
	if m.cur == nil {
		return r.readEntries(nil, m.new, false)
	}
	err = whileStill(m.cur, func() error {
		found, err = found[:0], nil
		if m.new != nil {
			found, err = r.readEntries(found, m.new, false)
		}
		if err == nil {
			found, err = r.readEntries(found, m.cur, true)
		}
		return err
	})
	return found, err
}

// version tells one state of the directories of a mailbox from all later ones, if
// it is settled: a clock that ticks slowly shows no difference between two
// changes in a row.
type version struct {
	new, cur int64 // times of the last change; 0 of what is not open
	settled  bool
}

const (
	slowestTick = 100 * time.Millisecond // ten times that of the kernel
	coarseTick  = 2 * time.Second        // of a file system that keeps whole seconds
)

// settled reports whether a change from now on would have another time than the last
// one.
func settled(changed, now int64) bool {
	tick := slowestTick
	if changed%int64(time.Second) == 0 {
		tick = coarseTick
	}
	return now-changed > int64(tick)
}

func (m *mailbox) version() (v version, err error) {
	var st unix.Stat_t
	if m.new != nil {
		st, err = statFile(m.new)
		v.new = st.Ctim.Nano()
	}
	if err == nil && m.cur != nil {
		st, err = statFile(m.cur)
		v.cur = st.Ctim.Nano()
	}
	now := time.Now().UnixNano()
	v.settled = settled(v.new, now) && settled(v.cur, now)
	return v, err
}

// unchanged reports whether the files are surely those of the last listing.
func (m *mailbox) unchanged() bool {
	v, err := m.version()
	return err == nil && m.listed.settled && v.new == m.listed.new && v.cur == m.listed.cur
}

// whileStill calls read again if entries of dir changed in that time.
func whileStill(dir *os.File, read func() error) error {
	for try := 1; ; try++ {
		before, err := changed(dir)
		if err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
		after, err := changed(dir)
		if err != nil || before == after || try == scanTries {
			return err
		}
	}
}

// changed is when the entries of dir changed last.
func changed(dir *os.File) (int64, error) {
	st, err := statFile(dir)
	return st.Mtim.Nano(), err
}

const (
	smallDirents = 8 << 10 // octets; 100 names of ours
	largeDirents = 64 << 10
	direntHeader = 19                            // octets before the name: inode, offset, length, type
	maxDirent    = (direntHeader + 256 + 7) &^ 7 // octets with the longest name
)

// direntReader reads directories. It asks the kernel itself, because os.File
// allocates for each name what a whole entry takes here, and does not tell the
// inode.
type direntReader struct {
	buf   []byte
	found []dirent // of one reading, their names side by side at the front of its buffer
}

// dirent is what a directory tells of a file.
type dirent struct {
	ino    uint64
	length int // of the name, octets
}

// readEntries appends the regular files of dir that are not hidden. The names of
// one reading share one string.
func (r *direntReader) readEntries(to []entry, dir *os.File, seen bool) ([]entry, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if r.buf == nil {
		r.buf = make([]byte, smallDirents)
	}
	for {
		n, err := readDirents(dir, r.buf)
		if n == 0 || err != nil {
			return to, err
		}
		if to, err = r.add(to, dir, seen, r.buf[:n]); err != nil {
			return nil, err
		}
		if n > len(r.buf)-maxDirent { // there is more to come
			return r.readOn(to, dir, seen)
		}
	}
}

// readOn is readEntries for what is left of a large directory: the kernel is as
// long about it as we are, so one reading goes on while the one before is looked
// at.
func (r *direntReader) readOn(to []entry, dir *os.File, seen bool) ([]entry, error) {
	type reading struct {
		dirents []byte
		err     error
	}
	const buffers = 3
	spare, readings := make(chan []byte, buffers), make(chan reading)
	for range buffers {
		spare <- make([]byte, largeDirents)
	}
	go func() {
		defer close(readings)
		for buf := range spare {
			n, err := readDirents(dir, buf)
			if n == 0 && err == nil {
				return
			}
			readings <- reading{buf[:n], err}
		}
	}()
	var failed error
	for got := range readings {
		if failed == nil {
			failed = got.err
		}
		if failed == nil {
			to, failed = r.add(to, dir, seen, got.dirents)
		}
		if failed == nil {
			spare <- got.dirents[:largeDirents]
		} else if spare != nil {
			close(spare)
			spare = nil
		}
	}
	return to, failed
}

// add appends the entries of one reading.
func (r *direntReader) add(to []entry, dir *os.File, seen bool, dirents []byte) ([]entry, error) {
	names, err := r.pick(dir, dirents)
	if err != nil {
		return nil, err
	}
	if len(to)+len(r.found) > cap(to) { // double it: append alone would copy more often
		to = slices.Grow(to, max(len(r.found), len(to)))
	}
	for _, f := range r.found {
		to = append(to, newEntry(names[:f.length], seen, f.ino))
		names = names[f.length:]
	}
	return to, nil
}

// readDirents fills buf and returns how many octets it has; 0 at the end.
func readDirents(dir *os.File, buf []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.ReadDirent(int(dir.Fd()), buf)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, nil // the directory was removed: it has no entries
	}
	if err != nil {
		return 0, &os.PathError{Op: "readdirent", Path: dir.Name(), Err: err}
	}
	return n, nil
}

// pick finds the regular files among dirents, and returns their names one after
// the other.
func (r *direntReader) pick(dir *os.File, dirents []byte) (string, error) {
	r.found = r.found[:0]
	names := dirents[:0] // never gets ahead of what is read
	for left := dirents; len(left) > 0; {
		ino, kind, name, rest, ok := cutDirent(left)
		if !ok {
			return "", fmt.Errorf("directory %s: the kernel's answer makes no sense", dir.Name())
		}
		left = rest
		if len(name) == 0 || name[0] == '.' || !isFile(dir, kind, name) {
			continue
		}
		names = append(names, name...)
		r.found = append(r.found, dirent{ino: ino, length: len(name)})
	}
	return string(names), nil
}

// isFile reports whether a directory entry is a regular file. The type comes
// with the name on most file systems, the others are asked for it.
func isFile(dir *os.File, kind byte, name []byte) bool {
	if kind != unix.DT_UNKNOWN {
		return kind == unix.DT_REG
	}
	st, err := statAt(dir, string(name))
	return err == nil && isRegular(st)
}

// cutDirent takes one struct linux_dirent64 off the front of b.
func cutDirent(b []byte) (ino uint64, kind byte, name, rest []byte, ok bool) {
	if len(b) < direntHeader {
		return 0, 0, nil, nil, false
	}
	length := int(binary.NativeEndian.Uint16(b[16:]))
	if length < direntHeader || length > len(b) {
		return 0, 0, nil, nil, false
	}
	name = b[direntHeader:length]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return binary.NativeEndian.Uint64(b), b[18], name, b[length:], true
}

// errSkip says that a file cannot be served and is left out.
var errSkip = errors.New("not a readable message")

// scan lists the mailbox and lets measure fill in the sizes, and the state of
// files that it could not measure. Those that vanished have perhaps moved, so
// the mailbox is listed again; those that are unfit are left out.
func (m *mailbox) scan(ctx context.Context, measure func([]entry) error) ([]entry, error) {
	for try := 1; ; try++ {
		entries, err := m.list()
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = measure(entries)
		}
		if err != nil {
			return nil, err
		}
		vanished := false
		entries = slices.DeleteFunc(entries, func(e entry) bool {
			vanished = vanished || e.state == gone
			return e.state != sized
		})
		if !vanished || try == scanTries {
			return entries, nil
		}
	}
}
