package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLifecycleTerminate(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) { terminate(t, sig) })
	}
}

func terminate(t *testing.T, sig syscall.Signal) {
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: marked\r\n\r\n"), "bob@"+testDomain)

	sending := s.talk(t, "smtp").envelope("alice@" + testDomain)
	sending.write("Subject: half\r\n\r\nfirst half\r\n")
	idle := map[string][]*caller{}
	for range 2 {
		idle["421 4.3.2 "] = append(idle["421 4.3.2 "], s.talk(t, "smtp"))
		idle["-ERR [SYS/TEMP] "] = append(idle["-ERR [SYS/TEMP] "], s.talk(t, "pop3"))
	}
	idle["421 4.3.2 "][1].secure(s.clientTLS())
	idle["-ERR [SYS/TEMP] "][1].secure(s.clientTLS())
	marked := s.talk(t, "pop3s").logIn("bob")
	marked.want("DELE 1", "+OK")
	idle["-ERR [SYS/TEMP] "] = append(idle["-ERR [SYS/TEMP] "], marked)

	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	for answer, all := range idle {
		for _, d := range all {
			d.want("", answer)
			d.ended()
		}
	}
	eventually(t, "no new connections are taken", func() bool {
		conn, err := net.Dial("tcp", s.smtp)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	sending.write("second half\r\n")
	sending.want(".", "250 2.0.0 OK ")
	sending.want("", "421 4.3.2 ")
	sending.ended()
	if code := s.wait(); code != exitOK {
		t.Errorf("exit status %d", code)
	}
	if n := len(s.files("bob")); n != 1 {
		t.Errorf("%d messages for bob instead of the one that no QUIT removed", n)
	}
	s.holds(t, "alice", "first half\nsecond half\n")
	if len(s.log.find("stopped", nil)) != 1 {
		t.Error("the log does not tell that the server stopped")
	}
}

// holds expects one message in a mailbox, which ends like this on disk.
func (s *testServer) holds(t *testing.T, user, end string) {
	t.Helper()
	files := s.files(user)
	if len(files) != 1 {
		t.Fatalf("%d messages for %s: %q", len(files), user, files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(text), end) {
		t.Errorf("%q does not end with %q", text, end)
	}
}

// TestLifecycleTerminateWhileSending: a message on its way to a client gets
// there whole.
func TestLifecycleTerminateWhileSending(t *testing.T) {
	s := newServer(t, serverOptions{})
	line := strings.Repeat("x", 998) + "\r\n"
	message := []byte("Subject: large\r\n\r\n" + strings.Repeat(line, 16<<10))
	s.deliver(t, message, "alice@"+testDomain)
	d := s.talk(t, "pop3s").logIn("alice")
	d.want("RETR 1", "+OK") // more than fits between server and client
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.log.one(t, "stopping", nil)
	sameOctets(t, withoutTrace(t, d.multiline()), message)
	d.want("", "-ERR [SYS/TEMP] ")
	d.ended()
	if code := s.wait(); code != exitOK {
		t.Errorf("exit status %d", code)
	}
}

// TestLifecycleNotify: the service manager is told when the server is ready,
// reloads and stops.
func TestLifecycleNotify(t *testing.T) {
	for _, manager := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprint("@restante-test-", os.Getpid())} {
		notify(t, manager)
	}
}

func notify(t *testing.T, manager string) {
	t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		state := make([]byte, 256)
		n, err := socket.Read(state)
		if got, _, _ := strings.Cut(string(state[:n]), "\n"); err != nil || got != want {
			t.Errorf("%q and %v instead of %q", state[:n], err, want)
		}
	}
	o := serverOptions{env: []string{"NOTIFY_SOCKET=" + manager}}
	s := prepareServer(t, o)
	s.start(o)
	told("READY=1")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	told("RELOADING=1")
	told("READY=1")
	if code := s.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit status %d", code)
	}
	told("STOPPING=1")
}

