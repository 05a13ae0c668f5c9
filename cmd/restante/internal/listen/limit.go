package listen

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// refusalTime is how long a refused client has to take the refusal.
	refusalTime = 2 * time.Second
	// maxRefusals is how many refused clients are waited for at once; the connections
	// of more are closed as soon as the refusal is on its way.
	maxRefusals = 64
	// maxDrained octets of a refused client are read before the close: octets
	// that nobody read would make the close reset the connection, and the
	// refusal could be lost with it.
	maxDrained = 4096
	// maxFresh is how many addresses and networks are counted in a minute: enough for
	// the handshakes that a small machine can do in that time.
	maxFresh = 100_000
	// wider is how many times as many connections a network may begin as an address.
	wider = 4
)

var errNotTCP = errors.New("not a TCP connection")

// Limits bound connections. 0 is no limit. Loopback and whoever is exempt are bound by
// Total only.
type Limits struct {
	Total      int // open at the same time on all wrapped listeners together
	PerAddress int // of these, from one IPv4 address or IPv6 /64 network
	PerNetwork int // likewise, from an IPv4 /24 or an IPv6 /48
	PerMinute  int // new ones from one IPv4 address or IPv6 /64 network, and four times as many from a /24 or /48

	Exempt func(netip.Addr) bool // nil: nobody
}

// Limiter counts the connections of all the listeners it wraps. It is safe for
// concurrent use.
type Limiter struct {
	limits   Limits
	log      *slog.Logger
	now      func() time.Time
	patience time.Duration // with a refused client
	refusal  chan struct{} // a token for each refused client that is waited for

	mu     sync.Mutex
	total  int
	open   map[netip.Prefix]int // by address and by network; only those that have a connection
	fresh  map[netip.Prefix]int // likewise, those since minute began
	minute time.Time
	logged seldom // refusals
	failed seldom // errors of accept

	refused atomic.Int64
}

// Refused is how many connections were refused so far.
func (x *Limiter) Refused() int64 { return x.refused.Load() }

// NewLimiter returns a Limiter without connections. Without a log it is silent.
func NewLimiter(l Limits, log *slog.Logger) *Limiter {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Limiter{
		limits:   l,
		log:      log,
		now:      time.Now,
		patience: refusalTime,
		refusal:  make(chan struct{}, maxRefusals),
		open:     make(map[netip.Prefix]int),
		fresh:    make(map[netip.Prefix]int),
	}
}

// Reconfigure has other limits hold for connections to come.
func (x *Limiter) Reconfigure(l Limits) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.limits = l
}

// Wrap returns a listener whose Accept yields only connections within the limits, and
// goes on after errors that pass. The others get the refusal, a complete reply line,
// and are closed without holding up Accept; with an empty refusal, as before a TLS
// handshake, they are closed at once. l must be a TCP listener. The connections embed
// *net.TCPConn, and count until their Close.
func (x *Limiter) Wrap(l net.Listener, refusal string) net.Listener {
	return &listener{Listener: l, limiter: x, text: refusal, closing: make(chan struct{})}
}

type listener struct {
	net.Listener
	limiter *Limiter
	text    string
	closing chan struct{} // closed by Close
	closed  sync.Once
}

// Accept waits for the next connection within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.next()
		if err != nil {
			return nil, err
		}
		tcp, remote, local := tcpOf(c)
		if tcp == nil {
			return nil, errors.Join(fmt.Errorf("listen: %T: %w", c, errNotTCP), c.Close())
		}
		peer := newPeer(addrOf(remote))
		reason := l.limiter.take(peer)
		if reason == "" {
			return &conn{TCPConn: tcp, remote: remote, local: local, release: sync.OnceFunc(func() { l.limiter.release(peer) })}, nil
		}
		l.limiter.note(remote, reason)
		l.limiter.refuse(tcp, l.text)
	}
}

// tcpOf is the TCP connection below c, nil if there is none, and its ends.
func tcpOf(c net.Conn) (tcp *net.TCPConn, remote, local net.Addr) {
	switch c := c.(type) {
	case *net.TCPConn:
		tcp = c
	case *represented:
		tcp = c.TCPConn
	}
	return tcp, c.RemoteAddr(), c.LocalAddr()
}

