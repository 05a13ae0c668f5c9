package listen

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const refusal = "421 4.3.2 too many connections\r\n"

func open(t *testing.T) net.Listener {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects to a listener, with a deadline so that a failing test ends.
func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// serve accepts in the background; the connections come through the channel.
func serve(t *testing.T, l net.Listener) <-chan net.Conn {
	t.Helper()
	accepted := make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		close(accepted)
		for c := range accepted {
			c.Close()
		}
	})
	return accepted
}

// wantRefused reads to the end, which must be exactly the text.
func wantRefused(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if string(got) != text || (err != nil && text != "") {
		t.Errorf("got %q %v, want %q", got, err, text)
	}
	c.Close()
}

func TestTotal(t *testing.T) {
	x := NewLimiter(Limits{Total: 2}, nil)
	smtp, pops := x.Wrap(open(t), refusal), x.Wrap(open(t), "")
	fromSMTP, fromPOPS := serve(t, smtp), serve(t, pops)
	dial(t, smtp)
	first := <-fromSMTP
	dial(t, pops)
	second := <-fromPOPS

	// Loopback has no limit of its own, but counts in all, on every listener.
	refused := dial(t, smtp)
	if _, err := io.WriteString(refused, "EHLO too.early\r\n"); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, refused, refusal)
	wantRefused(t, dial(t, pops), "")

	// One closed makes room for one, however often it is closed.
	for range 3 {
		first.Close()
	}
	dial(t, smtp)
	third := <-fromSMTP
	wantRefused(t, dial(t, smtp), refusal)
	second.Close()
	third.Close()
	if x.total != 0 || len(x.open) != 0 {
		t.Errorf("all closed, and %d of %d peers are left", x.total, len(x.open))
	}
}

func TestPeerNetwork(t *testing.T) {
	for _, test := range []struct {
		addr, want string
		loopback   bool
	}{
		{"192.0.2.1", "192.0.2.1/32", false},
		{"::ffff:192.0.2.1", "192.0.2.1/32", false},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", false},
		{"2001:db8:1:3::", "2001:db8:1:3::/64", false},
		{"fe80::1%eth0", "fe80::/64", false},
		{"127.0.0.9", "127.0.0.9/32", true},
		{"::ffff:127.0.0.1", "127.0.0.1/32", true},
		{"::1", "::/64", true},
	} {
		got := newPeer(netip.MustParseAddr(test.addr))
		if got.address.String() != test.want || got.loopback != test.loopback || !got.network.Contains(got.address.Addr()) {
			t.Errorf("%s: %+v, want %s %v", test.addr, got, test.want, test.loopback)
		}
	}
}

func TestPerAddress(t *testing.T) {
	x := NewLimiter(Limits{Total: 6, PerAddress: 2}, nil)
	take := func(addr string) bool {
		return x.take(newPeer(netip.MustParseAddr(addr))) == ""
	}
	for i, step := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", true}, {"192.0.2.1", false}, {"::ffff:192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8::1", true}, {"2001:db8::2", true}, {"2001:db8::3", false},
		{"2001:db8:0:1::1", true}, // the sixth in all
		{"192.0.2.3", false},
	} {
		if got := take(step.addr); got != step.want {
			t.Errorf("step %d, %s: %v, want %v", i, step.addr, got, step.want)
		}
	}
	x.release(newPeer(netip.MustParseAddr("2001:db8::9")))
	if take("192.0.2.1") || !take("2001:db8::4") {
		t.Error("a release is for its own network")
	}
	loopback := NewLimiter(Limits{PerAddress: 1}, nil)
	for range 3 {
		if loopback.take(newPeer(netip.MustParseAddr("127.0.0.1"))) != "" {
			t.Error("loopback has a limit")
		}
	}
}

// With as many refused clients waited for as may be, one more gets its refusal, and is
// not waited for.
func TestRefusalsAreBounded(t *testing.T) {
	x := NewLimiter(Limits{Total: 1}, nil)
	l := x.Wrap(open(t), refusal)
	accepted := serve(t, l)
	dial(t, l)
	<-accepted
	for range maxRefusals {
		x.refusal <- struct{}{}
	}
	c := dial(t, l)
	wantRefused(t, c, refusal)
	for end := time.Now().Add(10 * time.Second); ; { // closed, and not only for writing
		if _, err := io.WriteString(c, "NOOP\r\n"); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the connection was not closed")
		}
	}
	<-x.refusal
	wantRefused(t, dial(t, l), refusal)
}

// A client that speaks before and after its refusal gets all of it and a proper
// end: what it says is read, so that the connection is not reset.
func TestRefusedClientMaySpeak(t *testing.T) {
	x := NewLimiter(Limits{Total: 1}, nil)
	x.patience = time.Minute
	x.take(newPeer(netip.MustParseAddr("192.0.2.1")))
	l := x.Wrap(open(t), refusal)
	c := dial(t, l)
	if _, err := io.WriteString(c, "EHLO too.early\r\n"); err != nil {
		t.Fatal(err)
	}
	serve(t, l) // only now, so that the octets are there already
	if got, err := io.ReadAll(c); string(got) != refusal || err != nil {
		t.Fatalf("got %q %v", got, err)
	}
	for i := range 100 {
		if _, err := io.WriteString(c, "NOOP\r\n"); err != nil {
			t.Fatalf("line %d after the refusal: %v", i, err)
		}
	}
}

