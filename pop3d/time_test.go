package pop3d

import (
	"context"
	"testing"
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
