package storage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWarned(t *testing.T) {
	s, data := openStore(t)
	const ann = "ann@example.org"
	check := func(want int) {
		t.Helper()
		if n, err := s.Warned(ann); n != want || err != nil {
			t.Errorf("%d, %v, want %d", n, err, want)
		}
	}
	check(0)
	visit := Visit{time.Unix(1e9, 0).UTC(), "POP3", "192.0.2.7"}
	for _, level := range []int{2, 1, 999, 0, 1} {
		if err := s.SetWarned(ann, level); err != nil {
			t.Fatal(err)
		}
		check(level)
		if v, err := s.LastVisit(ann); level == 2 && v != (Visit{}) || err != nil {
			t.Errorf("a visit of nobody: %v, %v", v, err)
		}
		m := openDrop(t, s, ann)
		if err := m.Sign(visit); err != nil {
			t.Fatal(err)
		}
		m.Close()
		check(level)
	}
	if v, err := s.LastVisit(ann); v != visit || err != nil {
		t.Errorf("the visit is %v, %v", v, err)
	}
	if err := s.SetWarned(ann, 1000); err == nil {
		t.Error("a level that has no room is taken")
	}
	if err := s.RemoveMailbox(context.Background(), ann); err != nil {
		t.Fatal(err)
	}
	check(0)
	for _, text := range []string{"x", "-1", "1 2", "1"} {
		put(t, filepath.Join(data, "locks", "example.org", "ann"), strings.Repeat(" ", visitSize)+text)
		check(0)
	}
	if err := os.RemoveAll(filepath.Join(data, "locks", "example.org")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetWarned(ann, 3); err != nil {
		t.Fatal(err)
	}
	check(3)
}
