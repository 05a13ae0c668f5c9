package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const long = time.Minute // nothing here takes as long

// counted is a task that does nothing but fail at the wanted time.
type counted struct {
	n, failAt int
	closed    *atomic.Int32
}

var errTask = errors.New("it failed")

func (c *counted) Do() (int, time.Duration, error) {
	if c.n++; c.n == c.failAt {
		return 0, 0, errTask
	}
	return 2, time.Duration(c.n), nil
}

func (c *counted) Close() error { c.closed.Add(1); return nil }

func TestRunEnds(t *testing.T) {
	var closed atomic.Int32
	p := Plan{Workers: 1, Duration: long, Most: 10, Open: func(context.Context, int) (Task, error) {
		return &counted{closed: &closed}, nil
	}}
	r, err := p.Run(t.Context())
	if err != nil || r.Done != 10 || closed.Load() != 1 {
		t.Errorf("%d done, %d closed, %v", r.Done, closed.Load(), err)
	}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.6: 3, 0.61: 4, 0.95: 5, 1: 5} {
		if got, ok := r.Wait(share); got != want || !ok {
			t.Errorf("%v of 1 to 5 ns are within %v, not %v", share, got, want)
		}
	}
	if _, ok := (Result{}).Wait(0.5); ok {
		t.Error("there is a time of nothing")
	}
	p.Duration = 0
	if r, err = p.Run(t.Context()); err != nil || r.Done != 0 || r.Rate() != 0 || r.CPUEach() < 0 {
		t.Errorf("without time: %+v, %v", r, err)
	}
}

// TestRunFails: one task that fails, at its start or later, ends them all, and all
// are closed.
func TestRunFails(t *testing.T) {
	var closed atomic.Int32
	p := Plan{Workers: 3, Duration: long, Most: 1 << 30}
	p.Open = func(_ context.Context, worker int) (Task, error) {
		return &counted{closed: &closed, failAt: 100 * worker}, nil
	}
	if _, err := p.Run(t.Context()); !errors.Is(err, errTask) || closed.Load() != 3 {
		t.Errorf("%d closed, %v", closed.Load(), err)
	}
	closed.Store(0)
	p.Open = func(_ context.Context, worker int) (Task, error) {
		if worker == 1 {
			return nil, errTask
		}
		return &counted{closed: &closed}, nil
	}
	if _, err := p.Run(t.Context()); !errors.Is(err, errTask) || closed.Load() != 2 {
		t.Errorf("%d closed, %v", closed.Load(), err)
	}
}

// serve answers one client at a time: every line that begins with a key gets the
// reply, a greeting comes first, and a reply "354" is followed by data.
func serve(t *testing.T, greeting string, replies map[string]string) (address string, heard func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(c, io.TeeReader(c, &said), greeting, replies)
			c.Close()
		}
	}()
	heard = func() string {
		l.Close()
		<-done
		return said.String()
	}
	t.Cleanup(func() { heard() })
	return l.Addr().String(), heard
}

func answer(w io.Writer, r io.Reader, greeting string, replies map[string]string) {
	fmt.Fprint(w, greeting)
	in := bufio.NewReader(r)
	for data := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		word := strings.Fields(line + " .")[0]
		if data && line != ".\r\n" {
			continue
		}
		data = strings.HasPrefix(replies[word], "354")
		fmt.Fprint(w, replies[word]) // a client that is gone reads no more
	}
}

func TestSMTP(t *testing.T) {
	address, heard := serve(t, "220-hello\r\n220 there\r\n", map[string]string{
		"EHLO": "250-localhost\r\n250 PIPELINING\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n", "DATA": "354 go\r\n", ".": "250 ok\r\n",
	})
	message := Message(600)
	p := Plan{Workers: 1, Duration: long, Most: 2, Open: func(ctx context.Context, _ int) (Task, error) {
		return OpenSMTP(ctx, address, "user@example.org", message)
	}}
	r, err := p.Run(t.Context())
	if err != nil || r.Done != 2 {
		t.Fatalf("%d done, %v", r.Done, err)
	}
	if wait, ok := r.Wait(1); !ok || wait <= 0 {
		t.Error("no time was taken")
	}
	one := "MAIL FROM:<sender@example.org>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n" + string(message) + ".\r\n"
	if got, want := heard(), "EHLO localhost\r\n"+strings.Repeat(one, 3); got != want { // the first is not measured
		t.Errorf("the client said %q, not %q", got, want)
	}
}

