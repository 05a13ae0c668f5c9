package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority is Pebble, an ACME server for tests, with a DNS server of its own that
// has every name on the loopback.
type authority struct {
	url, roots string
	http, tls  string // where it looks for challenges
}

// freePorts are ports that nobody else gets before they are used: the system gives none
// of these by itself, and the port before them is held by the test, for others of its kind.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	const first, span, blocks = 10_000, 10, 2000
	for range blocks {
		block := first + span*rand.IntN(blocks)
		guard, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", block))
		if err != nil {
			continue
		}
		for ports = nil; len(ports) < n && isFree(block+1+len(ports)); {
			ports = append(ports, block+1+len(ports))
		}
		if len(ports) == n {
			t.Cleanup(func() { guard.Close() })
			return ports
		}
		guard.Close()
	}
	t.Fatal("no ports are free")
	return nil
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err == nil {
		l.Close()
	}
	return err == nil
}

// runAuthority starts an authority whose certificates live for some seconds.
func runAuthority(t *testing.T, life time.Duration) authority {
	t.Helper()
	client(t, "pebble")
	client(t, "pebble-challtestsrv")
	dir := t.TempDir()
	p := freePorts(t, 6)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	restanteCertificate(t, dir, cert, key)
	config := map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprint("127.0.0.1:", p[0]), "managementListenAddress": fmt.Sprint("127.0.0.1:", p[1]),
		"certificate": cert, "privateKey": key, "httpPort": p[2], "tlsPort": p[3], "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "x", "validityPeriod": int(life.Seconds())}},
	}}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, filepath.Join(dir, "pebble.json"), text)
	dns := fmt.Sprint("127.0.0.1:", p[4])
	background(t, "pebble-challtestsrv", "-dnsserver", dns, "-management", fmt.Sprint("127.0.0.1:", p[5]),
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", "")
	background(t, "pebble", "-config", file, "-dnsserver", dns)
	a := authority{url: fmt.Sprintf("https://127.0.0.1:%d/dir", p[0]), roots: cert,
		http: fmt.Sprint("127.0.0.1:", p[2]), tls: fmt.Sprint("127.0.0.1:", p[3])}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate of the authority: ", err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	eventually(t, "the authority answers", func() bool {
		r, err := web.Get(a.url)
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return a
}

// restanteCertificate is a self-signed certificate for the loopback, which the
// program makes when it starts.
func restanteCertificate(t *testing.T, dir, cert, key string) {
	t.Helper()
	s := prepareServer(t, serverOptions{})
	s.start(serverOptions{})
	s.stop(syscall.SIGTERM)
	for from, to := range map[string]string{"cert.pem": cert, "key.pem": key} {
		if err := os.Rename(filepath.Join(filepath.Dir(s.cert), from), to); err != nil {
			t.Fatal(err)
		}
	}
}

// background runs a program until the test ends.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s:\n%s", name, &out)
		}
	})
}

// settings are those of a server that asks the authority.
func (a authority) settings(how string) string {
	where := map[string]string{"http": a.http, "tls": a.tls}[how]
	other := map[string]string{"http": "acme_tls", "tls": "acme_http"}[how]
	return fmt.Sprintf(`
[tls]
acme = true
acme_email = "postmaster@example.org"
acme_names = ["mail.example.org", "mx.example.org"]
acme_directory = %q
acme_roots = %q
acme_%s = [%q]
%s = []
`, a.url, a.roots, how, where, other)
}

// issuedTo is the certificate that the server shows to a client that asks for name.
func (s *testServer) issuedTo(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", s.pop3s, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// TestACME: the self-signed certificate serves until that of the authority comes,
// by either proof, and it is renewed in time without a restart.
func TestACME(t *testing.T) {
	for _, how := range []string{"http", "tls"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a := runAuthority(t, 15*time.Second)
			s := prepareServer(t, serverOptions{settings: a.settings(how)})
			s.start(serverOptions{})
			s.log.one(t, "a self-signed certificate is in use until the authority gives one", nil)
			var first *x509.Certificate
			eventually(t, "a certificate of the authority is shown", func() bool {
				first = s.issuedTo(t, "mx.example.org")
				return strings.Contains(first.Issuer.CommonName, "Pebble")
			})
			if err := first.VerifyHostname("mail.example.org"); err != nil {
				t.Error(err)
			}
			for _, name := range []string{"", "mail.example.org", "elsewhere.example"} {
				if got := s.issuedTo(t, name); !strings.Contains(got.Issuer.CommonName, "Pebble") {
					t.Errorf("a client that asks for %q is shown that of %s", name, got.Issuer)
				}
			}
			rows := asJSON[[]certRow](t, s, "cert", "list")
			if len(rows) != 1 || rows[0].Source != "acme" || len(rows[0].Names) != 2 || !strings.Contains(rows[0].Issuer, "Pebble") {
				t.Errorf("cert list: %+v", rows)
			}
			eventually(t, "it is renewed", func() bool {
				return s.issuedTo(t, "").SerialNumber.Cmp(first.SerialNumber) != 0
			})
			dir := filepath.Join(s.dir, "data", "tls", "acme")
			for file, want := range map[string]os.FileMode{"": 0o700, "certificate.pem": 0o600, "account.pem": 0o600} {
				if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != want {
					t.Errorf("%s: %v %v", file, st, err)
				}
			}
			// It is there at once after a restart.
			if code := s.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
			s.start(serverOptions{})
			if got := s.issuedTo(t, ""); !strings.Contains(got.Issuer.CommonName, "Pebble") {
				t.Errorf("after a restart there is that of %s", got.Issuer)
			}
		})
	}
}

