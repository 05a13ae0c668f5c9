package smtpd

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEarlyTalker: who speaks before the greeting is no mail server.
func TestEarlyTalker(t *testing.T) {
	for _, pause := range []time.Duration{0, 5 * time.Second} {
		config := testConfig()
		config.GreetingPause = pause
		r := newRig(t, config)
		held := make(chan struct{})
		r.mu.Lock() // Accept waits here, so that the client is the first to speak
		go func() {
			defer close(held)
			c := r.dial(t)
			c.send("EHLO client.example\r\n")
			r.mu.Unlock()
			c.expect("554 5.5.1 You spoke before the greeting, closing", "")
		}()
		<-held
	}
	config := testConfig()
	config.GreetingPause = 30 * time.Millisecond
	c := newRig(t, config).dial(t)
	began := time.Now()
	c.expect("220 *")
	if waited := time.Since(began); waited < config.GreetingPause {
		t.Errorf("greeted after %v", waited)
	}
	c.do("NOOP", "250")
}

// far is a connection between two addresses of the world.
type far struct {
	net.Conn
	remote, local net.Addr
}

func (f far) RemoteAddr() net.Addr { return f.remote }
func (f far) LocalAddr() net.Addr  { return f.local }

func tcp(addr string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(addr), Port: 25} }

// TestForgedHello: nobody from elsewhere has our name.
func TestForgedHello(t *testing.T) {
	s := NewServer(testConfig(), users{}, &memory{}, nil)
	for _, test := range []struct {
		remote, name string
		forged       bool
	}{
		{"192.0.2.7", "mx.example.org", true}, {"192.0.2.7", "MX.Example.ORG", true}, {"192.0.2.7", "mx.example.org.", true},
		{"192.0.2.7", "[203.0.113.1]", true}, {"192.0.2.7", "[192.0.2.7]", false}, {"192.0.2.7", "client.example", false},
		{"192.0.2.7", "example.org", false}, {"192.0.2.7", "localhost", false},
		{"10.0.2.100", "mx.example.org", false}, {"192.168.1.7", "mx.example.org", false}, {"172.17.0.1", "[203.0.113.1]", false},
		{"fd00::7", "mx.example.org", false}, {"fe80::7", "mx.example.org", false}, {"169.254.7.7", "mx.example.org", false},
		{"100.64.0.7", "mx.example.org", false}, {"2001:db8::7", "mx.example.org", true},
		{"127.0.0.1", "mx.example.org", false}, {"::1", "mx.example.org", false}, {"203.0.113.1", "mx.example.org", false},
	} {
		w := newWire(far{remote: tcp(test.remote), local: tcp("203.0.113.1")}, s)
		w.remote = addrOf(w.raw.RemoteAddr())
		if got := w.forged(test.name); got != (test.forged && !bindsAny(t, test.remote)) {
			t.Errorf("%s from %s: %v", test.name, test.remote, got)
		}
		w.config.RejectOwnName = false
		if w.forged(test.name) {
			t.Errorf("%s from %s is refused where it is to be taken", test.name, test.remote)
		}
		w.config.RejectOwnName = true
	}
}

// bindsAny tells whether programs of this machine may bind any address of the family.
func bindsAny(t *testing.T, addr string) bool {
	t.Helper()
	family := "ipv4"
	if strings.Contains(addr, ":") {
		family = "ipv6"
	}
	setting, err := os.ReadFile("/proc/sys/net/" + family + "/ip_nonlocal_bind")
	return err == nil && strings.TrimSpace(string(setting)) == "1"
}

