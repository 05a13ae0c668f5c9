package storage

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestVisit(t *testing.T) {
	s, data := openStore(t)
	const ann = "ann@example.org"
	check := func(want Visit) {
		t.Helper()
		if v, err := s.LastVisit(ann); v != want || err != nil {
			t.Errorf("%v, %v, want %v", v, err, want)
		}
	}
	check(Visit{})
	m := openDrop(t, s, ann)
	check(Visit{})
	for _, v := range []Visit{
		{time.Unix(1e9, 0).UTC(), "POP3+TLS", "2001:db8:1111:2222:3333:4444:5555:6666"},
		{time.Unix(2e9, 0).UTC(), "POP3", "192.0.2.7"}, // shorter than the one before
	} {
		if err := m.Sign(v); err != nil {
			t.Fatal(err)
		}
		check(v)
	}
	if err := m.Sign(Visit{time.Unix(1, 0), "POP3", string(make([]byte, visitSize))}); err == nil {
		t.Error("a visit that is too long was taken")
	}
	m.Close()
	if err := m.Sign(Visit{}); err == nil {
		t.Error("signed after the end")
	}
	openDrop(t, s, ann).Close()
	check(Visit{time.Unix(2e9, 0).UTC(), "POP3", "192.0.2.7"})
	for _, text := range []string{"", "x", "2000000000 POP3 192.0.2.7", "a b c" + string(make([]byte, visitSize))} {
		if err := os.WriteFile(filepath.Join(data, "locks", "example.org", "ann"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		check(Visit{})
	}
}

// Where nothing can be written a mailbox is locked all the same.
func TestLockReadOnly(t *testing.T) {
	s, data := openStore(t)
	deliver(t, s, 1, "x\n", "ann@example.org")
	if err := os.Chmod(filepath.Join(data, "locks", "example.org", "ann"), 0o400); err != nil {
		t.Fatal(err)
	}
	asMortal(t, data, nil, func() {
		m, err := s.OpenMaildrop(t.Context(), "ann@example.org")
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		if m.Sign(Visit{time.Unix(1, 0), "POP3", "::1"}) == nil {
			t.Error("signed what cannot be written")
		}
	})
}
