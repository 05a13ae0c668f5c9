package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// issue writes a certificate for the names and its key as name.pem and name.key.
func issue(t *testing.T, dir, name string, notAfter time.Time, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     names,
		NotBefore:    notAfter.AddDate(-1, 0, 0),
		NotAfter:     notAfter,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	writePEM(t, p.Certificate, "CERTIFICATE", cert)
	writePEM(t, p.Key, "PRIVATE KEY", private)
	return p
}

func writePEM(t *testing.T, name, blockType string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: data}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func nextYear() time.Time { return time.Now().AddDate(0, 11, 0) }

// served is the leaf that a client gets that asks for name.
func served(t *testing.T, m *Manager, name string) *x509.Certificate {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, m.Config()).Handshake() }()
	c := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0]
}

func TestChoice(t *testing.T) {
	dir := t.TempDir()
	m, err := openPairs([]Pair{
		issue(t, dir, "default", nextYear(), "mail.example.org"),
		issue(t, dir, "wild", nextYear(), "*.Example.net"),
		issue(t, dir, "exact", nextYear(), "pop.example.net"),
		issue(t, dir, "late", nextYear(), "mail.example.org"),
	}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, want string }{
		{"", "default"}, // many mail servers name nothing
		{"mail.example.org", "default"},
		{"MAIL.example.org", "default"},
		{"pop.example.net", "exact"},
		{"smtp.example.net", "wild"},
		{"a.b.example.net", "default"}, // a wildcard stands for one label
		{"example.net", "default"},
		{"elsewhere.example", "default"},
	} {
		if got := served(t, m, test.name).Subject.CommonName; got != test.want {
			t.Errorf("for %q: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	m, err := openPairs(nil, t.TempDir(), "mail.example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		client, server := net.Pipe()
		go func() {
			_ = tls.Server(server, m.Config()).Handshake()
			server.Close()
		}()
		err := tls.Client(client, &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true}).Handshake()
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		client.Close()
	}
}

func TestBadPairs(t *testing.T) {
	dir := t.TempDir()
	good := issue(t, dir, "good", nextYear(), "a.example")
	other := issue(t, dir, "other", nextYear(), "b.example")
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked")
	writePEM(t, locked, "ENCRYPTED PRIVATE KEY", []byte{1})
	missing := filepath.Join(dir, "missing")
	for _, test := range []struct {
		pair Pair
		file string
		want string
	}{
		{Pair{good.Certificate, other.Key}, other.Key, "does not match"},
		{Pair{missing, good.Key}, missing, "certificate " + missing + ": file does not exist"},
		{Pair{good.Certificate, missing}, missing, "private key " + missing + ": file does not exist"},
		{Pair{dir, good.Key}, dir, "is a directory"},
		{Pair{empty, good.Key}, empty, "certificate input"},
		{Pair{good.Certificate, empty}, empty, "key input"},
		{Pair{good.Key, good.Certificate}, good.Key, "certificate"},
		{Pair{good.Certificate, locked}, locked, "passphrase"},
	} {
		_, err := Check(Options{Pairs: []Pair{good, test.pair}})
		if err == nil {
			t.Errorf("%v was accepted", test.pair)
			continue
		}
		if text := err.Error(); !strings.Contains(text, test.file) || !strings.Contains(text, test.want) || strings.Contains(text, "\n") {
			t.Errorf("%v: %q, want one line with %q", test.pair, text, test.want)
		}
	}
	// Each wrong pair is reported.
	if _, err := Check(Options{Pairs: []Pair{{missing, good.Key}, good, {empty, good.Key}}}); err == nil || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), empty) {
		t.Errorf("two wrong pairs: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	p := issue(t, t.TempDir(), "a", nextYear(), "a.example")
	if err := os.Chmod(p.Key, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(Options{Pairs: []Pair{p}}); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), p.Key) {
		t.Errorf("got %v", err)
	}
}