// Clients that never read or close do not hold up Accept.
func TestSilentRefusedClients(t *testing.T) {
	x := NewLimiter(Limits{Total: 1}, nil)
	l := x.Wrap(open(t), refusal)
	accepted := serve(t, l)
	dial(t, l)
	first := <-accepted
	var silent []net.Conn
	for range maxRefusals + 10 {
		silent = append(silent, dial(t, l))
	}
	// The last ones are just closed, so that reading ends: all were dealt with.
	for _, c := range silent {
		got, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a refused client was left waiting")
		}
		if err == nil && len(got) != 0 && string(got) != refusal {
			t.Errorf("got %q", got)
		}
	}
	first.Close()
	dial(t, l)
	<-accepted
	for _, c := range silent {
		c.Close()
	}
}

func TestLogIsLimited(t *testing.T) {
	var out strings.Builder
	x := NewLimiter(Limits{}, slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Unix(1e9, 0)
	x.now = func() time.Time { return now }
	remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
	lines := func() int { return strings.Count(out.String(), "\n") }
	for i, step := range []struct {
		wait time.Duration
		want int
	}{{0, 1}, {0, 1}, {logInterval - 1, 1}, {1, 2}, {logInterval, 3}} {
		now = now.Add(step.wait)
		x.note(remote, "full")
		if lines() != step.want {
			t.Errorf("step %d: %d lines, want %d", i, lines(), step.want)
		}
	}
	for _, want := range []string{"remote=192.0.2.1:7", "reason=full", "refused_before=2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}

func TestConnPassesThrough(t *testing.T) {
	l := NewLimiter(Limits{}, nil).Wrap(open(t), "")
	accepted := serve(t, l)
	client := dial(t, l)
	c := <-accepted
	defer c.Close()
	for name, ok := range map[string]bool{
		"io.ReaderFrom": is[io.ReaderFrom](c),
		"io.WriterTo":   is[io.WriterTo](c),
		"CloseWrite":    is[interface{ CloseWrite() error }](c),
	} {
		if !ok {
			t.Errorf("%T hides %s", c, name)
		}
	}
	under, ok := c.(interface{ NetConn() net.Conn })
	if !ok || !is[*net.TCPConn](under.NetConn()) {
		t.Errorf("%T hides its TCP connection", c)
	}
	if c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("remote %s, want %s", c.RemoteAddr(), client.LocalAddr())
	}
}

func is[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

type pipes struct{ net.Listener }

func (pipes) Accept() (net.Conn, error) {
	a, b := net.Pipe()
	return a, b.Close()
}

func TestOnlyTCP(t *testing.T) {
	if _, err := NewLimiter(Limits{}, nil).Wrap(pipes{}, "").Accept(); !errors.Is(err, errNotTCP) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	x := NewLimiter(Limits{Total: 10, PerAddress: 3}, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			peer := newPeer(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i%5)))
			for range 1000 {
				if x.take(peer) == "" {
					x.release(peer)
				}
			}
		})
	}
	wg.Wait()
	if x.total != 0 || len(x.open) != 0 {
		t.Errorf("%d connections and %d peers are left", x.total, len(x.open))
	}
}

func BenchmarkTakeRelease(b *testing.B) {
	x := NewLimiter(Limits{Total: 10, PerAddress: 3}, nil)
	peer := newPeer(netip.MustParseAddr("2001:db8::1"))
	b.ReportAllocs()
	for b.Loop() {
		if x.take(peer) == "" {
			x.release(peer)
		}
	}
}

func TestPerNetwork(t *testing.T) {
	x := NewLimiter(Limits{PerAddress: 2, PerNetwork: 3}, nil)
	take := func(addr string) string { return x.take(newPeer(netip.MustParseAddr(addr))) }
	const network = "too many connections from this network"
	for i, step := range []struct{ addr, want string }{
		{"192.0.2.1", ""}, {"192.0.2.2", ""}, {"192.0.2.3", ""}, {"192.0.2.4", network}, {"192.0.3.4", ""},
		{"2001:db8:0:1::1", ""}, {"2001:db8:0:2::1", ""}, {"2001:db8:0:3::1", ""}, {"2001:db8:0:4::1", network}, {"2001:db8:1:1::1", ""},
		{"127.0.0.1", ""}, {"127.0.0.1", ""}, {"127.0.0.1", ""}, {"127.0.0.1", ""},
	} {
		if got := take(step.addr); got != step.want {
			t.Errorf("step %d, %s: %q, want %q", i, step.addr, got, step.want)
		}
	}
	x.release(newPeer(netip.MustParseAddr("192.0.2.1")))
	if got := take("192.0.2.4"); got != "" {
		t.Errorf("after one was closed: %q", got)
	}
}
