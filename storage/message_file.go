package storage

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// messageFile is an open file of a mailbox, only to be read to its end. It is a
// bare descriptor, which must be closed: what os.File does besides (it asks for
// the mode, tries the poller, sets a finalizer) costs more than to read a small
// message.
type messageFile struct {
	fd   int   // -1 once closed
	size int64 // octets when it was opened
	read int64
}

// openMessage opens a file of a mailbox, if it is a regular one.
func openMessage(dir *os.File, name string) (messageFile, error) {
	var fd int
	var st unix.Stat_t
	err := retry(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return messageFile{fd: -1}, pathError("open", dir, name, err)
	}
	err = retry(func() error { return unix.Fstat(fd, &st) })
	if err == nil && !isRegular(st) {
		err = fmt.Errorf("%s: %w", name, errSkip)
	}
	if err != nil {
		unix.Close(fd)
		return messageFile{fd: -1}, pathError("stat", dir, name, err)
	}
	return messageFile{fd: fd, size: st.Size}, nil
}

// Read gives io.EOF with the last octets, if the file has its size still and p
// has room for more: that saves another call.
func (f *messageFile) Read(p []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Read(f.fd, p)
		return err
	})
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	f.read += int64(n)
	if n == 0 || n < len(p) && f.read == f.size {
		return n, io.EOF
	}
	return n, nil
}

// close may be called again.
func (f *messageFile) close() error {
	if f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
