package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"restante/cmd/restante/internal/config"
)

// owner of the data directory: who a command started by root becomes, so that
// no file that root owns appears among the mail.
type owner struct{ uid, gid int }

// ownerOf reads the owner of the data directory. The second result tells
// whether this process is root and the owner is somebody else.
func ownerOf(dir string) (owner, bool, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return owner{}, false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{}, false, fmt.Errorf("%s: its owner cannot be read", dir)
	}
	o := owner{uid: int(sys.Uid), gid: int(sys.Gid)}
	return o, os.Geteuid() == 0 && o.uid != 0, nil
}

// serveAs is ownerOf for a server, which may be told another user.
func serveAs(c *config.Config) (owner, bool, error) {
	if c.User == "" || os.Geteuid() != 0 {
		return ownerOf(c.DataDir)
	}
	u, err := user.Lookup(c.User)
	if err != nil {
		return owner{}, false, fmt.Errorf("the setting user: there is no user %q on this machine", c.User)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return owner{}, false, fmt.Errorf("the setting user: %w", err)
	}
	return owner{uid, gid}, uid != 0, nil
}

// refuseRoot keeps a server from being root's by mistake.
func refuseRoot(c *config.Config) error {
	if os.Geteuid() != 0 || c.User == "root" {
		return nil
	}
	o, _, err := serveAs(c)
	if err != nil || o.uid != 0 {
		return nil // what is wrong is told by start
	}
	return fmt.Errorf("the server does not run as root, and the data directory %s is root's: give it to a user made for the server, as in \"useradd --system restante; chown -R restante: %s\", or set user = \"root\"", c.DataDir, c.DataDir)
}

// becomeOwner gives up root for the owner of dir, for good. It does nothing for
// other users, and nothing when dir does not exist or is root's own.
func becomeOwner(dir string) error {
	o, foreign, err := ownerOf(dir)
	if err != nil || !foreign {
		return nil // a missing directory is told by checkDataDir in its own words
	}
	return o.become()
}

func (o owner) become() error {
	if err := syscall.Setgroups([]int{o.gid}); err != nil {
		return o.failed(err)
	}
	if err := syscall.Setresgid(o.gid, o.gid, o.gid); err != nil {
		return o.failed(err)
	}
	if err := syscall.Setresuid(o.uid, o.uid, o.uid); err != nil {
		return o.failed(err)
	}
	return nil
}

// act makes files as the owner while do runs; root comes back after it. It is
// for the start of a server, which still has to bind low ports as root.
func (o owner) act(do func() error) error {
	if err := syscall.Setresgid(o.gid, o.gid, 0); err != nil {
		return o.failed(err)
	}
	if err := syscall.Setresuid(o.uid, o.uid, 0); err != nil {
		return o.failed(err)
	}
	err := do()
	if back := syscall.Setresuid(0, 0, 0); back != nil {
		return fmt.Errorf("becoming root again: %w", back)
	}
	if back := syscall.Setresgid(0, 0, 0); back != nil {
		return fmt.Errorf("becoming root again: %w", back)
	}
	return err
}

func (o owner) failed(err error) error {
	return fmt.Errorf("becoming user %d, the owner of the data directory: %w", o.uid, err)
}

// ownerName is the owner of a file as " (name)", empty when it is unknown.
func ownerName(st fs.FileInfo) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(int(sys.Uid)))
	if err != nil {
		return ""
	}
	return " (" + u.Username + ")"
}
