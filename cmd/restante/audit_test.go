package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests of the files audit_* let programs that attack mail servers, or judge
// them, loose on the program: "make audit". They run where TEST_AUDIT is set; one
// whose program is not installed is skipped if that is "optional".

// auditor finds a program, and tells its version.
func auditor(t *testing.T, name string, version ...string) {
	t.Helper()
	mode := os.Getenv("TEST_AUDIT")
	if mode == "" {
		t.Skip(`no audit asked for: "make audit"`)
	}
	if _, err := exec.LookPath(name); err != nil {
		if mode == "optional" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if len(version) > 0 {
		out, _ := exec.Command(name, version...).CombinedOutput() // for people to read
		for line := range strings.Lines(string(out)) {
			if strings.Contains(strings.ToLower(line), name) && strings.ContainsAny(line, "0123456789") {
				t.Log(strings.TrimSpace(line))
				break
			}
		}
	}
}

// auditQuickly tells whether what takes minutes is to be left out.
func auditQuickly() bool { return os.Getenv("TEST_AUDIT") == "quick" }

// audit runs a program and returns what it said. Its exit status means something
// else with each program, and is not looked at.
func audit(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	t.Logf("%s %s", name, strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir()
	cmd.WaitDelay = time.Second // what it has started may hold its output open
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s did not end within %v:\n%s", name, limit, out)
	}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out)
}

// auditServer is a server with a certificate of a certificate authority, such as a
// real one has, of this kind of key: "ECDSA" or "RSA".
func auditServer(t *testing.T, kind string, o serverOptions) *testServer {
	t.Helper()
	s := prepareServer(t, o)
	for _, user := range []string{"alice", "bob"} {
		restante(t, s.config, testPassword+"\n", "user", "add", user+"@"+testDomain, "--password-stdin")
	}
	authority := newKey(t, "ECDSA")
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority", Organization: []string{"Test"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 89), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CRLDistributionPoints: []string{"http://crl.invalid/1.crl"}, // nobody is asked
	}
	key := newKey(t, kind)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	s.cert = filepath.Join(s.dir, "authority.crt")
	writePEM(t, s.cert, "CERTIFICATE", signed(t, issuer, issuer, authority.Public(), authority))
	writePEM(t, filepath.Join(s.dir, "leaf.crt"), "CERTIFICATE", signed(t, leaf, issuer, key.Public(), authority))
	writePEM(t, filepath.Join(s.dir, "leaf.key"), "PRIVATE KEY", private)
	s.appendConfig(t, certificateSetting("leaf.crt", "leaf.key"))
	s.start(o)
	return s
}

func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	if kind == "RSA" {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(t, err)
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func signed(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	must(t, err)
	return raw
}

// unharmed expects that a server still serves, and had no fault of its own.
func (s *testServer) unharmed(t *testing.T) {
	t.Helper()
	before := len(s.files("bob"))
	s.deliver(t, []byte("Subject: after the audit\r\n\r\n"), "bob@"+testDomain)
	s.talk(t, "pop3s").logIn("bob").want("STAT", fmt.Sprintf("+OK %d ", before+1))
	for line := range strings.Lines(s.log.text()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("a fault of the server: %s", line)
		}
	}
}

// TestAuditSwaks plays the parts of a stranger and of a user.
func TestAuditSwaks(t *testing.T) {
	auditor(t, "swaks", "--version")
	s := auditServer(t, "ECDSA", serverOptions{})
	host, port, err := net.SplitHostPort(s.smtp)
	must(t, err)
	for _, c := range []struct {
		name, want string
		flags      []string
	}{
		{"a user", "<-  250 2.0.0 OK", []string{"--to", "alice@" + testDomain}},
		{"encrypted", "<~  250 2.0.0 OK", []string{"--to", "alice@" + testDomain, "--tls", "--tls-verify", "--tls-ca-path", s.cert, "--tls-sni", "localhost"}},
		{"relay", "<** 550 5.7.1 ", []string{"--to", "someone@elsewhere.example"}},
		{"relay, from one of ours", "<** 550 5.7.1 ", []string{"--from", "alice@" + testDomain, "--to", "someone@elsewhere.example"}},
		{"nobody", "<** 550 5.1.1 ", []string{"--to", "nobody@" + testDomain}},
		{"a login on the port for mail of others", "*** Host did not advertise authentication",
			[]string{"--to", "alice@" + testDomain, "--auth", "--auth-user", "alice", "--auth-password", "x", "--tls"}},
		{"pipelined", "<-  250 2.0.0 OK", []string{"--to", "alice@" + testDomain, "--pipeline"}},
		{"an old client", "<-  250 2.0.0 OK", []string{"--to", "alice@" + testDomain, "--protocol", "SMTP"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := audit(t, time.Minute, "swaks", append([]string{"--server", host, "--port", port, "--ehlo", "client.example",
				"--from", "sender@client.example"}, c.flags...)...)
			if !strings.Contains(out, "\n"+c.want) && !strings.HasPrefix(out, c.want) {
				t.Errorf("no %q in\n%s", c.want, out)
			}
		})
	}
	s.unharmed(t)
}
