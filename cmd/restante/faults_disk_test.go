package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const faultDiskSize = 64 << 20

// TestFaultDiskFull: mail is refused, can still be fetched and removed, and is
// taken again when there is room.
func TestFaultDiskFull(t *testing.T) {
	t.Parallel()
	disk := newLoopDisk(t, faultDiskSize)
	v := newVictim(t, disk.dir)
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "carol")
	ballast := filepath.Join(disk.dir, "ballast")
	fill(t, ballast)
	for _, octets := range []int{60000, 100, 300 << 10, 5 << 20} {
		v.refuses(octets, "452 4.3.1", "alice", "bob")
	}
	v.logs("message refused", "no space left on device")
	v.keeps(1, victims...) // the first login of all of them
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	v.accepts(4000, "bob")
	v.keeps(1000, victims...)
}

// TestFaultDiskStaysFull: however many senders try, whoever fetches mail can remove
// it, and that makes room.
func TestFaultDiskStaysFull(t *testing.T) {
	t.Parallel()
	disk := newLoopDisk(t, faultDiskSize)
	v := newVictim(t, disk.dir)
	v.accepts(4<<20, "alice", "carol")
	fill(t, filepath.Join(disk.dir, "ballast"))
	for range 40 {
		v.refuses(60000, "452 4.3.1", "alice", "bob")
	}
	before := v.checkpoints()
	v.keeps(0, "alice", "carol")
	eventually(t, "a checkpoint lets go of what was removed", func() bool { return v.checkpoints() > before })
	v.accepts(60000, "alice", "bob")
	v.keeps(1000, victims...)
}

// TestFaultDiskFullAtStart: a server that was killed comes back on a full disk.
func TestFaultDiskFullAtStart(t *testing.T) {
	t.Parallel()
	disk := newLoopDisk(t, faultDiskSize)
	v := newVictim(t, disk.dir)
	v.accepts(4000, "alice", "bob")
	v.kill()
	ballast := filepath.Join(disk.dir, "ballast")
	fill(t, ballast)
	for range 3 {
		v.mustStart()
		v.refuses(4000, "452 4.3.1", "alice")
		v.refuses(300<<10, "452 4.3.1", "alice")
		v.keeps(1000, victims...)
		v.kill()
	}
	away := v.data + "/elsewhere"
	if err := os.Rename(v.journal(), away); err != nil {
		t.Fatal(err)
	}
	v.staysDown(v.journal(), "no space left on device")
	if err := errors.Join(os.Rename(away, v.journal()), os.Remove(ballast)); err != nil {
		t.Fatal(err)
	}
	v.mustStart()
	v.accepts(4000, "bob")
	v.keeps(1000, victims...)
}

// TestFaultNoInodes: no file can be made, though there is room for octets.
func TestFaultNoInodes(t *testing.T) {
	t.Parallel()
	disk := newLoopDisk(t, faultDiskSize)
	err := errors.Join(disk.unmount(), tool("mkfs.ext4", "-q", "-F", "-N", "128", disk.image), disk.mount())
	if err != nil {
		t.Fatal(err)
	}
	v := newVictim(t, disk.dir)
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "carol")
	ballast := filepath.Join(disk.dir, "ballast")
	err = os.Mkdir(ballast, 0o700)
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(ballast, fmt.Sprint(i)), nil, 0o600)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for _, octets := range []int{60000, 100, 300 << 10} {
		v.refuses(octets, "452 4.3.1", "alice", "bob")
	}
	v.logs("message refused", "no space left on device")
	v.keeps(1, victims...)
	v.kill()
	v.mustStart()
	v.keeps(0, victims...)
	v.accepts(4000, "bob")
	if err := os.RemoveAll(ballast); err != nil {
		t.Fatal(err)
	}
	v.accepts(300<<10, "bob", "alice")
	v.keeps(1000, victims...)
}

// TestFaultReadOnly: the kernel makes the file system read-only, as it does when it
// finds an error there.
func TestFaultReadOnly(t *testing.T) {
	t.Parallel()
	disk := newLoopDisk(t, faultDiskSize)
	v := newVictim(t, disk.dir)
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "carol")
	v.keeps(1000, victims...)
	v.accepts(4000, "alice", "bob")
	before := v.talk("pop3").logIn("alice")
	if err := tool("mount", "-o", "remount,abort", disk.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(disk.dir, "new"), 0o700); !errors.Is(err, unix.EROFS) {
		t.Fatalf("a directory can be made: %v", err)
	}
	for _, octets := range []int{60000, 100, 300 << 10} {
		v.refuses(octets, "451 4.3.0", "alice", "bob")
	}
	v.logs("message refused", "read-only file system")
	for _, d := range []*caller{before, v.talk("pop3").logIn("bob")} {
		d.want("RETR 1", "+OK")
		d.multiline()
		d.want("DELE 1", "+OK")
		d.want("QUIT", "-ERR [SYS/TEMP]")
	}
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if v.ends(); v.cmd.ProcessState.ExitCode() != 1 || len(v.log.find("stopped", nil)) > 0 {
		t.Errorf("the end is told as one in order, status %d", v.cmd.ProcessState.ExitCode())
	}
	v.logs("accepted mail is in the journal only, keep it for the next start, which completes that", "read-only file system")
	v.staysDown("read-only file system")
	if err := errors.Join(disk.unmount(), disk.mount()); err != nil {
		t.Fatal(err)
	}
	v.mustStart()
	v.accepts(4000, "bob")
	v.keeps(1000, victims...)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	_ = f.Sync() // what does not fit is not needed
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
