package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// makeSigned writes NAME.crt and NAME.key, signed by another key, for a year.
func makeSigned(t *testing.T, dir, name string, hosts ...string) {
	t.Helper()
	makeCertificate(t, dir, name, time.Now().AddDate(1, 0, 0), true, hosts...)
}

func makeCertificate(t *testing.T, dir, name string, until time.Time, signed bool, hosts ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: hosts, NotBefore: until.AddDate(-2, 0, 0), NotAfter: until}
	parent, signer := template, key
	if signed {
		if signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		parent = &x509.Certificate{Subject: pkix.Name{CommonName: "Test Authority"}}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+".crt"), "CERTIFICATE", raw)
	writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", private)
}

// TestCertList: names, issuer, end and source of each certificate; what ends within two
// weeks is warned of, by the command and in the log.
func TestCertList(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	if out := restante(t, s.config, "", "cert", "list"); !strings.Contains(out, "no certificate yet; the server makes a self-signed one when it starts") {
		t.Errorf("before there is one: %s", out)
	}
	if out := restante(t, s.config, "", "cert", "list", "--json"); out != "[]\n" {
		t.Errorf("before there is one: %s", out)
	}
	day := 24 * time.Hour
	good := time.Now().Add(15 * day)
	makeCertificate(t, s.dir, "good", good, true, "mail.example.org", "mx.example.org")
	makeCertificate(t, s.dir, "soon", time.Now().Add(13*day+12*time.Hour), true, "soon.example.org")
	makeCertificate(t, s.dir, "late", time.Now().Add(-12*time.Hour), false, "late.example.org")
	for _, name := range []string{"good", "soon", "late"} {
		s.appendConfig(t, certificateSetting(name+".crt", name+".key"))
	}
	text, stderr, code := restanteStatus(t, s.config, "", "cert", "list")
	if code != exitOK || strings.Count(text, "\n") != 4 || !strings.HasPrefix(text, "NAMES") {
		t.Errorf("cert list: %d\n%s", code, text)
	}
	file := func(name string) string { return filepath.Join(s.dir, name+".crt") }
	for _, part := range []string{"mail.example.org mx.example.org", "Test Authority", good.UTC().Format(time.DateOnly), "file " + file("good"), "self-signed " + file("late")} {
		if !strings.Contains(text, part) {
			t.Errorf("cert list has no %q:\n%s", part, text)
		}
	}
	warnings := []string{"certificate " + file("soon") + " expires on ", "certificate " + file("late") + " expired on "}
	for _, w := range warnings {
		if !strings.Contains(stderr, "warning: "+w) {
			t.Errorf("no warning %q:\n%s", w, stderr)
		}
	}
	if strings.Contains(stderr, file("good")) {
		t.Errorf("a warning of one that is good:\n%s", stderr)
	}
	var rows []certRow
	out, _, _ := restanteStatus(t, s.config, "", "cert", "list", "--json")
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 3 {
		t.Fatalf("%v, %s", err, out)
	}
	for i, want := range []struct {
		days, warnings int
		source         string
	}{{14, 0, "file"}, {13, 1, "file"}, {-1, 1, "self-signed"}} {
		if r := rows[i]; r.Days != want.days || len(r.Warnings) != want.warnings || r.Source != want.source {
			t.Errorf("%+v, want %+v", r, want)
		}
	}
	s.start(serverOptions{})
	for _, w := range warnings {
		eventually(t, "the log says "+w, func() bool { return strings.Contains(s.log.text(), w) })
		if n := strings.Count(s.log.text(), w); n != 1 {
			t.Errorf("%d lines of the log say %q", n, w)
		}
	}
}

// TestCertListTroubles: files that cannot be used are named, with the reason.
func TestCertListTroubles(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	makeCertificate(t, s.dir, "good", time.Now().AddDate(1, 0, 0), true)
	writeFile(t, filepath.Join(s.dir, "garbage"), []byte("garbage"))
	s.appendConfig(t, certificateSetting("good.crt", "good.key")+certificateSetting("missing.crt", "good.key")+certificateSetting("garbage", "good.key"))
	out, stderr, code := restanteStatus(t, s.config, "", "cert", "list")
	if code != exitFailed || out != "" || !strings.Contains(stderr, "missing.crt: file does not exist") || !strings.Contains(stderr, "garbage") {
		t.Errorf("%d, %s%s", code, out, stderr)
	}
}

// TestAskTroubles: what commands say that ask a server, when none can be asked.
func TestAskTroubles(t *testing.T) {
	commands := [][]string{
		{"status"}, {"status", "--json"}, {"sessions", "list"}, {"sessions", "list", "--json"}, {"sessions", "kick", "x"},
		{"auth", "bans", "list"}, {"auth", "bans", "list", "--json"}, {"auth", "bans", "clear", "192.0.2.1"}, {"auth", "bans", "clear", "--all"},
	}
	s := prepareServer(t, serverOptions{})
	ask := func(why string) {
		t.Helper()
		for _, args := range commands {
			out, stderr, code := restanteStatus(t, s.config, "", args...)
			if code != exitFailed || out != "" || !strings.Contains(stderr, why) {
				t.Errorf("%q: %d, %q, want %q", args, code, out+stderr, why)
			}
			oneLine(t, stderr)
		}
	}
	ask("no server is running on the data directory " + filepath.Join(s.dir, "data") + "; start it with \"restante serve\"")

	// Somebody else answers.
	run := filepath.Join(s.dir, "data", "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "restante.sock")
	for _, answer := range []string{"", "220 ESMTP\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"pid",
		"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\x1b[2Jhaha"} {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write([]byte(answer))
				c.Close()
			}
		}()
		ask("the server")
		l.Close()
	}
	writeFile(t, socket, nil)
	ask("no server is running")
	s.start(serverOptions{}) // it takes the place
	for _, args := range commands {
		_, stderr, code := restanteStatus(t, s.config, "", args...)
		if clear := slices.Contains(args, "192.0.2.1"); (code != exitOK) != (clear || slices.Contains(args, "kick")) {
			t.Errorf("%q: %d, %s", args, code, stderr)
		}
	}
}
