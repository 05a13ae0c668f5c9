package loadgen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"
)

// Account is where a POP3 client logs in, and as whom. TLS nil is none.
type Account struct {
	Address        string
	TLS            *tls.Config
	User, Password string
}

// logIn connects, and logs in with USER and PASS.
func (a Account) logIn(ctx context.Context) (*conn, error) {
	c, err := dial(ctx, a.Address, a.TLS)
	if err != nil {
		return nil, err
	}
	err = c.ok("greeting")
	if err == nil {
		err = c.ask("USER", " "+a.User)
	}
	if err == nil {
		err = c.ask("PASS", " "+a.Password)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// ask sends a command and wants the reply +OK. An error names the verb only:
// the argument may be a password.
func (c *conn) ask(verb, argument string) error {
	if _, err := io.WriteString(c, verb+argument+"\r\n"); err != nil {
		return err
	}
	return c.ok(verb)
}

func (c *conn) ok(to string) error {
	l, err := c.line()
	if err == nil && !bytes.HasPrefix(l, []byte("+OK")) {
		return unexpected(to, l)
	}
	return err
}

// visitor logs in, and out again.
type visitor struct {
	ctx     context.Context
	account Account
}

// OpenLogins logs in once, so that the server knows the password. Each Do of the
// Task is a connection with a login and QUIT; its wait is the time from the
// first octet, handshake included, until the maildrop is open.
func OpenLogins(ctx context.Context, a Account) (Task, error) {
	v := &visitor{ctx, a}
	_, _, err := v.Do()
	return v, err
}

func (v *visitor) Do() (int, time.Duration, error) {
	began := time.Now()
	c, err := v.account.logIn(v.ctx)
	if err != nil {
		return 0, 0, err
	}
	wait := time.Since(began)
	return 1, wait, errors.Join(c.ask("QUIT", ""), c.Close())
}

func (v *visitor) Close() error { return nil }

// fetcher retrieves the messages of one maildrop again and again.
type fetcher struct {
	conn      *conn
	batches   [][]byte // commands for batch messages, each written at once
	batch     int
	nextBatch int
}

// OpenFetch logs in to a mailbox with so many messages. Each Do of the Task
// retrieves batch messages with commands sent all at once; messages must be a
// multiple of it. With a batch of one, the wait is the time to have the whole
// message.
func OpenFetch(ctx context.Context, a Account, messages, batch int) (Task, error) {
	c, err := a.logIn(ctx)
	if err != nil {
		return nil, err
	}
	f := &fetcher{conn: c, batch: batch, batches: make([][]byte, messages/batch)}
	for i := range messages {
		b := &f.batches[i/batch]
		*b = fmt.Appendf(*b, "RETR %d\r\n", i+1)
	}
	return f, nil
}

func (f *fetcher) Do() (int, time.Duration, error) {
	began := time.Now()
	if _, err := f.conn.Write(f.batches[f.nextBatch]); err != nil {
		return 0, 0, err
	}
	f.nextBatch = (f.nextBatch + 1) % len(f.batches)
	for range f.batch {
		if err := f.message(); err != nil {
			return 0, 0, err
		}
	}
	if f.batch > 1 {
		return f.batch, 0, nil
	}
	return 1, time.Since(began), nil
}

// message reads a reply to RETR up to the line with a dot alone.
func (f *fetcher) message() error {
	if err := f.conn.ok("RETR"); err != nil {
		return err
	}
	for {
		l, err := f.conn.line()
		if err != nil {
			return err
		}
		if len(l) == 1 && l[0] == '.' {
			return nil
		}
	}
}

// Close says QUIT: the next one can have the mailbox when that is answered.
func (f *fetcher) Close() error { return errors.Join(f.conn.ask("QUIT", ""), f.conn.Close()) }
