// Package listen opens the ports of the server and bounds the connections on
// them, in all and from one address, before a protocol sees them.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Listen opens a TCP port, for IPv4 and IPv6 when addr ("host:port") names no
// host. Connections have TCP keep-alive on, so that dead peers are noticed. The
// error names the address and says what to do; the system's error is wrapped.
func Listen(addr string) (net.Listener, error) {
	var config net.ListenConfig // keep-alive is on unless disabled
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, bindError(addr, err)
	}
	return l, nil
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
