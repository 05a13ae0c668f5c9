package listen

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestPerMinute(t *testing.T) {
	x := NewLimiter(Limits{PerMinute: 3}, nil)
	now := time.Now()
	x.now = func() time.Time { return now }
	come := func(addr string) bool {
		p := newPeer(netip.MustParseAddr(addr))
		if x.take(p) != "" {
			return false
		}
		x.release(p)
		return true
	}
	for i := range 5 {
		if got := come("192.0.2.1"); got != (i < 3) {
			t.Errorf("connection %d: %v", i, got)
		}
	}
	if !come("192.0.2.2") || !come("127.0.0.1") {
		t.Error("others are refused, too")
	}
	now = now.Add(time.Minute)
	if !come("192.0.2.1") {
		t.Error("refused in the next minute")
	}
	x.Reconfigure(Limits{PerMinute: 1})
	if come("192.0.2.1") {
		t.Error("the new limit does not hold")
	}
	now = now.Add(-time.Hour)
	if !come("192.0.2.1") {
		t.Error("a clock that was set back has a minute last an hour")
	}
}

// comer has connections come from addresses, each closed at once.
func comer(x *Limiter) func(addr netip.Addr) bool {
	return func(addr netip.Addr) bool {
		p := newPeer(addr)
		if x.take(p) != "" {
			return false
		}
		x.release(p)
		return true
	}
}

func TestPerMinuteOfANetwork(t *testing.T) {
	x := NewLimiter(Limits{PerMinute: 3}, nil)
	come := comer(x)
	for i := range 20 {
		v4, v6 := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::1", i))
		if want := i < 3*wider; come(v4) != want || come(v6) != want {
			t.Errorf("address %d of the networks: want %v", i, want)
		}
	}
	if !come(netip.MustParseAddr("192.0.3.1")) || !come(netip.MustParseAddr("2001:db8:1::1")) {
		t.Error("other networks are refused, too")
	}
}

// TestPerMinuteOfMany: who is known is counted even when nobody else can be.
func TestPerMinuteOfMany(t *testing.T) {
	x := NewLimiter(Limits{PerMinute: 2}, nil)
	x.now = func() time.Time { return time.Unix(1e9, 0) }
	come := comer(x)
	known, late := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	come(known)
	for i := range maxFresh {
		come(netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 1}))
	}
	if len(x.fresh) > maxFresh {
		t.Errorf("%d are counted", len(x.fresh))
	}
	if !come(known) || come(known) {
		t.Error("the limit does not hold for an address that was known before")
	}
	for range 5 {
		if !come(late) {
			t.Error("who cannot be counted is refused")
		}
	}
}

func TestExempt(t *testing.T) {
	relay := netip.MustParseAddr("192.0.2.25")
	limits := Limits{Total: 5, PerAddress: 1, PerNetwork: 1, PerMinute: 1, Exempt: func(a netip.Addr) bool { return a == relay }}
	x := NewLimiter(limits, nil)
	for i := range 6 {
		if reason := x.take(newPeer(netip.MustParseAddr("::ffff:192.0.2.25"))); (reason == "") != (i < 5) {
			t.Errorf("connection %d: %q", i, reason)
		}
	}
	x = NewLimiter(limits, nil)
	for i, want := range []string{"", "too many connections from this address"} {
		if got := x.take(newPeer(netip.MustParseAddr("198.51.100.1"))); got != want {
			t.Errorf("connection %d of somebody else: %q", i, got)
		}
	}
	limits.Exempt = nil
	x.Reconfigure(limits)
	x.take(newPeer(relay))
	if x.take(newPeer(relay)) == "" {
		t.Error("exempt after it was taken back")
	}
}
