// Package replace writes files that are never seen half.
package replace

import (
	"errors"
	"os"
	"path/filepath"
)

// File writes a file that only its owner can read, whole or not at all, in place of
// the one there is.
func File(name string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
