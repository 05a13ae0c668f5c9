package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
)

// The one user of the tests, and its SASL PLAIN response.
const (
	testUser     = "anna@example.org"
	testPassword = "open  sesame "
)

var testPlain = base64.StdEncoding.EncodeToString([]byte("\x00" + testUser + "\x00" + testPassword))

// fakeMail is a mailbox in memory with an exclusive lock, and the user of it.
type fakeMail struct {
	mu       sync.Mutex
	messages []string // "" was removed
	vanished map[int]bool
	locked   bool
	dead     bool // the account was changed

	authErr   error // instead of a check
	openErr   error
	removeErr error
	keeps     int // messages that Remove fails to remove
	message   func(i int) (io.ReadCloser, error)
	visits    []Visit               // signed
	removals  int                   // calls of Remove
	removing  func(context.Context) // called by Remove, if set
	closed    chan struct{}         // gets one for each Close; nil: nobody listens
}

func newFakeMail(messages ...string) *fakeMail {
	return &fakeMail{messages: messages, vanished: map[int]bool{}}
}

func (f *fakeMail) Authenticate(_ context.Context, c Credentials) (Login, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.authErr != nil:
		return Login{}, f.authErr
	case c.User != testUser || c.Password != testPassword:
		return Login{}, fmt.Errorf("%q: %w", c.User, ErrBadCredentials)
	}
	return Login{Mailbox: testUser, Alive: func(context.Context) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.dead
	}}, nil
}

func (f *fakeMail) Open(_ context.Context, mailbox string) (Maildrop, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.openErr != nil:
		return nil, f.openErr
	case mailbox != testUser:
		return nil, errors.New("no such mailbox")
	case f.locked:
		return nil, fmt.Errorf("%s: %w", mailbox, ErrInUse)
	}
	f.locked = true
	d := &fakeDrop{mail: f}
	for i, m := range f.messages {
		if m != "" {
			d.index = append(d.index, i)
		}
	}
	return d, nil
}

// left tells which messages are still in the mailbox.
func (f *fakeMail) left() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []string
	for _, m := range f.messages {
		if m != "" {
			left = append(left, m)
		}
	}
	return left
}

func (f *fakeMail) isLocked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.locked
}

// fakeDrop is a maildrop over the messages that were there when it was opened.
type fakeDrop struct {
	mail  *fakeMail
	index []int
}

func (d *fakeDrop) text(i int) string {
	d.mail.mu.Lock()
	defer d.mail.mu.Unlock()
	return d.mail.messages[d.index[i]]
}

func (d *fakeDrop) Sign(v Visit) error {
	d.mail.mu.Lock()
	defer d.mail.mu.Unlock()
	d.mail.visits = append(d.mail.visits, v)
	return errors.New("no place for it") // which is nobody's concern
}

func (d *fakeDrop) Len() int           { return len(d.index) }
func (d *fakeDrop) Octets(i int) int64 { return int64(len(d.text(i))) }
func (d *fakeDrop) UIDL(i int) string  { return fmt.Sprintf("uid-%d", d.index[i]+100) }

func (d *fakeDrop) Message(i int) (io.ReadCloser, error) {
	if d.mail.message != nil {
		return d.mail.message(i)
	}
	if d.mail.vanished[d.index[i]] {
		return nil, fmt.Errorf("message %d: %w", i, ErrGone)
	}
	return io.NopCloser(strings.NewReader(d.text(i))), nil
}

func (d *fakeDrop) Remove(ctx context.Context, indexes []int) (int, error) {
	if d.mail.removing != nil {
		d.mail.removing(ctx)
	}
	d.mail.mu.Lock()
	defer d.mail.mu.Unlock()
	d.mail.removals++
	n := len(indexes) - d.mail.keeps
	for _, i := range indexes[:n] {
		d.mail.messages[d.index[i]] = ""
	}
	return n, d.mail.removeErr
}

func (d *fakeDrop) Close() error {
	d.mail.mu.Lock()
	defer d.mail.mu.Unlock()
	if !d.mail.locked {
		return errors.New("closed twice")
	}
	d.mail.locked = false
	if d.mail.closed != nil {
		d.mail.closed <- struct{}{}
	}
	return nil
}

// fakeLogin is the LOGIN mechanism.
type fakeLogin struct {
	verify func(authzid, user, password string) error
	step   int
	user   string
}

func (l *fakeLogin) Next(response []byte) ([]byte, bool, error) {
	l.step++
	switch {
	case l.step == 1 && response == nil:
		return []byte("User Name\x00"), false, nil
	case l.step <= 2 && l.user == "":
		l.user, l.step = string(response), 2
		return []byte("Password\x00"), false, nil
	}
	return nil, true, l.verify("", l.user, string(response))
}

func testSASL() SASL {
	return SASL{
		Mechanisms: []string{"PLAIN", "LOGIN"},
		New: func(mechanism string, verify func(authzid, user, password string) error) (sasl.Server, bool) {
			switch strings.ToUpper(mechanism) {
			case "PLAIN":
				return sasl.NewPlainServer(verify), true
			case "LOGIN":
				return &fakeLogin{verify: verify}, true
			}
			return nil, false
		},
	}
}

func everywhere(netip.Addr) bool { return true }

// player runs a session without a socket.
type player struct {
	*session
	out bytes.Buffer
}

func newPlayer(c Config, mail *fakeMail) *player {
	allowed := c.AllowPlaintext != nil
	return &player{session: newSession(c.withDefaults(), &backend{Authenticator: mail, Mailstore: mail, SASL: testSASL()}, allowed)}
}

// say gives the session a line and returns the whole reply as sent. It plays
// the loop's part.
func (p *player) say(line string) (string, error) {
	r := p.handle(context.Background(), []byte(line))
	if p.state == update {
		r = p.update(context.Background())
	}
	return p.render(r)
}

func (p *player) render(r reply) (string, error) {
	p.out.Reset()
	w := bufio.NewWriter(&p.out)
	err := errors.Join(r.write(w), w.Flush())
	return p.out.String(), err
}

// must is say for lines whose reply is sent whole.
func (p *player) must(tb testing.TB, line string) string {
	tb.Helper()
	text, err := p.say(line)
	if err != nil {
		tb.Fatalf("%q: %v", line, err)
	}
	return text
}

func (p *player) logInNow(tb testing.TB) {
	tb.Helper()
	p.must(tb, "USER "+testUser)
	if got := p.must(tb, "PASS "+testPassword); !strings.HasPrefix(got, "+OK") {
		tb.Fatalf("login: %q", got)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
