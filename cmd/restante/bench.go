package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"restante/cmd/restante/internal/config"
)

const (
	shortestBench = 10 * time.Millisecond
	longestBench  = time.Minute
	// benchVolume octets of messages are received in a second of a measurement at
	// the most, so that the space it needs can be told before.
	benchVolume      = 128 << 20
	leastBenchVolume = 64 << 20
	// benchSpace is what the server takes beside the messages.
	benchSpace = 192 << 20
)

// benchOptions is the command line of "restante bench".
type benchOptions struct {
	dir         string
	duration    time.Duration
	connections []int
	json        bool
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what this machine and a disk of it can hold",
		Long: `Run a throw-away server in a new directory on the disk to be measured, send mail
to it and fetch mail from it over the loopback network, and tell how fast that
went. It takes ten measurements, one after the other, and removes all it made;
Ctrl-C ends it early. It touches no mail. A server that runs on the same machine
is slowed meanwhile, and slows the measurements.

The figures are about this machine: the clients run on it too and take their part
of its processors. See "restante help performance".`,
		Example: `  sudo restante bench                  the disk of the data directory
  restante bench --dir /srv            the disk that /srv is on
  restante bench --dir . --duration 30s --connections 100,500`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return a.bench(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "measure the disk that `DIR` is on (default the data directory)")
	f.DurationVar(&o.duration, "duration", 2*time.Second, "let each measurement take `TIME`")
	f.IntSliceVar(&o.connections, "connections", []int{1, 10, 50}, "receive over `N,...` connections at a time")
	f.BoolVar(&o.json, "json", false, "write JSON")
	return cmd
}

func (o benchOptions) check(cmd *cobra.Command) error {
	if o.duration < shortestBench || o.duration > longestBench {
		return usagef(cmd, "--duration %v is not between %v and %v", o.duration, shortestBench, longestBench)
	}
	for _, n := range o.connections {
		if most := config.Default().SMTP.MaxConnections; n < 1 || n > most {
			return usagef(cmd, "--connections %d is not between 1 and %d", n, most)
		}
	}
	return nil
}

// volume is how many octets of messages a measurement receives at the most.
func (o benchOptions) volume() int64 {
	return max(leastBenchVolume, int64(benchVolume*o.duration.Seconds()))
}

// bench measures in a directory of its own, which is removed however it ends.
func (a *app) bench(ctx context.Context, o benchOptions) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // the window was closed
	defer stop()
	goOnUnread()
	place, err := a.benchPlace(o.dir)
	if err != nil {
		return err
	}
	// Of two measurements the messages may be on the disk at the same time, and a
	// message of 4 KiB takes up to two of its blocks.
	if err := checkSpace(place, 2*o.volume()+benchSpace, o.volume()/smallMessage); err != nil {
		return err
	}
	kind, warning, err := fileSystem(place)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(place, "restante-bench-")
	if err != nil {
		return fmt.Errorf("there is no place to measure in: %w", err)
	}
	defer func() {
		if ctx.Err() != nil {
			err = errInterrupted // however that showed
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	return a.benchIn(ctx, dir, o, newBenchReport(place, kind, warning, o.duration))
}

// benchPlace is the directory to measure below: the one that was named, else the
// data directory.
func (a *app) benchPlace(dir string) (string, error) {
	if dir == "" {
		c, err := a.loadConfig()
		if err != nil {
			return "", fmt.Errorf("name a directory on the disk to be measured with --dir; without it that is the data directory, but %w", err)
		}
		if err := becomeOwner(c.DataDir); err != nil {
			return "", err
		}
		return c.DataDir, checkDataDir(c.DataDir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no directory %s; name one that exists with --dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("no permission to reach the directory %s; name another one with --dir, or run the command with sudo", dir)
	case err != nil:
		return "", fmt.Errorf("the directory %s cannot be used: %w", dir, err)
	case !st.IsDir():
		return "", fmt.Errorf("%s is not a directory; name one with --dir", dir)
	}
	err = unix.Access(dir, unix.W_OK|unix.X_OK)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("no permission to write in the directory %s; name another one with --dir, or run the command as its owner%s, or with sudo", dir, ownerName(st))
	case err != nil:
		return "", fmt.Errorf("the directory %s cannot be written in: %w", dir, err)
	}
	return dir, nil
}

// checkSpace tells whether so many octets and files have room in dir.
func checkSpace(dir string, need, files int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("the free space of %s cannot be read: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("not enough space in %s: the measurements need %s, and %s are free; make room, choose a shorter --duration, or name another disk with --dir",
			dir, octets(need), octets(free))
	}
	if st.Files > 0 && int64(st.Ffree) < files { // without a limit the number is 0
		return fmt.Errorf("not enough inodes in %s: the measurements need %d, and %d are free; choose a shorter --duration, or name another disk with --dir",
			dir, files, st.Ffree)
	}
	return nil
}

// knownFileSystem is a kind of file system, with what an owner should know of it.
type knownFileSystem struct {
	magic   int64
	name    string
	warning string
}

const (
	inMemory     = "this is memory and no disk: what a sync costs does not show, and nothing would survive a restart"
	ofAContainer = "this is the file system of a container, which may not sync at all: measure the volume that the mail is to be on"
	overANetwork = "this file system is on another machine: what a sync means is up to that one, and mail is better on a local disk"
)

// fileSystem tells the kind of the file system that dir is on, and what speaks
// against measuring on it; empty when nothing does.
func fileSystem(dir string) (name, warning string, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", "", fmt.Errorf("the file system of %s cannot be read: %w", dir, err)
	}
	known := []knownFileSystem{
		{unix.EXT4_SUPER_MAGIC, "ext4", ""},
		{unix.XFS_SUPER_MAGIC, "xfs", ""},
		{unix.BTRFS_SUPER_MAGIC, "btrfs", ""},
		{unix.F2FS_SUPER_MAGIC, "f2fs", ""},
		{0x2fc12fc1, "zfs", ""},
		{unix.TMPFS_MAGIC, "tmpfs", inMemory},
		{unix.RAMFS_MAGIC, "ramfs", inMemory},
		{unix.OVERLAYFS_SUPER_MAGIC, "overlay", ofAContainer},
		{unix.NFS_SUPER_MAGIC, "nfs", overANetwork},
		{unix.SMB2_SUPER_MAGIC, "smb", overANetwork},
		{unix.CIFS_SUPER_MAGIC, "cifs", overANetwork},
		{unix.V9FS_MAGIC, "9p", overANetwork},
	}
	magic := int64(st.Type) & 0xffffffff // signed, of 32 bits, on some machines
	i := slices.IndexFunc(known, func(k knownFileSystem) bool { return k.magic == magic })
	if i < 0 {
		return fmt.Sprintf("file system %#x", magic), "", nil
	}
	return known[i].name, known[i].warning, nil
}
