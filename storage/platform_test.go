package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKernelSuffices(t *testing.T) {
	for release, want := range map[string]bool{
		"5.8.0-63-generic": true, "6.18.44-fc-v595": true, "10.0": true, "5.10": true, "strange": true,
		"5.7.19": false, "4.18.0-553.el8": false, "3.10.0": false,
	} {
		if kernelSuffices(release) != want {
			t.Errorf("%s: %t", release, !want)
		}
	}
}

// TestDoubtfulFileSystem: mail in the layer of a container, and not in a volume.
func TestDoubtfulFileSystem(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	mail, options := filepath.Join(data, "mail"), "index=off"
	for _, dir := range []string{"lowerdir", "upperdir", "workdir"} {
		path := t.TempDir()
		options += "," + dir + "=" + path
	}
	if err := os.MkdirAll(mail, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", mail, "overlay", 0, options); err != nil {
		t.Skip("needs root and overlayfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mail, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	v := startServer(t, data)
	if log := v.log.String(); strings.Count(log, "use a local one") != 1 || !strings.Contains(log, "type=overlayfs") {
		t.Errorf("the log says %s", log)
	}
}
