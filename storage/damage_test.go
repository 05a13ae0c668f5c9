package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// fileOf is the path of the only message of a mailbox.
func fileOf(t testing.TB, data, name string) string {
	t.Helper()
	paths, _ := messagesOf(t, data, name)
	if len(paths) != 1 {
		t.Fatalf("%s has %q, want one", name, paths)
	}
	return filepath.Join(boxDir(data, name), paths[0])
}

// own gives a file an inode of its own.
func own(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, file)
	put(t, file, string(b))
	return file
}

// seen moves a file to cur/, with flags.
func seen(t testing.TB, file string) string {
	t.Helper()
	to := filepath.Join(filepath.Dir(filepath.Dir(file)), "cur", filepath.Base(file)+":2,FS")
	rename(t, file, to)
	return to
}

// scramble writes zeros over a part in the middle, as a block that was never
// written has them.
func scramble(t testing.TB, file string) {
	t.Helper()
	overwrite(t, file, func(b []byte) { clear(b[len(b)/2 : len(b)/2+5]) })
}

func scrambleLast(t testing.TB, file string) {
	t.Helper()
	overwrite(t, file, func(b []byte) { b[len(b)-1] = 'X' })
}

func overwrite(t testing.TB, file string, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	put(t, file, string(b))
}

func truncate(t testing.TB, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// messageNames lists the files in new/ of a mailbox.
func messageNames(t testing.TB, data, name string) []string {
	t.Helper()
	return filesIn(t, filepath.Join(boxDir(data, name), "new"))
}
