package listen

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// shortPause is how long accepting pauses after the first error of a row, each
	// pause twice as long as the one before.
	shortPause = 5 * time.Millisecond
	longPause  = time.Second
	// logInterval is the least time between two log lines about the same.
	logInterval = 10 * time.Second
)

// next waits for the next connection, whether or not it is within the limits. Most
// errors are about one client, whose connection ended in the queue or was forbidden by
// a firewall, or about what the system is short of: no reason to stop serving.
func (l *listener) next() (net.Conn, error) {
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		c, err := l.Listener.Accept()
		if err == nil || !passes(err) {
			return c, err
		}
		l.limiter.noteError(l.Addr(), err)
		select {
		case <-time.After(pause):
		case <-l.closing:
			return nil, net.ErrClosed
		}
	}
}

// passes tells whether accepting may succeed after an error of the system: all but
// those that say that the listener itself is broken.
func passes(err error) bool {
	var cause syscall.Errno
	if !errors.As(err, &cause) {
		return false
	}
	switch cause {
	case syscall.EBADF, syscall.EFAULT, syscall.EINVAL, syscall.ENOTSOCK:
		return false
	}
	return true
}

// noteError logs an error of accept unless one was logged a moment ago.
func (x *Limiter) noteError(address net.Addr, err error) {
	x.mu.Lock()
	due, silent := x.failed.due(x.now())
	x.mu.Unlock()
	if due {
		x.log.Warn("cannot accept a connection, trying again", "address", address.String(), "error", err, "errors_before", silent)
	}
}

// Close ends Accept, also where it pauses. It may be called again.
func (l *listener) Close() error {
	l.closed.Do(func() { close(l.closing) })
	return l.Listener.Close()
}

// seldom keeps lines about the same apart.
type seldom struct {
	last   time.Time // of a line
	silent int       // events since without a line
}

// due tells whether an event may have a line, and how many before it had none.
func (s *seldom) due(now time.Time) (bool, int) {
	if !s.last.IsZero() && now.Sub(s.last) < logInterval {
		s.silent++
		return false, 0
	}
	silent := s.silent
	s.last, s.silent = now, 0
	return true, silent
}
