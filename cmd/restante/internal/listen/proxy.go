package listen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	// headerTime is how long a proxy has to say for whom it comes.
	headerTime = 10 * time.Second
	// maxHeaders is how many proxies may be about to say it at once.
	maxHeaders = 256
	// maxHeader is longer than any header that is of use here, in octets; in version 1
	// there is a limit.
	maxHeader     = 4096
	maxTextHeader = 107
)

// Proxied returns a listener for clients of which some come through proxies, such
// as load balancers. A connection from an address for which trusted says so must
// begin with a header of the PROXY protocol, version 1 or 2, and is then as if its
// client had come by itself. All others are taken as they are. l must be a TCP
// listener. A Limiter goes around it, so that it sees the clients.
func Proxied(l net.Listener, trusted func(netip.Addr) bool, log *slog.Logger) net.Listener {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return newProxied(l, trusted, log, headerTime)
}

func newProxied(l net.Listener, trusted func(netip.Addr) bool, log *slog.Logger, patience time.Duration) net.Listener {
	return &proxied{
		Listener: l, trusted: trusted, log: log, patience: patience,
		ready: make(chan accepted), done: make(chan struct{}), slots: make(chan struct{}, maxHeaders),
		reading: make(map[net.Conn]struct{}),
	}
}

type proxied struct {
	net.Listener
	trusted  func(netip.Addr) bool
	log      *slog.Logger
	patience time.Duration
	ready    chan accepted
	done     chan struct{} // closed by Close
	slots    chan struct{} // a token for each header that is being read
	first    sync.Once
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	reading map[net.Conn]struct{} // whose header is being read
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// Accept waits for the next client, whether or not it comes through a proxy. Nothing
// is read from anybody before the first call.
func (p *proxied) Accept() (net.Conn, error) {
	p.first.Do(p.begin)
	select {
	case a := <-p.ready:
		return a.conn, a.err
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *proxied) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Go(p.accept)
	}
}

// Close ends also the connections whose header has not come yet.
func (p *proxied) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.closed = true
	close(p.done)
	for c := range p.reading {
		c.Close()
	}
	p.mu.Unlock()
	err := p.Listener.Close()
	p.running.Wait()
	return err
}

// accept takes connections until the listener is closed. An error is handed on: it
// is for the caller to say whether to go on.
func (p *proxied) accept() {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			if !p.hand(accepted{nil, err}) {
				return
			}
			continue
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok || !p.trusted(addrOf(c.RemoteAddr())) {
			p.hand(accepted{c, nil})
			continue
		}
		select {
		case p.slots <- struct{}{}:
			p.running.Go(func() {
				defer func() { <-p.slots }()
				p.introduce(tcp)
			})
		default:
			c.Close()
		}
	}
}

// hand gives Accept something; false when nobody asks any more.
func (p *proxied) hand(a accepted) bool {
	select {
	case p.ready <- a:
		return true
	case <-p.done:
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// introduce reads the header of a proxy.
func (p *proxied) introduce(c *net.TCPConn) {
	if !p.track(c) {
		c.Close()
		return
	}
	client, err := p.header(c)
	p.mu.Lock()
	delete(p.reading, c)
	p.mu.Unlock()
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, errSilent) {
			level = slog.LevelDebug // it looks whether the port is open
		}
		p.log.Log(context.Background(), level, "a proxy did not say for whom it comes", "proxy", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	p.hand(accepted{client, nil})
}

func (p *proxied) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.reading[c] = struct{}{}
	}
	return !p.closed
}

var (
	errNoClient   = errors.New("the header names no TCP client")
	errLongHeader = errors.New("the header is too long")
	errSilent     = errors.New("it was closed before anything was said")
)

// header is the connection as that of the client.
func (p *proxied) header(c *net.TCPConn) (net.Conn, error) {
	if err := c.SetReadDeadline(time.Now().Add(p.patience)); err != nil {
		return nil, err
	}
	raw, err := rawHeader(c)
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if h.Command == proxyproto.LOCAL {
		return c, nil // the proxy itself, to see whether we are well
	}
	from, to, ok := h.TCPAddrs()
	if !ok {
		return nil, errNoClient
	}
	return &represented{c, from, to}, nil
}

// rawHeader reads the octets of a header and none after it, which are for the
// protocol. The first twelve tell the version: no header is shorter.
func rawHeader(r io.Reader) ([]byte, error) {
	b := make([]byte, len(proxyproto.SIGV2), maxHeader)
	if n, err := io.ReadFull(r, b); n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errSilent
	} else if err != nil {
		return nil, err
	}
	if bytes.Equal(b, proxyproto.SIGV2) {
		return binaryHeader(r, b)
	}
	if !bytes.HasPrefix(b, proxyproto.SIGV1) {
		return nil, proxyproto.ErrNoProxyProtocol
	}
	for b[len(b)-1] != '\n' {
		if len(b) == maxTextHeader {
			return nil, errLongHeader
		}
		b = b[:len(b)+1]
		if _, err := io.ReadFull(r, b[len(b)-1:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// binaryHeader reads the rest of a header of version 2: its kind in two octets,
// the length of what follows in two more.
func binaryHeader(r io.Reader, b []byte) ([]byte, error) {
	start := len(b)
	b = b[:start+4]
	if _, err := io.ReadFull(r, b[start:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(b[start+2:]))
	if length > maxHeader-len(b) {
		return nil, errLongHeader
	}
	start = len(b)
	b = b[:start+length]
	_, err := io.ReadFull(r, b[start:])
	return b, err
}

// represented is a connection that a proxy has made for its client.
type represented struct {
	*net.TCPConn
	from, to *net.TCPAddr
}

func (r *represented) RemoteAddr() net.Addr { return r.from }
func (r *represented) LocalAddr() net.Addr  { return r.to }

func addrOf(a net.Addr) netip.Addr {
	tcp, _ := a.(*net.TCPAddr) // what AddrPort does of nil is harmless
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
