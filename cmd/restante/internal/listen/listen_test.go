package listen

import (
	"errors"
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
