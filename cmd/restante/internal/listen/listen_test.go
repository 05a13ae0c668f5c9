package listen

import (
	"errors"
	"golang.org/x/sys/unix"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestListen(t *testing.T) {
	l := open(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	_, err = Listen(l.Addr().String())
	want := "cannot listen on " + l.Addr().String() + `: address already in use (is another mail server running? "ss -ltnp" shows it)`
	if !errors.Is(err, syscall.EADDRINUSE) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestBindErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "listen", Err: syscall.EACCES}, "CAP_NET_BIND_SERVICE, which the systemd unit grants"},
		{&net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}, "no such address"},
		{&net.OpError{Op: "listen", Err: syscall.EMFILE}, "cannot listen on :25: too many open files"},
		{errors.New("odd"), "cannot listen on :25: odd"},
	} {
		got := bindError(":25", test.err)
		cause := test.err
		if op, ok := test.err.(*net.OpError); ok {
			cause = op.Err
		}
		if !errors.Is(got, cause) || !strings.HasPrefix(got.Error(), "cannot listen on :25: ") || !strings.Contains(got.Error(), test.want) {
			t.Errorf("got %v, want %s", got, test.want)
		}
	}
}

// TestDeadPeers: accepted connections find out that their peer is gone.
func TestDeadPeers(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	raw, err := served.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct {
		name                string
		level, number, want int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 30},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 180_000},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), option.level, option.number) }); err != nil {
			t.Fatal(err)
		}
		if failed != nil || got != option.want {
			t.Errorf("%s is %d (%v), want %d", option.name, got, failed, option.want)
		}
	}
}
