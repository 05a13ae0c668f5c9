package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// shortDisk is a loopDisk whose end can be taken away and given back. Meanwhile
// all that the kernel reads or writes there is an input/output error. It is found
// out late, when what was written long ago is written back.
type shortDisk struct {
	*loopDisk
	end []byte // what was taken away
}

const shortBlock = 4096

func newShortDisk(t *testing.T, octets int64, options ...string) *shortDisk {
	t.Helper()
	d := &shortDisk{loopDisk: newLoopDisk(t, octets)}
	options = append(options, "-q", "-F", "-b", strconv.Itoa(shortBlock), d.image)
	if err := errors.Join(d.unmount(), tool("mkfs.ext4", options...), d.mount()); err != nil {
		t.Fatal(err)
	}
	return d
}

// shorten takes away the blocks at the end that are free.
func (d *shortDisk) shorten(t *testing.T) {
	t.Helper()
	if err := tool("sync", "-f", d.dir); err != nil {
		t.Fatal(err)
	}
	groups, err := exec.Command("dumpe2fs", d.image).Output()
	if err != nil {
		t.Fatal(err)
	}
	free := regexp.MustCompile(`(?m)^  Free blocks: (?:.*, )?(\d+)-\d+$`).FindSubmatch(groups)
	if free == nil {
		t.Fatalf("the end of the disk is in use:\n%s", groups)
	}
	first, err := strconv.Atoi(string(free[1]))
	if err != nil {
		t.Fatal(err)
	}
	d.cutAt(t, first)
}

// cutAt takes away the blocks from first on.
func (d *shortDisk) cutAt(t *testing.T, first int) {
	t.Helper()
	whole, err := os.ReadFile(d.image)
	if err != nil {
		t.Fatal(err)
	}
	d.end = bytes.Clone(whole[first*shortBlock:])
	d.resize(t, int64(first*shortBlock))
}

// mend gives the end back as it was.
func (d *shortDisk) mend(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(d.image, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(d.end)
	st, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		t.Fatal(err)
	}
	d.resize(t, st.Size())
}

// resize makes the image so long, and tells the loop device.
func (d *shortDisk) resize(t *testing.T, octets int64) {
	t.Helper()
	device, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", d.image).Output()
	err = errors.Join(err, os.Truncate(d.image, octets), tool("losetup", "--set-capacity", strings.TrimSpace(string(device))))
	if err != nil {
		t.Fatal(err)
	}
}

// growDirectories has the directories of mail take their blocks before the disk
// fails: one that the file system cannot write is damage to the file system ("structure
// needs cleaning"), which is for fsck, and not what is tested here.
func (v *victim) growDirectories() {
	v.t.Helper()
	dirs := []string{filepath.Join(v.data, "mail", ".tmp")}
	for _, user := range victims {
		dirs = append(dirs, filepath.Join(v.maildir(user), "new"))
	}
	for _, dir := range dirs {
		var names []string
		for i := range 500 {
			names = append(names, filepath.Join(dir, fmt.Sprintf(".%0200d", i)))
			writeFile(v.t, names[i], nil)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				v.t.Fatal(err)
			}
		}
	}
}

// TestFaultWriteErrors: the disk fails under a journal that has room for a while.
// What the kernel could not write back is written anew from the journal.
func TestFaultWriteErrors(t *testing.T) {
	t.Parallel()
	disk := newShortDisk(t, 64<<20, "-E", "packed_meta_blocks=1,lazy_itable_init=0")
	v := newVictim(t, disk.dir)
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "carol")
	v.keeps(1000, victims...)
	v.growDirectories()
	disk.shorten(t)
	v.accepts(60000, "alice", "bob")
	v.refuses(300<<10, "451 4.3.0", "alice", "bob")
	v.refuses(5<<20, "451 4.3.0", "alice", "bob")
	v.logs("message refused", "input/output error")
	v.logs("a checkpoint failed", "mail is refused when the journal is full")
	for n := 0; !v.logged("message refused", "the journal", "input/output error"); n++ {
		answer := v.send(60000, "alice", "bob")
		if !strings.HasPrefix(answer, "250 ") && !strings.HasPrefix(answer, "451 4.3.0") || n > 5000 {
			t.Fatalf("message %d: %s", n, answer)
		}
	}
	v.keeps(1000, victims...)
	disk.mend(t)
	before := v.checkpoints()
	v.accepts(4000, "alice", "bob")
	v.accepts(300<<10, "alice", "bob")
	eventually(t, "a checkpoint succeeds", func() bool { return v.checkpoints() > before })
	if err := disk.cutPower(); err != nil {
		t.Fatal(err)
	}
	v.kill()
	if err := errors.Join(disk.unmount(), disk.mount()); err != nil {
		t.Fatal(err)
	}
	v.mustStart()
	v.keeps(1000, victims...)
}

