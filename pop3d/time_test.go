package pop3d

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// timed asks how much time there is.
type timed struct {
	*fakeMail
	check, open time.Duration
}

func (m *timed) Authenticate(ctx context.Context, c Credentials) (Login, error) {
	m.check = left(ctx)
	return m.fakeMail.Authenticate(ctx, c)
}

func (m *timed) Open(ctx context.Context, mailbox string) (Maildrop, error) {
	m.open = left(ctx)
	return m.fakeMail.Open(ctx, mailbox)
}

func left(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return time.Until(end)
}

// The time for a login is for those who have not proven who they are.
func TestTimeToOpen(t *testing.T) {
	mail := &timed{fakeMail: newFakeMail("a\r\n")}
	config := plain()
	config.LoginTimeout = time.Minute
	c, _ := pipe(t, NewServer(config, mail, mail, testSASL(), nil))
	c.logIn(t)
	if mail.check <= 0 || mail.check > time.Minute {
		t.Errorf("%v to check the login", mail.check)
	}
	if mail.open < 5*time.Minute || mail.open > time.Hour {
		t.Errorf("%v to open the maildrop", mail.open)
	}
}

// A slow line gets its message, and who takes an octet now and then keeps no maildrop.
func TestSlowClients(t *testing.T) {
	for _, c := range []struct {
		octets int // that the client takes at a time
		every  time.Duration
		whole  bool
	}{
		{96, 100 * time.Millisecond, true}, // 9600 baud
		{writeBuffer / 2, writePatience - time.Second, true},
		{1, writePatience - time.Second, false},
		{1, time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			var reader sync.WaitGroup
			reader.Go(func() {
				for buf := make([]byte, c.octets); ; time.Sleep(c.every) {
					if _, err := io.ReadFull(near, buf); err != nil {
						return
					}
				}
			})
			began := time.Now()
			_, err := (&patientConn{Conn: far, patience: writePatience}).Write(bytes.Repeat([]byte("x"), writeBuffer))
			if (err == nil) != c.whole || time.Since(began) > time.Hour {
				t.Errorf("%d octets every %v: %v after %v", c.octets, c.every, err, time.Since(began))
			}
			far.Close()
			reader.Wait()
		})
	}
}