func TestSMTPRefused(t *testing.T) {
	address, _ := serve(t, "220 hello\r\n", map[string]string{
		"EHLO": "250 localhost\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n", "DATA": "354 go\r\n", ".": "452 4.3.1 no space\r\n",
	})
	_, err := OpenSMTP(t.Context(), address, "user@example.org", Message(600))
	if err == nil || err.Error() != `message: the server answered "452 4.3.1 no space"` {
		t.Errorf("the error is %v", err)
	}
}

func TestMessage(t *testing.T) {
	for _, size := range []int{512, 513, 514, 515, 585, 586, 587, 588, 4096, 1 << 20} {
		m := string(Message(size))
		if len(m) != size || !strings.HasSuffix(m, "\r\n") || strings.Contains(m, "\r\n.") || strings.Count(m, "\r\n\r\n") != 1 ||
			strings.Count(m, "\r") != strings.Count(m, "\r\n") {
			t.Errorf("%d octets: %d, ending in %q", size, len(m), m[len(m)-10:])
		}
		for line := range strings.Lines(m) {
			if len(line) > 80 {
				t.Errorf("%d octets: a line of %d", size, len(line))
			}
		}
	}
}

func TestPOP3(t *testing.T) {
	address, heard := serve(t, "+OK hello\r\n", map[string]string{
		"USER": "+OK\r\n", "PASS": "+OK\r\n", "QUIT": "+OK bye\r\n", "RETR": "+OK\r\nSubject: x\r\n\r\n..dot\r\n.\r\n",
	})
	account := Account{Address: address, User: "user@example.org", Password: "secret"}
	for batch, most := range map[int]int{1: 5, 2: 6} {
		p := Plan{Workers: 1, Duration: long, Most: most, Open: func(ctx context.Context, _ int) (Task, error) {
			return OpenFetch(ctx, account, 4, batch)
		}}
		r, err := p.Run(t.Context())
		if err != nil || r.Done != most {
			t.Errorf("%d done, %v", r.Done, err)
		}
		if _, ok := r.Wait(0.5); ok != (batch == 1) {
			t.Errorf("batches of %d have a time: %v", batch, ok)
		}
	}
	p := Plan{Workers: 1, Duration: long, Most: 1, Open: func(ctx context.Context, _ int) (Task, error) {
		return OpenLogins(ctx, account)
	}}
	if r, err := p.Run(t.Context()); err != nil || r.Done != 1 {
		t.Errorf("%d done, %v", r.Done, err)
	}
	said := heard()
	for command, times := range map[string]int{"USER user@example.org": 4, "PASS secret": 4, "QUIT": 4, "RETR 1": 2 + 2, "RETR 3": 1 + 1, "RETR 4": 1 + 1} {
		if got := strings.Count(said, command+"\r\n"); got != times {
			t.Errorf("%q was said %d times, not %d", command, got, times)
		}
	}
}

// TestPOP3Refused: the error does not tell the password.
func TestPOP3Refused(t *testing.T) {
	address, _ := serve(t, "+OK hello\r\n", map[string]string{"USER": "+OK\r\n", "PASS": "-ERR [AUTH] no\r\n"})
	_, err := OpenFetch(t.Context(), Account{Address: address, User: "u", Password: "secret"}, 1, 1)
	if err == nil || err.Error() != `PASS: the server answered "-ERR [AUTH] no"` {
		t.Errorf("the error is %v", err)
	}
}

// TestRunInterrupted: the end of the context is told, whatever the tasks waited for.
func TestRunInterrupted(t *testing.T) {
	address, _ := serve(t, "", nil) // never says anything
	cause := errors.New("that is enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := Plan{Workers: 1, Duration: long, Most: 1, Open: func(ctx context.Context, _ int) (Task, error) {
		cancel(cause)
		return OpenSMTP(ctx, address, "user@example.org", nil)
	}}
	if _, err := p.Run(ctx); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
}

func TestSyncs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	p := Plan{Workers: 1, Duration: long, Most: 3, Open: func(ctx context.Context, _ int) (Task, error) {
		return OpenSyncs(ctx, name)
	}}
	r, err := p.Run(t.Context())
	if wait, ok := r.Wait(0.5); err != nil || r.Done != 3 || !ok || wait <= 0 {
		t.Errorf("%d done, %v, %v", r.Done, wait, err)
	}
	if st, err := os.Stat(name); err != nil || st.Size() != syncBlock*syncBlocks {
		t.Errorf("the file is %v, %v", st, err)
	}
	if _, err := p.Run(t.Context()); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that exists is no error: %v", err)
	}
}
