package listen

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// v2 is a header of version 2: command, family and its block of addresses.
func v2(command, family byte, block string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family, byte(len(block) >> 8), byte(len(block))}) + block
}

const (
	four = "\xc0\x00\x02\x07\xcb\x00\x71\x01\x10\x00\x00\x19" // 192.0.2.7:4096 to 203.0.113.1:25
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x10\x00\x00\x19"
)

// through sends text through a listener that trusts the loopback, or nobody, and
// gives the connection that came of it; nil if none did. A header that comes has the
// time that the machine needs, however busy it is.
func through(t *testing.T, trust, comes bool, text string) net.Conn {
	t.Helper()
	patience := 300 * time.Millisecond
	if comes {
		patience = time.Minute
	}
	p := newProxied(open(t), func(netip.Addr) bool { return trust }, slog.New(slog.NewTextHandler(t.Output(), nil)), patience)
	conns := serve(t, NewLimiter(Limits{PerAddress: 1}, nil).Wrap(p, refusal))
	c := dial(t, p)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = c.Read(make([]byte, 1)) // until it is closed, at either end
	}()
	select {
	case got := <-conns:
		return got
	case <-closed:
		return nil
	}
}

func TestProxied(t *testing.T) {
	for _, test := range []struct {
		what, header, from, to string // from "": it is closed; "own": the proxy's own
		untrusted              bool
	}{
		{"version 1", "PROXY TCP4 192.0.2.7 203.0.113.1 4096 25\r\n", "192.0.2.7:4096", "203.0.113.1:25", false},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4096 25\r\n", "[2001:db8::7]:4096", "[2001:db8::1]:25", false},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", "own", "", false},
		{"version 2", v2(1, 0x11, four), "192.0.2.7:4096", "203.0.113.1:25", false},
		{"version 2, IPv6", v2(1, 0x21, six), "[2001:db8::7]:4096", "[2001:db8::1]:25", false},
		{"version 2, more", v2(1, 0x11, four+"\x03\x00\x04abcd"), "192.0.2.7:4096", "203.0.113.1:25", false},
		{"version 2, local", v2(0, 0x00, ""), "own", "", false},
		{"version 2, a socket", v2(1, 0x31, strings.Repeat("x", 216)), "", "", false},
		{"none", "EHLO client.example\r\n", "", "", false},
		{"nothing", "", "", "", false},
		{"half", "PROXY TCP4 192.0.2.7", "", "", false},
		{"no address", "PROXY TCP4 example.org 203.0.113.1 4096 25\r\n", "", "", false},
		{"too long", "PROXY TCP4 " + strings.Repeat("1", 500) + "\r\n", "", "", false},
		{"from others", "PROXY TCP4 192.0.2.7 203.0.113.1 4096 25\r\n", "own", "", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			got := through(t, !test.untrusted, test.from != "", test.header+"after it")
			if test.from == "" {
				if got != nil {
					t.Errorf("it was taken, as that of %v", got.RemoteAddr())
				}
				return
			}
			if got == nil {
				t.Fatal("it was closed")
			}
			if test.from == "own" {
				if !addrOf(got.RemoteAddr()).IsLoopback() {
					t.Errorf("it is from %v", got.RemoteAddr())
				}
			} else if got.RemoteAddr().String() != test.from || got.LocalAddr().String() != test.to {
				t.Errorf("from %v to %v", got.RemoteAddr(), got.LocalAddr())
			}
			rest := make([]byte, len("after it"))
			if test.untrusted {
				rest = make([]byte, len(test.header)+len(rest))
			}
			if _, err := io.ReadFull(got, rest); err != nil || !strings.HasSuffix(string(rest), "after it") {
				t.Errorf("what follows the header is %q, %v", rest, err)
			}
		})
	}
}

// TestProxiedLimits: the limits are those of the client.
func TestProxiedLimits(t *testing.T) {
	p := Proxied(open(t), func(netip.Addr) bool { return true }, nil)
	conns := serve(t, NewLimiter(Limits{PerAddress: 1}, nil).Wrap(p, refusal))
	come := func(client string) net.Conn {
		c := dial(t, p)
		if _, err := io.WriteString(c, "PROXY TCP4 "+client+" 203.0.113.1 4096 25\r\n"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	come("192.0.2.7")
	<-conns
	wantRefused(t, come("192.0.2.7"), refusal)
	come("192.0.2.8")
	<-conns
}

// TestProxiedSilent: proxies that say nothing are in nobody's way.
func TestProxiedSilent(t *testing.T) {
	p := Proxied(open(t), func(netip.Addr) bool { return true }, nil)
	conns := serve(t, NewLimiter(Limits{}, nil).Wrap(p, refusal))
	for range 10 {
		dial(t, p)
	}
	c := dial(t, p)
	if _, err := io.WriteString(c, "PROXY TCP4 192.0.2.7 203.0.113.1 4096 25\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-conns; got.RemoteAddr().String() != "192.0.2.7:4096" {
		t.Errorf("it is from %v", got.RemoteAddr())
	}
	if err := p.Close(); err != nil { // does not wait for the silent ones
		t.Error(err)
	}
}

// TestProxiedHealth: a load balancer that looks whether the port is open does not fill
// the log; one that does not speak the protocol does.
func TestProxiedHealth(t *testing.T) {
	for _, test := range []struct {
		what, says, level string
		reset, stay       bool
	}{
		{what: "closed", level: "DEBUG"},
		{what: "reset", reset: true, level: "DEBUG"},
		{what: "half a header", says: "PROXY", level: "WARN"},
		{what: "silent", stay: true, level: "WARN"},
	} {
		t.Run(test.what, func(t *testing.T) {
			out, in := io.Pipe()
			defer out.Close()
			log := slog.New(slog.NewTextHandler(in, &slog.HandlerOptions{Level: slog.LevelDebug}))
			patience := time.Minute
			if test.stay {
				patience = 300 * time.Millisecond
			}
			p := newProxied(open(t), func(netip.Addr) bool { return true }, log, patience)
			serve(t, p)
			c := dial(t, p)
			if _, err := io.WriteString(c, test.says); err != nil {
				t.Fatal(err)
			}
			if test.reset {
				if err := c.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
			}
			if !test.stay {
				c.Close()
			}
			line := make([]byte, 1000)
			n, err := out.Read(line)
			if err != nil || !strings.Contains(string(line[:n]), "level="+test.level) {
				t.Errorf("%q, %v, want %s", line[:n], err, test.level)
			}
		})
	}
}

// TestProxiedWaits: nothing is read from anybody before the first Accept.
func TestProxiedWaits(t *testing.T) {
	const patience = 100 * time.Millisecond
	p := newProxied(open(t), func(netip.Addr) bool { return true }, slog.New(slog.DiscardHandler), patience)
	c := dial(t, p)
	if err := c.SetReadDeadline(time.Now().Add(5 * patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before: %v", err)
	}
	go func() { _, _ = p.Accept() }() // until it is closed
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("afterwards: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
