// Package listen opens the ports of the server and bounds the connections on
// them, in all and from one address, before a protocol sees them.
package listen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A peer that is gone without a word, such as a phone that has changed its
// network, must not keep a mailbox locked: a connection ends when nothing that was
// sent has been acknowledged for this long, and an idle one is asked in time.
const (
	unacknowledged  = 3 * time.Minute // longer than the protocols wait for a client that reads slowly
	idleBeforeProbe = time.Minute
	betweenProbes   = 30 * time.Second
	probes          = int((unacknowledged - idleBeforeProbe) / betweenProbes)
)

// Listen opens a TCP port, for IPv4 and IPv6 when addr ("host:port") names no
// host. A peer that is gone is noticed within about three minutes. The error names
// the address and says what to do; the system's error is wrapped.
func Listen(addr string) (net.Listener, error) {
	config := net.ListenConfig{
		Control: limitSilence,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: idleBeforeProbe, Interval: betweenProbes, Count: probes,
		},
	}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, bindError(addr, err)
	}
	queue(l)
	return l, nil
}

// queue has as many clients wait to be accepted as the system lets any server. Go
// reads that number from /proc, where the server may not see it.
func queue(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // with the shorter queue of before, as if the next fails
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), math.MaxUint16) })
}

// limitSilence sets TCP_USER_TIMEOUT (RFC 5482), which accepted connections inherit.
func limitSilence(_, _ string, c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
	return errors.Join(control, err)
}

// bindError tells the administrator what the system's error means for a port.
func bindError(addr string, err error) error {
	for _, known := range []struct {
		cause error
		hint  string
	}{
		{syscall.EADDRINUSE, `is another mail server running? "ss -ltnp" shows it`},
		{syscall.EACCES, "ports below 1024 need root or CAP_NET_BIND_SERVICE, which the systemd unit grants"},
		{syscall.EADDRNOTAVAIL, `this machine has no such address; "ip address" shows those it has`},
	} {
		if errors.Is(err, known.cause) {
			return fmt.Errorf("cannot listen on %s: %w (%s)", addr, known.cause, known.hint)
		}
	}
	var op *net.OpError
	if errors.As(err, &op) { // its text repeats the address
		err = op.Err
	}
	return fmt.Errorf("cannot listen on %s: %w", addr, err)
}
