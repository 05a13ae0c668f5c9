package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mustRefresh is two calls of Refresh: the second finds the files as the first did.
func mustRefresh(t *testing.T, m *Manager) bool {
	t.Helper()
	if changed, err := m.Refresh(); changed || err != nil {
		t.Fatalf("files that were changed a moment ago: %t, %v", changed, err)
	}
	changed, err := m.Refresh()
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestRefresh(t *testing.T) {
	dir := t.TempDir()
	pair := issue(t, dir, "a", nextYear(), "mail.example.org")
	m, err := openPairs([]Pair{pair}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	first := served(t, m, "")
	for range 3 {
		if changed, err := m.Refresh(); changed || err != nil {
			t.Fatalf("unchanged files: %t, %v", changed, err)
		}
	}
	issue(t, dir, "a", nextYear(), "mail.example.org")
	if !mustRefresh(t, m) {
		t.Error("a renewed pair was not read")
	}
	second := served(t, m, "")
	if second.Equal(first) {
		t.Error("a renewed certificate is not used")
	}
	if mustRefresh(t, m) {
		t.Error("the renewed pair was read again")
	}
}

// TestRefreshBroken: a certificate without its key leaves the old one in use,
// which is told once, and heals with the key.
func TestRefreshBroken(t *testing.T) {
	dir := t.TempDir()
	pair := issue(t, dir, "a", nextYear(), "mail.example.org")
	other := issue(t, dir, "b", nextYear(), "mail.example.org")
	m, err := openPairs([]Pair{pair}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	first := served(t, m, "")
	rename(t, other.Certificate, pair.Certificate)
	if changed, err := m.Refresh(); changed || err != nil {
		t.Fatalf("half of a pair, just written: %t, %v", changed, err)
	}
	changed, err := m.Refresh()
	if changed || err == nil || !strings.Contains(err.Error(), pair.Certificate) {
		t.Fatalf("half of a pair: %t, %v", changed, err)
	}
	if changed, err := m.Refresh(); changed || err != nil {
		t.Errorf("the same half again: %t, %v", changed, err)
	}
	if !served(t, m, "").Equal(first) {
		t.Error("the old certificate is not in use")
	}
	rename(t, other.Key, pair.Key)
	if !mustRefresh(t, m) || served(t, m, "").Equal(first) {
		t.Error("the whole pair is not in use")
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestRefreshLink: programs that renew certificates let a link lead elsewhere.
func TestRefreshLink(t *testing.T) {
	dir := t.TempDir()
	old, renewed := issue(t, dir, "old", nextYear(), "mail.example.org"), issue(t, dir, "new", nextYear(), "mail.example.org")
	live := Pair{filepath.Join(dir, "live.pem"), filepath.Join(dir, "live.key")}
	link := func(to Pair) {
		for from, to := range map[string]string{live.Certificate: to.Certificate, live.Key: to.Key} {
			if err := os.Symlink(to, from+"~"); err != nil {
				t.Fatal(err)
			}
			rename(t, from+"~", from)
		}
	}
	link(old)
	m, err := openPairs([]Pair{live}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	first := served(t, m, "")
	link(renewed)
	if !mustRefresh(t, m) || served(t, m, "").Equal(first) {
		t.Error("what the link leads to now is not in use")
	}
}

// TestRefreshSelfSigned: the server's own certificate may be replaced as well.
func TestRefreshSelfSigned(t *testing.T) {
	dir := t.TempDir()
	m, err := openPairs(nil, dir, "mail.example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	if mustRefresh(t, m) {
		t.Error("a certificate just made was read again")
	}
	first := served(t, m, "")
	if err := newSelfSigned(dir, "mail.example.org", nil).create(time.Now()); err != nil {
		t.Fatal(err)
	}
	if !mustRefresh(t, m) || served(t, m, "").Equal(first) {
		t.Error("a new self-signed certificate is not used")
	}
}
