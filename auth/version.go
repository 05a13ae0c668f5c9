package auth

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The wal-index of SQLite, the file beside the database whose name ends in -shm,
// is memory that all processes share. It begins with two copies of a header
// that says which commit was the last. Whoever commits writes both, the second
// one first, before the commit is told to be done. SQLite itself knows by this
// header, and by nothing else, that the pages it holds in memory are still those
// of the database.
const (
	indexHeader  = 48      // octets of a copy
	indexFormat  = 3007000 // the number that a header begins with, in the order of the machine
	indexInitial = 12      // where it is told that the header was written at all
)

// version is a state of the database: of two that are known and equal, nothing
// was committed between. What was read after a version was taken holds for as
// long as the present version is that one. The zero version is of no state.
type version [indexHeader]byte

func (v version) known() bool { return v != version{} }

// versions tells the version of the database, whichever process changed it,
// without a system call. The zero value knows none. It is safe for concurrent
// use.
type versions struct {
	index []byte    // the header of the wal-index, both copies, mapped from the file
	pin   *sql.Conn // as long as it is open nobody makes another wal-index
	ended atomic.Bool
}

// now is the present version. The copies differ while a commit is under way; it
// is not known then, which is always right to say. Nor is it when the file cannot
// be read, be it cut short or its disk broken: memory mapped from a file faults
// then, as it does under SQLite, which makes an error of it likewise.
func (v *versions) now() (present version) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			present = version{}
		}
	}()
	var first, second version
	copy(first[:], v.index)
	copy(second[:], v.index[len(v.index)/2:])
	runtime.KeepAlive(v) // and the mapping with it
	if first != second || first[indexInitial] == 0 || v.ended.Load() {
		return version{}
	}
	return first
}

// openVersions maps the wal-index of the database in the file path. The mapping
// outlasts close, beside which now may run; the file is then perhaps no longer
// that of the database.
func openVersions(ctx context.Context, db *sql.DB, path string) (*versions, error) {
	pin, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	index, err := mapIndex(ctx, pin, path)
	if err != nil {
		return nil, errors.Join(err, pin.Close())
	}
	v := &versions{index: index[:2*indexHeader], pin: pin}
	runtime.AddCleanup(v, func(index []byte) { _ = unix.Munmap(index) }, index)
	return v, nil
}

func mapIndex(ctx context.Context, pin *sql.Conn, path string) ([]byte, error) {
	var tables int // reading is what opens the wal-index
	if err := pin.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables); err != nil {
		return nil, err
	}
	fd, err := indexDescriptor(path)
	if err != nil {
		return nil, err
	}
	index, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the wal-index: %w", err)
	}
	if format := binary.NativeEndian.Uint32(index); format != indexFormat {
		return nil, errors.Join(fmt.Errorf("the wal-index has the unknown format %d", format), unix.Munmap(index))
	}
	return index, nil
}

// indexDescriptor finds the descriptor under which SQLite has the wal-index
// open in this process. The file is not opened again: closing it would end the
// locks that SQLite has on it (POSIX locks belong to the process).
func indexDescriptor(path string) (int, error) {
	const mine = "/proc/self/fd"
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return 0, err
	}
	index, err := os.Stat(path + "-shm")
	if err != nil {
		return 0, err
	}
	open, err := os.ReadDir(mine)
	if err != nil {
		return 0, err
	}
	for _, e := range open {
		if file, err := os.Stat(filepath.Join(mine, e.Name())); err == nil && os.SameFile(file, index) {
			return strconv.Atoi(e.Name())
		}
	}
	return 0, fmt.Errorf("no descriptor of the wal-index: %w", fs.ErrNotExist)
}

// close lets the database be closed. No version is known from then on.
func (v *versions) close() error {
	v.ended.Store(true)
	if v.pin == nil {
		return nil
	}
	return v.pin.Close()
}