// TestACMEKeepsReloaded: a renewal leaves certificates in use that came by a reload.
func TestACMEKeepsReloaded(t *testing.T) {
	t.Parallel()
	a := runAuthority(t, 15*time.Second)
	s := prepareServer(t, serverOptions{settings: a.settings("http")})
	s.start(serverOptions{})
	const fetched = "certificate from the authority, in use now"
	eventually(t, "the first certificate", func() bool { return len(s.log.find(fetched, nil)) == 1 })
	own := makePair(t, s.dir, "own", "own.example.org")
	s.appendConfig(t, certificateSetting("own.crt", "own.key"))
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.log.one(t, "reloaded the settings and certificates", nil)
	eventually(t, "it is renewed", func() bool { return len(s.log.find(fetched, nil)) > 1 })
	if got := s.issuedTo(t, "own.example.org"); !got.Equal(own) {
		t.Errorf("after the renewal there is that of %s", got.Issuer)
	}
}

// TestACMEDueAtOnce: a certificate that is due for renewal when it comes is no reason to
// ask for the next one.
func TestACMEDueAtOnce(t *testing.T) {
	t.Parallel()
	a := runAuthority(t, time.Second)
	s := prepareServer(t, serverOptions{settings: a.settings("http")})
	s.start(serverOptions{})
	line := s.log.one(t, "no certificate from the authority", nil)
	if !strings.Contains(fmt.Sprint(line["error"]), "is the clock of this machine right?") {
		t.Errorf("the reason is %v", line["error"])
	}
	at, err := time.Parse(time.RFC3339, fmt.Sprint(line["next_try"]))
	if wait := time.Until(at); err != nil || wait < 3*time.Minute {
		t.Errorf("the next try is at %v, %v", line["next_try"], err)
	}
	s.log.one(t, "asking for a certificate", nil)
	if got := s.issuedTo(t, ""); !strings.Contains(got.Issuer.CommonName, "Pebble") {
		t.Errorf("there is that of %s", got.Issuer)
	}
}

