//go:build !unsynced

// Package stable has the system calls that put data on stable storage, all that
// this program makes.
//
// The build tag "unsynced" makes them do nothing. A program built like that loses
// mail in a power cut; it exists to prove that the crash tests notice.
package stable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// File returns when the octets and the size of f, or the entries of a directory,
// are on stable storage (fsync).
func File(f *os.File) error { return f.Sync() }

// Data is File without the times of f (fdatasync). It costs no journal commit of
// the file system when f did not grow.
func Data(f *os.File) error { return call("fdatasync", f, unix.Fdatasync) }

// FileSystem returns when all that was written to the file system of dir, a
// directory that this process may write to, is on stable storage (syncfs), and tells
// of every write that has failed since dir was opened. Linux before 5.8 does not tell.
//
// What the file system could not write of its own structures it tells once, and
// Linux before 5.17 not even that; from then on syncfs and fsync find nothing to do
// and succeed. But nothing can be changed there any more. So one more change follows,
// which takes no room: the times of dir. It must be possible, and be synced.
func FileSystem(dir *os.File) error {
	if err := call("syncfs", dir, unix.Syncfs); err != nil {
		return err
	}
	if err := call("utimensat", dir, setTimes); err != nil {
		return err
	}
	return File(dir)
}

// setTimes sets the times of an open directory to now.
func setTimes(fd int) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{now, now}, 0)
}

func call(op string, f *os.File, do func(fd int) error) error {
	for {
		err := do(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: op, Path: f.Name(), Err: err}
		}
	}
}
