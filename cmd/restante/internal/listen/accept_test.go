package listen

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// flaky fails with each of some errors before it accepts; with the last for ever if so.
type flaky struct {
	net.Listener
	mu      sync.Mutex
	errs    []error
	forever bool
	failed  chan struct{} // closed at the first, if it is set
	once    sync.Once
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		f.once.Do(func() { close(f.failed) })
	}
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	if !f.forever {
		f.errs = f.errs[1:]
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
}

// TestAcceptGoesOn: a firewall, a client that is gone or a system that is short of
// something ends no server.
func TestAcceptGoesOn(t *testing.T) {
	var out strings.Builder
	x := NewLimiter(Limits{}, slog.New(slog.NewTextHandler(&out, nil)))
	l := x.Wrap(&flaky{Listener: open(t), errs: []error{syscall.EPERM, syscall.EPROTO, syscall.ENOBUFS, syscall.ENOMEM, syscall.EMFILE, syscall.ECONNABORTED}}, "")
	dial(t, l)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), "operation not permitted") {
		t.Errorf("the log:\n%s", out.String())
	}
	for _, broken := range []error{syscall.EBADF, syscall.EINVAL, net.ErrClosed, errors.New("odd")} {
		l := x.Wrap(&flaky{Listener: open(t), errs: []error{broken}}, "")
		if _, err := l.Accept(); !errors.Is(err, broken) {
			t.Errorf("%v: %v", broken, err)
		}
	}
}

// TestClosedInAPause: the listener is closed while it waits to try again.
func TestClosedInAPause(t *testing.T) {
	f := &flaky{Listener: open(t), errs: []error{syscall.ENFILE}, forever: true, failed: make(chan struct{})}
	l := NewLimiter(Limits{}, nil).Wrap(f, "")
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	<-f.failed
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	_ = l.Close() // once more does no harm
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Accept goes on")
	}
}