// TestLifecycleKill: what was not answered with 250 is not there afterwards,
// and leaves nothing behind.
func TestLifecycleKill(t *testing.T) {
	s := newServer(t, serverOptions{})
	drafts := func() []string {
		names, err := filepath.Glob(filepath.Join(s.dir, "data", "mail", ".tmp", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	s.deliver(t, []byte("Subject: answered\r\n\r\nwhole\r\n"), "bob@"+testDomain)
	d := s.talk(t, "smtp").envelope("alice@"+testDomain, "bob@"+testDomain)
	d.write("Subject: cut off\r\n\r\n" + strings.Repeat("text\r\n", 100_000))
	eventually(t, "a draft on disk", func() bool { return len(drafts()) == 1 })
	s.stop(syscall.SIGKILL)

	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages for alice", n)
	}
	s.start(serverOptions{})
	if left := drafts(); len(left) != 0 {
		t.Errorf("drafts after the next start: %q", left)
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages for alice after the next start", n)
	}
	s.holds(t, "bob", "whole\n")
	s.deliver(t, []byte("Subject: again\r\n\r\nretry\r\n"), "alice@"+testDomain)
	s.holds(t, "alice", "retry\n")
}

// makePair writes NAME.crt and NAME.key, self-signed for these host names.
func makePair(t *testing.T, dir, name string, hosts ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     hosts,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour * 365),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", private)
	writePEM(t, filepath.Join(dir, name+".crt"), "CERTIFICATE", raw)
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// certificateSetting names files beside the configuration.
func certificateSetting(cert, key string) string {
	return fmt.Sprintf("[[tls.certificates]]\ncertificate = %q\nkey = %q\n", cert, key)
}

// serveWith starts a server with more settings, for which dir is a good place
// to keep files.
func serveWith(t *testing.T, more func(dir string) string) *testServer {
	t.Helper()
	s := prepareServer(t, serverOptions{})
	restante(t, s.config, testPassword+"\n", "user", "add", "alice@"+testDomain, "--password-stdin")
	s.appendConfig(t, more(s.dir))
	s.start(serverOptions{})
	return s
}

func (s *testServer) appendConfig(t *testing.T, text string) {
	t.Helper()
	before, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, append(before, text...))
}

// shown are the certificates on the ports to a client that asks for a host.
func (s *testServer) shown(t *testing.T, host string) map[string]*x509.Certificate {
	t.Helper()
	c := &tls.Config{ServerName: host, InsecureSkipVerify: true}
	return map[string]*x509.Certificate{
		"smtp":  s.talk(t, "smtp").secure(c),
		"pop3":  s.talk(t, "pop3").secure(c),
		"pop3s": s.dial(t, "pop3s").handshake(c),
	}
}

func (s *testServer) shows(t *testing.T, host string, want *x509.Certificate) {
	t.Helper()
	for port, got := range s.shown(t, host) {
		if !got.Equal(want) {
			t.Errorf("%s shows the certificate %q to a client that asks for %q, want %q", port, got.Subject.CommonName, host, want.Subject.CommonName)
		}
	}
}

func TestLifecycleCertificateBySNI(t *testing.T) {
	var first, second, wild *x509.Certificate
	s := serveWith(t, func(dir string) string {
		first = makePair(t, dir, "first", "mail.example.org")
		second = makePair(t, dir, "second", "mx.example.net", "pop.example.net")
		wild = makePair(t, dir, "wild", "*.example.com")
		return certificateSetting("first.crt", "first.key") + certificateSetting("second.crt", "second.key") +
			certificateSetting(filepath.Join(dir, "wild.crt"), filepath.Join(dir, "wild.key"))
	})
	for host, want := range map[string]*x509.Certificate{
		"":                  first, // as many mail servers do
		"mail.example.org":  first,
		"other.example.org": first,
		"mx.example.net":    second,
		"POP.example.net":   second,
		"mail.example.com":  wild,
		"a.b.example.com":   first,
		"example.com":       first,
	} {
		s.shows(t, host, want)
	}
	if _, err := os.Stat(s.cert); err == nil {
		t.Error("a self-signed certificate was made though there are others")
	}
}

func TestLifecycleReload(t *testing.T) {
	var before *x509.Certificate
	s := serveWith(t, func(dir string) string {
		before = makePair(t, dir, "pair", "mail.example.org")
		return certificateSetting("pair.crt", "pair.key")
	})
	s.shows(t, "mail.example.org", before)
	open := s.talk(t, "smtp")
	open.secure(&tls.Config{InsecureSkipVerify: true})
	reload := func(outcome string) {
		t.Helper()
		n := len(s.log.find(outcome, nil))
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, outcome, func() bool { return len(s.log.find(outcome, nil)) == n+1 })
	}
	const done, failed = "reloaded the settings and certificates", "reload failed; the settings and certificates stay as they were"

	after := makePair(t, s.dir, "pair", "mail.example.org")
	reload(done)
	s.shows(t, "mail.example.org", after)

	writeFile(t, filepath.Join(s.dir, "pair.crt"), []byte("garbage"))
	reload(failed)
	s.shows(t, "mail.example.org", after)

	makePair(t, s.dir, "pair", "mail.example.org")
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, append([]byte("unknown = 1\n"), good...))
	reload(failed)
	s.shows(t, "mail.example.org", after)

	writeFile(t, s.config, good)
	added := makePair(t, s.dir, "added", "mail.example.net")
	s.appendConfig(t, certificateSetting("added.crt", "added.key"))
	reload(done)
	s.shows(t, "mail.example.net", added)
	open.want("EHLO client.example", "250") // has lived through all of it
	open.want("MAIL FROM:<>", "250")
}

