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
)

const (
	// refusalTime is how long a refused client has to take the refusal.
	refusalTime = 2 * time.Second
	// maxRefusals is how many refusals are written at once; more are just closed.
	maxRefusals = 64
	// maxDrained octets of a refused client are read before the close: octets
	// that nobody read would make the close reset the connection, and the
	// refusal could be lost with it.
	maxDrained = 4096
	// logInterval is the least time between two log lines about refusals.
	logInterval = 10 * time.Second
)

var errNotTCP = errors.New("not a TCP connection")

// Limits bound the connections that are open at the same time. 0 is no limit.
type Limits struct {
	Total      int // on all wrapped listeners together
	PerAddress int // from one IPv4 address or IPv6 /64 network; loopback is exempt
}

// Limiter counts the connections of all the listeners it wraps. It is safe for
// concurrent use.
type Limiter struct {
	limits   Limits
	log      *slog.Logger
	now      func() time.Time
	patience time.Duration // with a refused client
	refusal  chan struct{} // a token for each refusal being written

	mu     sync.Mutex
	total  int
	byPeer map[netip.Prefix]int // only peers that have a connection
	logged time.Time            // of the last line about a refusal
	silent int                  // refusals since without a line

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
		byPeer:   make(map[netip.Prefix]int),
	}
}

// Wrap returns a listener whose Accept yields only connections within the
// limits. The others get the refusal, a complete reply line, and are closed
// without holding up Accept; with an empty refusal, as before a TLS handshake,
// they are closed at once. l must be a TCP listener. The connections embed
// *net.TCPConn, and count until their Close.
func (x *Limiter) Wrap(l net.Listener, refusal string) net.Listener {
	return &listener{Listener: l, limiter: x, text: refusal}
}

type listener struct {
	net.Listener
	limiter *Limiter
	text    string
}

// Accept waits for the next connection within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			return nil, errors.Join(fmt.Errorf("listen: %T: %w", c, errNotTCP), c.Close())
		}
		peer, local := peerOf(tcp)
		reason := l.limiter.take(peer, local)
		if reason == "" {
			return &conn{TCPConn: tcp, release: sync.OnceFunc(func() { l.limiter.release(peer) })}, nil
		}
		l.limiter.note(tcp.RemoteAddr(), reason)
		l.limiter.refuse(tcp, l.text)
	}
}

// peerOf tells as whom a client counts: an IPv4 address, or the /64 network that
// one IPv6 customer has to choose addresses from.
func peerOf(c *net.TCPConn) (peer netip.Prefix, loopback bool) {
	addr, _ := c.RemoteAddr().(*net.TCPAddr) // what AddrPort does of nil is harmless
	return peerNetwork(addr.AddrPort().Addr())
}

func peerNetwork(addr netip.Addr) (peer netip.Prefix, loopback bool) {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked(), addr.IsLoopback()
}

// take counts a connection, or says which limit forbids it.
func (x *Limiter) take(peer netip.Prefix, loopback bool) (reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.limits.Total > 0 && x.total >= x.limits.Total:
		return "too many connections"
	case !loopback && x.limits.PerAddress > 0 && x.byPeer[peer] >= x.limits.PerAddress:
		return "too many connections from this address"
	}
	x.total++
	x.byPeer[peer]++
	return ""
}

func (x *Limiter) release(peer netip.Prefix) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.total--
	if x.byPeer[peer]--; x.byPeer[peer] == 0 {
		delete(x.byPeer, peer)
	}
}

// note logs a refusal unless one was logged a moment ago: a flood of
// connections must not become a flood of lines.
func (x *Limiter) note(remote net.Addr, reason string) {
	x.refused.Add(1)
	x.mu.Lock()
	now := x.now()
	due := x.logged.IsZero() || now.Sub(x.logged) >= logInterval
	silent, open := x.silent, x.total
	if due {
		x.logged, x.silent = now, 0
	} else {
		x.silent++
	}
	x.mu.Unlock()
	if due {
		x.log.Warn("refused a connection", "remote", remote.String(), "reason", reason, "open", open, "refused_before", silent)
	}
}

// refuse closes the connection, after the refusal if there is one and few
// enough others are being written.
func (x *Limiter) refuse(c *net.TCPConn, text string) {
	if text == "" {
		_ = c.Close() // nothing was owed to the client
		return
	}
	select {
	case x.refusal <- struct{}{}:
	default:
		_ = c.Close()
		return
	}
	go func() {
		defer func() { <-x.refusal }()
		defer c.Close()
		if c.SetDeadline(time.Now().Add(x.patience)) != nil {
			return
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		if c.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c, maxDrained) // until the client closes too
		}
	}()
}

// conn is a connection that counts until it is closed.
type conn struct {
	*net.TCPConn
	release func() // does its work once
}

// NetConn returns the connection underneath.
func (c *conn) NetConn() net.Conn { return c.TCPConn }

// Close closes the connection and stops counting it. It may be called again.
func (c *conn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
