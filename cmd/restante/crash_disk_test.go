package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopDisk is an ext4 file system in a file, whose power can be cut.
type loopDisk struct {
	image, dir string
}

// newLoopDisk makes and mounts one, which goes with the test. A machine that
// cannot do that skips the test, unless the environment says
// TEST_CRASH=required.
func newLoopDisk(t *testing.T, octets int64) *loopDisk {
	t.Helper()
	top := t.TempDir()
	d := &loopDisk{filepath.Join(top, "image"), filepath.Join(top, "mounted")}
	err := d.format(octets)
	if err == nil {
		err = d.mount()
	}
	if err != nil {
		if os.Getenv("TEST_CRASH") == "required" {
			t.Fatal(err)
		}
		t.Skipf("a power cut needs root, mkfs.ext4 and loop mounts: %v", err)
	}
	t.Cleanup(func() {
		// Whatever still uses it, the mount has to go: its directory is removed
		// next. The loop device ends with the last user.
		if err := syscall.Unmount(d.dir, unix.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("unmounting %s: %v", d.dir, err)
		}
	})
	return d
}

func (d *loopDisk) format(octets int64) error {
	if err := errors.Join(os.Mkdir(d.dir, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, octets)); err != nil {
		return err
	}
	return tool("mkfs.ext4", "-q", "-F", d.image)
}

func (d *loopDisk) mount() error { return tool("mount", "-t", "ext4", "-o", "loop", d.image, d.dir) }

// unmount waits a while for those who still use the file system: a process that
// was killed may not have let go of everything.
func (d *loopDisk) unmount() (err error) {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = syscall.Unmount(d.dir, 0); !errors.Is(err, syscall.EBUSY) {
			break
		}
	}
	return os.NewSyscallError("umount "+d.dir, err)
}

// cutPower makes the file system forget at once whatever is not on the disk, by
// the ioctl EXT4_IOC_SHUTDOWN. Not even what is in its journal is flushed. From
// then on every access fails until it is mounted again.
func (d *loopDisk) cutPower() error {
	const shutdown, noLogFlush = 0x8004587d, 2
	dir, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return os.NewSyscallError("ioctl", unix.IoctlSetPointerInt(int(dir.Fd()), shutdown, noLogFlush))
}

// tool runs a program of the system.
func tool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return err
}