// TestLifecycleRenewal: nobody tells the server that a certificate was renewed.
func TestLifecycleRenewal(t *testing.T) {
	s := serveWith(t, func(dir string) string {
		makePair(t, dir, "pair", "mail.example.org")
		return certificateSetting("pair.crt", "pair.key")
	})
	const used, refused = "certificate changed on disk, in use now", "certificates stay as they were"
	renewed := makePair(t, s.dir, "pair", "mail.example.org")
	eventually(t, used, func() bool { return len(s.log.find(used, nil)) == 1 })
	s.shows(t, "mail.example.org", renewed)
	writeFile(t, filepath.Join(s.dir, "pair.crt"), []byte("garbage"))
	eventually(t, refused, func() bool { return len(s.log.find(refused, nil)) == 1 })
	s.shows(t, "mail.example.org", renewed)
}

// TestLifecycleReloadSettings changes what new connections are to see. The new
// host name in the greeting shows that the reload is done.
func TestLifecycleReloadSettings(t *testing.T) {
	s := newServer(t, serverOptions{})
	settings, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(hostname, level string) {
		t.Helper()
		text := strings.Replace(string(settings), `"localhost"`, fmt.Sprintf("%q", hostname), 1)
		writeFile(t, s.config, []byte(strings.Replace(text, "[log]", fmt.Sprintf("[log]\nlevel = %q", level), 1)))
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "greeting of "+hostname, func() bool {
			return strings.Contains(s.dial(t, "smtp").ask(""), hostname)
		})
	}
	// A failed login is a warning: its line comes at either level, after the
	// line about the connection.
	linesOf := func(user string) int {
		t.Helper()
		d := s.talk(t, "pop3s")
		d.want("USER "+user, "+OK")
		d.want("PASS wrong", "-ERR")
		var session any
		eventually(t, "a line about "+user, func() bool {
			found := s.log.find("login failed", map[string]any{"user": user})
			if len(found) == 1 {
				session = found[0]["session"]
			}
			return len(found) == 1
		})
		return len(s.log.find("connection opened", map[string]any{"session": session}))
	}
	reload("quiet.example.org", "warn")
	s.log.one(t, "a changed setting needs a restart", map[string]any{"setting": "hostname"})
	if n := linesOf("first"); n != 0 {
		t.Errorf("%d lines below the level after it was raised", n)
	}
	reload("loud.example.org", "info")
	if n := linesOf("second"); n != 1 {
		t.Errorf("%d lines after the level was lowered", n)
	}
}