// peer is as whom a client counts.
type peer struct {
	addr     netip.Addr
	address  netip.Prefix // an IPv4 address, or the /64 that one IPv6 customer has to choose from
	network  netip.Prefix // an IPv4 /24 or an IPv6 /48
	loopback bool
}

func newPeer(addr netip.Addr) peer {
	addr = addr.Unmap().WithZone("")
	bits, fewer := 32, 24
	if addr.Is6() {
		bits, fewer = 64, 48
	}
	return peer{addr, netip.PrefixFrom(addr, bits).Masked(), netip.PrefixFrom(addr, fewer).Masked(), addr.IsLoopback()}
}

// take counts a connection, or says which limit forbids it.
func (x *Limiter) take(p peer) (reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := x.now(); now.Sub(x.minute) >= time.Minute || now.Before(x.minute) {
		x.minute = now
		clear(x.fresh)
	}
	free := p.loopback || x.limits.Exempt != nil && x.limits.Exempt(p.addr)
	if reason := x.forbids(p, free); reason != "" {
		return reason
	}
	if x.limits.PerMinute > 0 && !free {
		x.begun(p.network)
		x.begun(p.address)
	}
	x.total++
	x.open[p.address]++
	x.open[p.network]++
	return ""
}

// forbids says which limit does.
func (x *Limiter) forbids(p peer, free bool) (reason string) {
	l := x.limits
	switch {
	case l.Total > 0 && x.total >= l.Total:
		return "too many connections"
	case free:
		return ""
	case l.PerAddress > 0 && x.open[p.address] >= l.PerAddress:
		return "too many connections from this address"
	case l.PerNetwork > 0 && x.open[p.network] >= l.PerNetwork:
		return "too many connections from this network"
	case l.PerMinute > 0 && x.fresh[p.address] >= l.PerMinute:
		return "too many new connections from this address in a minute"
	case l.PerMinute > 0 && x.fresh[p.network] >= wider*l.PerMinute:
		return "too many new connections from this network in a minute"
	}
	return ""
}

// begun counts a new connection. When very many are known no more are taken up.
func (x *Limiter) begun(from netip.Prefix) {
	if n := x.fresh[from]; n > 0 || len(x.fresh) < maxFresh {
		x.fresh[from] = n + 1
	}
}

func (x *Limiter) release(p peer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.total--
	for _, prefix := range []netip.Prefix{p.address, p.network} {
		if x.open[prefix]--; x.open[prefix] == 0 {
			delete(x.open, prefix)
		}
	}
}

// note logs a refusal unless one was logged a moment ago: a flood of
// connections must not become a flood of lines.
func (x *Limiter) note(remote net.Addr, reason string) {
	x.refused.Add(1)
	x.mu.Lock()
	due, silent := x.logged.due(x.now())
	open := x.total
	x.mu.Unlock()
	if due {
		x.log.Warn("refused a connection", "remote", remote.String(), "reason", reason, "open", open, "refused_before", silent)
	}
}

// refuse closes the connection, after the refusal if there is one. It does not wait.
func (x *Limiter) refuse(c *net.TCPConn, text string) {
	if text == "" || !tell(c, text) {
		_ = c.Close() // there is nothing to lose
		return
	}
	select {
	case x.refusal <- struct{}{}:
	default:
		_ = c.Close() // a client that has not spoken gets the refusal all the same
		return
	}
	go func() {
		defer func() { <-x.refusal }()
		defer c.Close()
		if c.SetDeadline(time.Now().Add(x.patience)) == nil && c.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c, maxDrained) // until the client closes too
		}
	}()
}

// tell sends a short text if that can be done at once, as it can on a connection on
// which nothing was sent yet.
func tell(c *net.TCPConn, text string) (sent bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Write(func(fd uintptr) bool {
		n, err := unix.SendmsgN(int(fd), []byte(text), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		sent = err == nil && n == len(text)
		return true
	})
	return err == nil && sent
}

// conn is a connection that counts until it is closed.
type conn struct {
	*net.TCPConn
	remote, local net.Addr // of the client, which may have come through a proxy
	release       func()   // does its work once
}

// RemoteAddr is the address of the client.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr is the address that the client has connected to.
func (c *conn) LocalAddr() net.Addr { return c.local }

// NetConn returns the connection underneath.
func (c *conn) NetConn() net.Conn { return c.TCPConn }

// Close closes the connection and stops counting it. It may be called again.
func (c *conn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
