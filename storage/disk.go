package storage

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"restante/storage/internal/stable"
)

// disk is what changes the file system on the way of a message, and how recovery
// looks at one. Tests put another in its place, which fails at any step they like.
type disk interface {
	// openDir opens a directory below dir by the names on the way to it.
	openDir(dir *os.File, names ...string) (*os.File, error)
	// open opens a file for reading.
	open(dir *os.File, name string) (*os.File, error)
	// create makes a new file for writing, 0600.
	create(dir *os.File, name string) (*os.File, error)
	write(f *os.File, p []byte) (int, error)
	// sync returns when the octets of f are on stable storage.
	sync(f *os.File) error
	// syncDir returns when the entries of dir are on stable storage.
	syncDir(dir *os.File) error
	// syncFS returns when everything on the file system of dir is, and fails if
	// a write there has failed since dir was opened.
	syncFS(dir *os.File) error
	// writeJournal and syncJournal are write and sync of the journal's files.
	writeJournal(f *os.File, p []byte, off int64) error
	syncJournal(f *os.File) error
	link(from *os.File, name string, to *os.File, newName string) error
	rename(from *os.File, name string, to *os.File, newName string) error
	unlink(dir *os.File, name string) error
	// mkdir makes a directory below root, 0700.
	mkdir(root *os.Root, path string) error
}

type osDisk struct{}

func (osDisk) openDir(dir *os.File, names ...string) (*os.File, error) {
	return openPath(dir, names...)
}

func (osDisk) open(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_RDONLY)
}

func (osDisk) create(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
}

func (osDisk) write(f *os.File, p []byte) (int, error) { return f.Write(p) }

func (osDisk) sync(f *os.File) error { return stable.File(f) }

func (osDisk) syncDir(dir *os.File) error { return stable.File(dir) }

func (osDisk) syncFS(dir *os.File) error { return stable.FileSystem(dir) }

func (osDisk) writeJournal(f *os.File, p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func (osDisk) syncJournal(f *os.File) error { return stable.Data(f) }

func (osDisk) link(from *os.File, name string, to *os.File, newName string) error {
	err := retry(func() error {
		return unix.Linkat(int(from.Fd()), name, int(to.Fd()), newName, 0)
	})
	return linkError("link", from, name, to, newName, err)
}

func (osDisk) rename(from *os.File, name string, to *os.File, newName string) error {
	err := retry(func() error {
		return unix.Renameat(int(from.Fd()), name, int(to.Fd()), newName)
	})
	return linkError("rename", from, name, to, newName, err)
}

func (osDisk) unlink(dir *os.File, name string) error {
	err := retry(func() error { return unix.Unlinkat(int(dir.Fd()), name, 0) })
	return pathError("unlink", dir, name, err)
}

func (osDisk) mkdir(root *os.Root, path string) error { return root.Mkdir(path, 0o700) }

// openAt opens one name in dir. It never follows a symbolic link and never
// waits, as opening a FIFO would; a directory or a new file needs no care for
// that, and os.NewFile less work.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	var fd int
	if flags&(unix.O_DIRECTORY|unix.O_EXCL) == 0 {
		flags |= unix.O_NONBLOCK
	}
	err := retry(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, pathError("open", dir, name, err)
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

// openPath opens a directory below dir by the names on the way to it. None of
// them may be a symbolic link.
func openPath(dir *os.File, names ...string) (*os.File, error) {
	f, err := openAtOnce(dir, names)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return openInSteps(dir, names)
	}
	return f, err
}

// openAtOnce takes the whole way in one call. A filter of system calls may refuse
// that call, as it cannot look into it: RestrictSUIDSGID= of systemd does.
func openAtOnce(dir *os.File, names []string) (*os.File, error) {
	name := strings.Join(names, "/")
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat2(int(dir.Fd()), name, &how)
		return err
	})
	if err != nil {
		return nil, pathError("open", dir, name, err)
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

// openInSteps opens one directory after the other.
func openInSteps(dir *os.File, names []string) (*os.File, error) {
	if len(names) == 0 {
		return openAt(dir, ".", unix.O_DIRECTORY)
	}
	at := dir
	for _, name := range names {
		next, err := openAt(at, name, unix.O_DIRECTORY)
		if at != dir {
			at.Close()
		}
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// statAt looks at one name in dir itself, not at what a symbolic link names.
func statAt(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error {
		return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return st, pathError("stat", dir, name, err)
}

func statFile(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) })
	if err != nil {
		return st, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st, nil
}

func isRegular(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

// retry calls fn again when a signal interrupted it.
func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func pathError(op string, dir *os.File, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: dir.Name() + "/" + name, Err: err}
}

func linkError(op string, from *os.File, name string, to *os.File, newName string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from.Name() + "/" + name, New: to.Name() + "/" + newName, Err: err}
}
