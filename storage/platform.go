package storage

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkKernel refuses kernels whose syncfs does not tell of failed writes.
func checkKernel() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release := unix.ByteSliceToString(name.Release[:])
	if !kernelSuffices(release) {
		return fmt.Errorf("this is Linux %s; 5.8 or later is needed, as older ones do not tell of every failed write", release)
	}
	return nil
}

func kernelSuffices(release string) bool {
	numbers := strings.FieldsFunc(release, func(c rune) bool { return c < '0' || c > '9' })
	if len(numbers) < 2 {
		return true // not a number that we know how to read
	}
	major, _ := strconv.Atoi(numbers[0])
	minor, _ := strconv.Atoi(numbers[1])
	return major > 5 || major == 5 && minor >= 8
}

// doubtful names a file system that does not sync all that it was given when syncfs
// says so, or does not tell of every write that failed; "" for others. magic is what
// statfs calls it.
func doubtful(magic uint32) string {
	switch magic {
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "SMB"
	case unix.V9FS_MAGIC:
		return "9P"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	}
	return ""
}

// warnOfFileSystems tells where mail or the journal is not safe in a power cut.
func (s *Store) warnOfFileSystems() {
	for _, dir := range []string{"mail", journalDir} {
		path := filepath.Join(s.dataDir, dir)
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			continue // whoever needs it will say so
		}
		if name := doubtful(uint32(st.Type)); name != "" {
			s.log.Warn("a power cut may lose mail on this file system, use a local one", "directory", path, "type", name)
		}
	}
}
