package replace

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	for _, text := range []string{"first", "", "second, and longer"} {
		if err := File(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		st, statErr := os.Stat(name)
		if err != nil || statErr != nil || string(got) != text || st.Mode() != 0o600 {
			t.Errorf("%q, mode %v, %v, %v", got, st.Mode(), err, statErr)
		}
	}
	// What cannot be put in its place leaves nothing behind.
	taken := filepath.Join(dir, "directory")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := File(taken, []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if err := File(filepath.Join(dir, "nowhere", "file"), nil); err == nil {
		t.Error("a file without a directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
}