// TestACMETakenPort: mail is served while a port for the proofs is taken, and no order is
// made in vain. The certificate comes when the port is free.
func TestACMETakenPort(t *testing.T) {
	t.Parallel()
	a := runAuthority(t, time.Hour)
	taken, err := net.Listen("tcp", a.http)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := prepareServer(t, serverOptions{settings: a.settings("http")})
	s.start(serverOptions{})
	const told = "the authority cannot come to this port, all else is served; it is tried again, and another may be used: see tls.acme_tls and tls.acme_http"
	eventually(t, "the port is told", func() bool {
		for _, r := range s.log.find("listening", nil) {
			if r["protocol"] == "acme-http" {
				t.Fatal("it listens on a port that is taken")
			}
		}
		return len(s.log.find(told, nil)) > 0
	})
	if line := s.log.one(t, told, nil); line["level"] != "ERROR" || !strings.Contains(fmt.Sprint(line["error"]), a.http) {
		t.Errorf("it is told as %v", line)
	}
	s.talk(t, "pop3s").want("QUIT", "+OK")
	if found := s.log.find("asking for a certificate", nil); len(found) > 0 {
		t.Error("the authority is asked, and cannot come")
	}
	taken.Close()
	eventually(t, "a certificate of the authority is shown", func() bool {
		return strings.Contains(s.issuedTo(t, "mx.example.org").Issuer.CommonName, "Pebble")
	})
	s.log.one(t, "listening", map[string]any{"protocol": "acme-http"})
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestACMETakenLowPort: who has given up root cannot try a low port again, and says so.
func TestACMETakenLowPort(t *testing.T) {
	t.Parallel() // it waits some seconds
	if start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); os.Geteuid() != 0 || err != nil || strings.TrimSpace(string(start)) != "1024" {
		t.Skipf("not root, or low ports are for everybody: %s, %v", start, err)
	}
	var taken net.Listener
	for port := 600; taken == nil && port < 1024; port++ {
		taken, _ = net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)) // others may be in use
	}
	if taken == nil {
		t.Skip("no low port is free")
	}
	defer taken.Close()
	a := authority{url: "https://127.0.0.1:1/dir", http: taken.Addr().String(), roots: filepath.Join(t.TempDir(), "roots.pem")}
	restanteCertificate(t, "", a.roots, a.roots+".key")
	s := prepareServer(t, serverOptions{settings: a.settings("http")})
	s.ownedByOther(t)
	if err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(a.roots)), 0o755), os.Chmod(filepath.Dir(a.roots), 0o755), os.Chmod(a.roots, 0o644)); err != nil {
		t.Fatal(err)
	}
	s.start(serverOptions{})
	s.talk(t, "pop3s").want("QUIT", "+OK")
	line := s.log.one(t, "a port for the authority cannot be opened after root was given up: free it, and restart the server", nil)
	if !strings.Contains(fmt.Sprint(line["error"]), a.http) {
		t.Errorf("it does not name the port: %v", line)
	}
}

// comeAndWait connects to both ports and says nothing. The result waits until it is cut
// off, and gives the time that it took.
func (a authority) comeAndWait(t *testing.T) func() time.Duration {
	t.Helper()
	start := time.Now()
	var conns []net.Conn
	for _, address := range []string{a.http, a.tls} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return func() time.Duration {
		for _, conn := range conns {
			_ = conn.SetReadDeadline(time.Now().Add(deadline)) // of a connection that is open
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
		return time.Since(start)
	}
}

// TestACMEServesNothingElse: who comes to the ports for the proofs gets nothing.
func TestACMEServesNothingElse(t *testing.T) {
	t.Parallel()
	p := freePorts(t, 3)
	a := authority{url: fmt.Sprintf("https://127.0.0.1:%d/dir", p[0]), http: fmt.Sprint("127.0.0.1:", p[1]), tls: fmt.Sprint("127.0.0.1:", p[2])}
	a.roots = filepath.Join(t.TempDir(), "roots.pem")
	restanteCertificate(t, "", a.roots, a.roots+".key")
	s := prepareServer(t, serverOptions{settings: strings.Replace(a.settings("http"), "acme_tls = []", fmt.Sprintf("acme_tls = [%q]", a.tls), 1)})
	s.start(serverOptions{})
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/../../etc/passwd", "/metrics", "/status"} {
		r, err := http.Get("http://" + a.http + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, r.Status)
		}
		if !r.Close {
			t.Errorf("%s: the connection stays open", path)
		}
	}
	for _, protocols := range [][]string{nil, {"acme-tls/1"}, {"h2"}} {
		if conn, err := tls.Dial("tcp", a.tls, &tls.Config{ServerName: "mail.example.org", NextProtos: protocols, InsecureSkipVerify: true}); err == nil {
			conn.Close()
			t.Errorf("a handshake for %q succeeds", protocols)
		}
	}
	silent := a.comeAndWait(t)
	// An authority that does not answer is told once, with the time of the next try.
	line := s.log.one(t, "no certificate from the authority", nil)
	at, err := time.Parse(time.RFC3339, fmt.Sprint(line["next_try"]))
	if wait := time.Until(at); err != nil || wait < 3*time.Minute || wait > 5*time.Minute {
		t.Errorf("the next try is at %v, %v", line["next_try"], err)
	}
	if got := s.issuedTo(t, ""); got.Issuer.CommonName != "Restante self-signed certificate" {
		t.Errorf("meanwhile there is that of %s", got.Issuer)
	}
	if took := silent(); took > deadline { // what else the test did is part of it
		t.Errorf("who says nothing is waited for %v", took)
	}
	// A restart does not make it ask at once.
	s.stop(syscall.SIGTERM)
	s.start(serverOptions{})
	s.talk(t, "pop3s").want("QUIT", "+OK")
	s.log.one(t, "the last try to get a certificate has failed, the next waits", nil)
	if found := s.log.find("asking for a certificate", nil); len(found) > 0 {
		t.Error("a restart has it ask again at once")
	}
}
