package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// maxLine bounds a line of a server, and is what one read may bring.
const maxLine = 64 << 10

// conn is a connection on which replies are read line by line. The end of the
// context that it was dialled with closes it.
type conn struct {
	net.Conn
	in     *bufio.Reader
	forget func() bool
}

// dial connects, over TLS unless secure is nil.
func dial(ctx context.Context, address string, secure *tls.Config) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw}
	c.forget = context.AfterFunc(ctx, func() { raw.Close() })
	if secure != nil {
		over := tls.Client(raw, secure)
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("handshake with %s: %w", address, err), c.Close())
		}
		c.Conn = over
	}
	c.in = bufio.NewReaderSize(c.Conn, maxLine)
	return c, nil
}

// Close ends the connection. That it may be closed already is no error.
func (c *conn) Close() error {
	c.forget()
	if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// line reads a line, without its end. It is valid until the next read.
func (c *conn) line() ([]byte, error) {
	l, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("reading from %s: %w", c.RemoteAddr(), err)
	}
	return bytes.TrimRight(l, "\r\n"), nil
}

// unexpected is the error for a reply that says no.
func unexpected(what string, reply []byte) error {
	return fmt.Errorf("%s: the server answered %q", what, reply)
}
