package certs

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openSelf(t *testing.T, dir, hostname string, extra ...string) *Manager {
	t.Helper()
	m, err := openPairs(nil, dir, hostname, extra)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readAll(t *testing.T, dir string) (cert, key []byte) {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(dir, CertificateFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err = os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	m := openSelf(t, dir, "localhost", "127.0.0.1", "::1", "localhost")
	leaf := served(t, m, "localhost")
	roots := x509.NewCertPool()
	cert, _ := readAll(t, dir)
	if !roots.AppendCertsFromPEM(cert) {
		t.Fatal("the file holds no certificate")
	}
	for _, name := range []string{"localhost", "127.0.0.1", "[::1]"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "mail.example.org"}); err == nil {
		t.Error("valid for a foreign name")
	}
	if leaf.IsCA {
		t.Error("whoever trusts it trusts every certificate made with its key")
	}
	if left := time.Until(leaf.NotAfter); left < 9*365*24*time.Hour {
		t.Errorf("valid for %v", left)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, CertificateFile: 0o600, KeyFile: 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st.Mode().Perm(), err, want)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("files: %v %v", files, err)
	}
	if info := m.Describe()[0]; !info.SelfSigned || len(info.Warnings) > 0 || len(info.Names) != 3 {
		t.Errorf("%+v", info)
	}
}

func TestSelfSignedIsKept(t *testing.T) {
	for _, test := range []struct {
		what   string
		change func(dir string) error
		host   string
		extra  []string
		kept   bool
	}{
		{what: "nothing", host: "mail.example.org", kept: true},
		{what: "hostname", host: "mx.example.org"},
		{what: "more names", host: "mail.example.org", extra: []string{"::1"}},
		{what: "no key", host: "mail.example.org", change: func(dir string) error { return os.Remove(filepath.Join(dir, KeyFile)) }},
		{what: "no certificate", host: "mail.example.org", change: func(dir string) error { return os.Remove(filepath.Join(dir, CertificateFile)) }},
		{what: "another key", host: "mail.example.org", change: func(dir string) error { // a crash between the two files
			other := t.TempDir()
			openSelf(t, other, "x.example")
			return os.Rename(filepath.Join(other, KeyFile), filepath.Join(dir, KeyFile))
		}},
	} {
		dir := t.TempDir()
		openSelf(t, dir, "mail.example.org")
		before, _ := readAll(t, dir)
		if test.change != nil {
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
		}
		m := openSelf(t, dir, test.host, test.extra...)
		after, _ := readAll(t, dir)
		if kept := bytes.Equal(before, after); kept != test.kept {
			t.Errorf("%s: kept %v, want %v", test.what, kept, test.kept)
		}
		if got := served(t, m, "").DNSNames[0]; got != test.host {
			t.Errorf("%s: for %s, want %s", test.what, got, test.host)
		}
	}
}

func TestSelfSignedIsRenewed(t *testing.T) {
	s := newSelfSigned(t.TempDir(), "mail.example.org", nil)
	now := time.Now()
	if err := s.ensure(now); err != nil {
		t.Fatal(err)
	}
	first, _ := readAll(t, s.dir)
	expiry := now.AddDate(selfSignedYears, 0, 0)
	for _, test := range []struct {
		at      time.Time
		renewed bool
	}{
		{expiry.Add(-renewBefore - time.Minute), false},
		{expiry.Add(-renewBefore + time.Minute), true},
	} {
		if err := s.ensure(test.at); err != nil {
			t.Fatal(err)
		}
		if got, _ := readAll(t, s.dir); bytes.Equal(got, first) == test.renewed {
			t.Errorf("%v before it expires: renewed is not %v", expiry.Sub(test.at), test.renewed)
		}
	}
}

func TestForeignCertificateIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	p := issue(t, dir, "cert", nextYear(), "mail.example.org")
	if err := os.Rename(p.Key, filepath.Join(dir, KeyFile)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cert, key := readAll(t, dir)
		_, err := openPairs(nil, dir, "mail.example.org", nil)
		if err == nil || !strings.Contains(err.Error(), p.Certificate) {
			t.Errorf("got %v", err)
		}
		if c, k := readAll(t, dir); !bytes.Equal(c, cert) || !bytes.Equal(k, key) {
			t.Error("someone's files were changed")
		}
		if err := os.WriteFile(p.Certificate, []byte("no PEM"), 0o600); err != nil { // for the second round
			t.Fatal(err)
		}
	}
}

func TestSelfSignedNeedsItsDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPairs(nil, filepath.Join(file, "tls"), "mail.example.org", nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}