// TestAnyAddress: where programs may bind any address, as is common beside keepalived,
// nobody is refused for a name that may rightly be his.
func TestAnyAddress(t *testing.T) {
	const script = `echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind
if [ -e /proc/sys/net/ipv6 ]; then echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind; fi
exec "$@"`
	inside := []string{"--net", "sh", "-e", "-c", script, "sh"}
	if out, err := exec.Command("unshare", append(inside, "true")...).CombinedOutput(); err != nil {
		t.Skipf("it needs a network of its own: %v %s", err, out)
	}
	out, err := exec.Command("unshare", append(inside, os.Args[0], "-test.v", "-test.run=^(TestOwnAddresses|TestForgedHello)$")...).CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOwnAddresses: what this machine has is found without the right to list it.
func TestOwnAddresses(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "192.0.2.7": false, "2001:db8::7": false} {
		if got := isOurs(netip.MustParseAddr(addr)); got != (want || bindsAny(t, addr)) {
			t.Errorf("%s: %v", addr, got)
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Skip(err)
	}
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if ip = ip.Unmap(); ok && !ip.IsLinkLocalUnicast() && !isOurs(ip) {
			t.Errorf("%s is an address of this machine", ip)
		}
	}
}

// TestForgedHelloReply: it is an error as any other, and the client may go on with
// its own name.
func TestForgedHelloReply(t *testing.T) {
	if bindsAny(t, "192.0.2.7") {
		t.Skip("nobody is refused here")
	}
	conn := &canned{pieces: []string{"EHLO mx.example.org\r\n", "HELO client.example\r\n", "QUIT\r\n"}}
	got := conn.play(NewServer(testConfig(), users{}, &memory{}, nil))
	want := []string{"220", "550 5.7.1 That is the name of this server, give your own", "250", "221"}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("reply %d is %q, want %q", i, got[i], want[i])
		}
	}
}

// TestTire: the fourth error and those after it are answered ever later.
func TestTire(t *testing.T) {
	config := testConfig()
	config.Pause = 20 * time.Millisecond
	c := newRig(t, config).dial(t)
	c.expect("220 *")
	c.do("HELO client.example", "250", "MAIL FROM:<s@sender.example>", "250")
	for i := range 8 {
		began := time.Now()
		c.do("RCPT TO:<nobody@example.org>", "550")
		if took, least := time.Since(began), time.Duration(max(0, i-2))*config.Pause; took < least {
			t.Errorf("refusal %d came after %v, not %v", i+1, took, least)
		}
	}
	c.do("RCPT TO:<ann@example.org>", "250")
}

// TestTireEndsAtShutdown: nobody waits for a pause to end when the server stops.
func TestTireEndsAtShutdown(t *testing.T) {
	config := testConfig()
	config.Pause = time.Hour
	r := newRig(t, config)
	c := r.dial(t)
	c.do("", "220", "X", "500", "X", "500", "X", "500")
	c.send("NOOP\r\nX\r\n")
	c.expect("250 *") // sent when the pause begins
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	c.expect("500 *", "421 4.3.2 *", "")
}

// TestMinRate: a message that drips in is given up, one that only began slowly is not.
func TestMinRate(t *testing.T) {
	config := testConfig()
	config.MinRate = 100
	s := NewServer(config, users{}, &memory{}, nil)
	w := newWire(far{remote: tcp("192.0.2.7"), local: tcp("203.0.113.1")}, s)
	w.messageBegan = time.Now()
	w.until = w.messageBegan.Add(config.MessageTimeout)
	for received, want := range map[int64]time.Duration{0: time.Minute, 100: 61 * time.Second, 60_000: 11 * time.Minute} {
		w.received = received
		if got := w.slowest().Sub(w.messageBegan); got != want {
			t.Errorf("after %d octets the next must come within %v, want %v", received, got, want)
		}
	}
	w.received = 1 << 62
	if got := w.slowest().Sub(w.messageBegan); got < time.Hour {
		t.Errorf("after very many octets: %v", got)
	}
}

func TestSessions(t *testing.T) {
	r := newRig(t, testConfig())
	a, b := r.dial(t), r.dial(t)
	a.do("", "220", "HELO a.example", "250")
	b.do("", "220", "HELO b.example", "250")
	if n := len(r.Sessions()); n != 2 {
		t.Fatalf("%d sessions", n)
	}
	if n := r.Kick(func(s Session) bool { return s.Helo == "a.example" && s.TLS == "none" && s.Client.IsLoopback() }); n != 1 {
		t.Errorf("%d were ended", n)
	}
	a.expect("")
	b.do("NOOP", "250")
}
