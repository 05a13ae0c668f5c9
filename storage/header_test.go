package storage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLostHeaderBringsNothingBack: one block of the journal is lost after an end in
// order, in whichever of its files. What was removed by then stays away.
func TestLostHeaderBringsNothingBack(t *testing.T) {
	v := freshServer(t)
	for n := range 3 {
		deliver(t, v.Store, n, fmt.Sprintf("message %d\n", n), alice)
	}
	v.checkpoint(context.Background())
	m := openDrop(t, v.Store, alice)
	if n, err := m.Remove(context.Background(), []int{0, 1, 2}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	m.Close()
	v.end(t)
	for range 2 { // the journal goes on in another file each time
		if err := v.start(); err != nil {
			t.Fatal(err)
		}
		deliver(t, v.Store, 4, "the last\n", "bob@example.org")
		v.end(t)
		removeAll(t, boxDir(v.data, "bob@example.org"))
	}
	files, err := filepath.Glob(filepath.Join(v.data, journalDir, "segment-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b[:4096], []byte{0}) == 4096 {
			continue
		}
		for _, unread := range []bool{true, false} {
			data := crashed(t, v.data)
			r := newServer(t, data)
			lost := filepath.Join(data, journalDir, filepath.Base(file))
			if unread {
				r.Store.journalOptions.Read = func(f *os.File, p []byte, off int64) (int, error) {
					if off < 4096 && filepath.Base(f.Name()) == filepath.Base(file) {
						return 0, unix.EIO
					}
					return f.ReadAt(p, off)
				}
			} else {
				overwrite(t, lost, func(b []byte) { b[30] ^= 1 })
			}
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			holds(t, lost, data, alice)
			if !strings.Contains(r.log.String(), "its copy is used") || strings.Contains(r.log.String(), "is damaged") {
				t.Errorf("the log says %s", r.log)
			}
		}
	}
}