// TestFaultStartsTwice: the file system of mail/ cannot write its own journal any
// more. A start finds all mail in memory and hears of that fault; the next one must
// not believe that all is well because the system has told of it already.
func TestFaultStartsTwice(t *testing.T) {
	t.Parallel()
	const octets, journalAt = 64 << 20, 56 << 20 / shortBlock
	disk := newShortDisk(t, octets, "-E", "lazy_itable_init=0", "-J", fmt.Sprintf("size=4,location=%d", journalAt))
	v := newVictim(t, "")
	v.kill()
	err := disk.unmount()
	disk.dir = filepath.Join(v.data, "mail")
	if err = errors.Join(err, disk.mount()); err != nil {
		t.Fatal(err)
	}
	v.mustStart()
	v.accepts(4000, victims...)
	v.accepts(300<<10, victims...)
	v.keeps(1, victims...)
	before := v.checkpoints()
	eventually(t, "a checkpoint", func() bool { return v.checkpoints() > before })
	if err := tool("sync", "-f", disk.dir); err != nil {
		t.Fatal(err)
	}
	disk.cutAt(t, journalAt)
	for range 5 {
		v.accepts(4000, victims...)
	}
	v.keeps(3, "carol")
	v.kill()
	for range 3 {
		v.staysDown("completing deliveries from the journal")
	}
	disk.mend(t)
	if err := errors.Join(disk.unmount(), disk.mount()); err != nil {
		t.Fatal(err)
	}
	v.mustStart()
	v.keeps(1000, victims...)
}

// TestFaultUnreadableMessage: one file of a mailbox, which is on a disk of its own,
// cannot be read at the start after a crash. It is written anew from the journal.
func TestFaultUnreadableMessage(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	v.killedAfter(func() { v.accepts(300<<10, "alice", "bob") })
	disk := newShortDisk(t, 16<<20, "-E", "packed_meta_blocks=1,lazy_itable_init=0")
	front := filepath.Join(disk.dir, "front")
	writeFile(t, front, make([]byte, 4<<20))
	err := errors.Join(tool("sync", "-f", disk.dir), tool("cp", "-a", v.maildir("alice")+"/.", disk.dir), tool("sync", "-f", disk.dir))
	if err != nil {
		t.Fatal(err)
	}
	occupy(t, filepath.Join(disk.dir, "end"))
	files, err := filepath.Glob(filepath.Join(disk.dir, "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	first := firstBlock(t, files[0])
	if first < firstBlock(t, front) {
		t.Fatal("there is room only behind the message")
	}
	err = errors.Join(os.Remove(front), disk.unmount())
	disk.dir = v.maildir("alice")
	if err := errors.Join(err, disk.mount()); err != nil {
		t.Fatal(err)
	}
	disk.cutAt(t, first)
	v.mustStart()
	v.logs("a message cannot be read", "alice", "input/output error")
	v.keeps(1000, victims...)
}

// occupy has a file take all blocks that are free, without writing any.
func occupy(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end := int64(0)
	for size := int64(16 << 20); size >= shortBlock; {
		if err := unix.Fallocate(int(f.Fd()), 0, end, size); err != nil {
			size /= 2
		} else {
			end += size
		}
	}
}

// firstBlock is where a file begins on its disk.
func firstBlock(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command("filefrag", "-v", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ +0: +0\.\. *\d+: +(\d+)\.\.`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no block in %s", out)
	}
	block, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return block
}