func TestDescription(t *testing.T) {
	dir := t.TempDir()
	open := issue(t, dir, "open", nextYear(), "a.example", "b.example")
	if err := os.Chmod(open.Key, 0o604); err != nil {
		t.Fatal(err)
	}
	soon := issue(t, dir, "soon", time.Now().Add(expiresSoon-time.Hour), "c.example")
	expired := issue(t, dir, "expired", time.Now().Add(-time.Hour), "e.example")
	early := issue(t, dir, "early", time.Now().AddDate(2, 0, 0), "f.example")
	group := issue(t, dir, "group", nextYear(), "d.example")
	if err := os.Chmod(group.Key, 0o640); err != nil {
		t.Fatal(err)
	}
	infos, err := Check(Options{Pairs: []Pair{open, soon, group, expired, early}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ source, warning string }{
		{open.Certificate, "chmod o= " + open.Key},
		{soon.Certificate, soon.Certificate + " expires on"},
		{group.Certificate, ""},
		{expired.Certificate, expired.Certificate + " expired on"},
		{early.Certificate, early.Certificate + " is not valid before"},
	} {
		info := infos[i]
		warning := strings.Join(info.Warnings, "\n")
		if info.Source != want.source || !strings.Contains(warning, want.warning) || (want.warning == "" && warning != "") {
			t.Errorf("%+v, want a warning %q", info, want.warning)
		}
		if s := info.String(); !strings.Contains(s, info.Names[0]) || !strings.Contains(s, info.Source) {
			t.Errorf("shown as %q", s)
		}
	}
	if !slices.Equal(infos[0].Names, []string{"a.example", "b.example"}) {
		t.Errorf("names %q", infos[0].Names)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	a := issue(t, dir, "a", nextYear(), "a.example")
	m, err := openPairs([]Pair{a}, filepath.Join(dir, "self"), "mail.example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	b := issue(t, dir, "b", nextYear(), "b.example")
	if err := m.Reload([]Pair{b, {"missing", "missing"}}); err == nil {
		t.Fatal("a missing file was accepted")
	}
	if got := served(t, m, "").Subject.CommonName; got != "a" {
		t.Errorf("after a failed reload: %s", got)
	}
	config := m.Config() // one from before follows too
	if err := m.Reload([]Pair{b}); err != nil {
		t.Fatal(err)
	}
	got, err := config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || got.Leaf.Subject.CommonName != "b" || m.Describe()[0].Source != b.Certificate {
		t.Errorf("after a reload: %v %v", m.Describe(), err)
	}
	if err := m.Reload(nil); err != nil || !m.Describe()[0].SelfSigned || len(m.Describe()) != 1 {
		t.Errorf("after a reload without pairs: %v %v", m.Describe(), err)
	}
}

func TestReloadBesideHandshakes(t *testing.T) {
	dir := t.TempDir()
	p := issue(t, dir, "a", nextYear(), "a.example")
	m, err := openPairs([]Pair{p}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if err := m.Reload([]Pair{p}); err != nil {
					t.Error(err)
				}
				if c, err := m.Config().GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example"}); err != nil || c.Leaf == nil {
					t.Errorf("no certificate: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// TestFetched: a certificate that comes later takes the place of the self-signed
// one, and stands behind those that are configured. A damaged one is nobody's.
func TestFetched(t *testing.T) {
	dir := t.TempDir()
	own, other := issue(t, dir, "own", nextYear(), "own.example.org"), issue(t, dir, "other", nextYear(), "mail.example.org")
	fetched := filepath.Join(dir, "fetched.pem")
	o := Options{SelfSignedDir: filepath.Join(dir, "tls"), Hostname: "mail.example.org", Fetched: fetched, MinVersion: tls.VersionTLS13}
	m, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Describe()[0].SelfSigned || m.Config().MinVersion != tls.VersionTLS13 {
		t.Errorf("before it comes: %+v", m.Describe())
	}
	join := func(p Pair) {
		cert, key := read(t, p.Certificate), read(t, p.Key)
		if err := os.WriteFile(fetched, append(cert, key...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	join(other)
	if err := m.Reload(nil); err != nil {
		t.Fatal(err)
	}
	if d := m.Describe(); len(d) != 1 || d[0].Source != fetched || d[0].Issuer == "" {
		t.Errorf("when it is there: %+v", d)
	}
	o.Pairs = []Pair{own}
	if d, err := Check(o); err != nil || len(d) != 2 || d[0].Source != own.Certificate || d[1].Source != fetched {
		t.Errorf("with a configured one: %+v, %v", d, err)
	}
	if err := os.WriteFile(fetched, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Check(o); err != nil || len(d) != 1 {
		t.Errorf("a damaged one: %+v, %v", d, err)
	}
	o.Pairs = nil
	if d, err := Check(o); err != nil || len(d) != 1 || !d[0].SelfSigned {
		t.Errorf("a damaged one alone: %+v, %v", d, err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestExpiresSoon: a certificate for some days is renewed in its last days, and is no
// reason to warn before.
func TestExpiresSoon(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, test := range []struct {
		life, left time.Duration
		warns      bool
	}{
		{90 * day, 15 * day, false}, {90 * day, 13 * day, true},
		{6 * day, 5 * day, false}, {6 * day, 2 * day, false}, {6 * day, day, true},
	} {
		leaf := &x509.Certificate{NotBefore: now.Add(test.left - test.life), NotAfter: now.Add(test.left)}
		if got := warnings(Pair{}, leaf, now); len(got) > 0 != test.warns {
			t.Errorf("%v of %v: %q", test.left, test.life, got)
		}
	}
}

// openPairs is Open for what most tests are about.
func openPairs(pairs []Pair, selfSignedDir, hostname string, extraNames []string) (*Manager, error) {
	return Open(Options{Pairs: pairs, SelfSignedDir: selfSignedDir, Hostname: hostname, ExtraNames: extraNames})
}
