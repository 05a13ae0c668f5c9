package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is a set of clients that use a server until it is cut off or they are
// told to stop. They write down in the ledger what they are told.
type load struct {
	ledger     *ledger
	smtp, pop3 string        // addresses
	users      []string      // local parts that get mail, each with a mailbox
	group      []string      // those that the alias groupAlias leads to
	pause      time.Duration // between connections of one client, at most, beside its own

	cut  atomic.Bool // the server is about to lose its disk or its life
	done chan struct{}
	wg   sync.WaitGroup
	left sync.Map // by mailbox: how many messages the last session left there (int)
}

const groupAlias = "everybody"

// profile is a kind of sender.
type profile struct {
	size       int // octets, about
	recipients int // at most
	pipelined  bool
	each       int // messages on a connection, at most
	rest       time.Duration
}

var profiles = []profile{
	{200, 1, true, 50, 0},
	{200, 1, false, 1, 0},
	{300, 3, true, 20, 0},
	{4 << 10, 1, false, 20, 0},
	{4 << 10, 4, true, 20, 0},
	{4 << 10, 2, false, 3, 0},
	{100 << 10, 2, true, 5, 2 * time.Millisecond},
	{2 << 20, 3, false, 2, 40 * time.Millisecond},
}

// start runs the clients; stop or cut, and a wait, end them.
func (l *load) start(rng *rand.Rand) {
	l.done = make(chan struct{})
	for _, p := range profiles {
		s := &sender{load: l, profile: p, rng: rand.New(rand.NewPCG(rng.Uint64(), 2))}
		l.wg.Go(func() { l.repeat("SMTP", s.rng, p.rest, s.connection) })
	}
	for range 3 {
		f := &fetcher{load: l, rng: rand.New(rand.NewPCG(rng.Uint64(), 3))}
		l.wg.Go(func() { l.repeat("POP3", f.rng, 20*time.Millisecond, f.session) })
	}
}

// stop ends the clients in peace.
func (l *load) stop() {
	close(l.done)
	l.wg.Wait()
}

// repeat makes one connection after another, with rests of random length.
func (l *load) repeat(protocol string, rng *rand.Rand, rest time.Duration, connection func() error) {
	for {
		if err := connection(); err != nil {
			if l.cut.Load() {
				return
			}
			l.ledger.trouble("%s, though nothing was cut off: %v", protocol, err)
		}
		select {
		case <-l.done:
			return
		case <-time.After(time.Duration(rng.Int64N(int64(rest + l.pause + time.Millisecond)))):
		}
	}
}

func (l *load) stopped() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// lineConn is a connection that gives up after a while.
type lineConn struct {
	net.Conn
	lines *bufio.Reader
}

func dialLines(address string) (*lineConn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &lineConn{conn, bufio.NewReader(conn)}, nil
}

func (c *lineConn) say(line string) error {
	_, err := io.WriteString(c, line+"\r\n")
	return err
}

func (c *lineConn) line() (string, error) {
	line, err := c.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(line, "\r\n"), nil
}

// reply reads an SMTP reply and returns its last line.
func (c *lineConn) reply() (string, error) {
	for {
		line, err := c.line()
		if err != nil || len(line) < 4 || line[3] != '-' {
			return line, err
		}
	}
}

func (c *lineConn) expect(beginning string) error {
	reply, err := c.reply()
	if err == nil && !strings.HasPrefix(reply, beginning) {
		err = fmt.Errorf("%q instead of %s", reply, beginning)
	}
	return err
}

// sender sends messages of one profile.
type sender struct {
	*load
	profile
	rng *rand.Rand
}

var errHungUp = errors.New("hung up as planned")

// connection sends some messages on one connection.
func (s *sender) connection() error {
	c, err := s.greet()
	if err != nil {
		return err
	}
	defer c.Close()
	for range 1 + s.rng.IntN(s.each) {
		if s.cut.Load() || s.stopped() {
			break
		}
		to, mailboxes := s.recipients()
		if slices.ContainsFunc(mailboxes, s.full) {
			break
		}
		if err := s.message(c, to, mailboxes); err != nil {
			if errors.Is(err, errHungUp) {
				return nil
			}
			return err
		}
	}
	return errors.Join(c.say("QUIT"), c.expect("221"))
}

// greet connects and says EHLO.
func (l *load) greet() (*lineConn, error) {
	c, err := dialLines(l.smtp)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.expect("220"), c.say("EHLO client.example"), c.expect("250")); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// full tells that those who fetch from a mailbox have to catch up first.
func (l *load) full(mailbox string) bool {
	const most = 1000
	left, known := l.left.Load(mailbox)
	return known && left.(int) >= most
}

// recipients picks addresses, and says which mailboxes they lead to.
func (s *sender) recipients() (to, mailboxes []string) {
	for range 1 + s.rng.IntN(s.profile.recipients) {
		if s.rng.IntN(8) == 0 && s.profile.recipients > 1 {
			to = append(to, groupAlias)
			mailboxes = append(mailboxes, s.group...)
			continue
		}
		user := s.users[s.rng.IntN(len(s.users))]
		to = append(to, user)
		mailboxes = append(mailboxes, user)
	}
	slices.Sort(to)
	slices.Sort(mailboxes)
	return slices.Compact(to), slices.Compact(mailboxes)
}

// message sends one message. As long as nothing is cut off the server has no
// reason to refuse it: the disk has room, and all mailboxes are there.
func (s *sender) message(c *lineConn, to, mailboxes []string) error {
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil { // each has the time of a connection
		return err
	}
	if err := s.envelope(c, to); err != nil {
		return err
	}
	tag, text := s.ledger.compose(s.size)
	text = bytes.ReplaceAll(text, []byte("\n."), []byte("\n.."))
	s.ledger.sending(tag, mailboxes)
	switch s.rng.IntN(200) {
	case 0: // a part of it: never a message
		_, err := c.Write(text[:s.rng.IntN(len(text))])
		s.ledger.sent(tag, mailboxes, false)
		return errors.Join(errHungUp, err, c.Close())
	case 1: // all of it, and gone before the answer
		_, err := c.Write(append(text, ".\r\n"...))
		return errors.Join(errHungUp, err, c.Close())
	}
	if _, err := c.Write(append(text, ".\r\n"...)); err != nil {
		return err
	}
	reply, err := c.reply()
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(reply, "250 "):
		s.ledger.sent(tag, mailboxes, true)
	case !s.cut.Load():
		s.ledger.sent(tag, mailboxes, false)
		return fmt.Errorf("%q for a message to %v", reply, mailboxes)
	}
	// A refusal by a server that has just lost its disk leaves the outcome open:
	// it could not take anything back.
	return nil
}

// envelope goes as far as 354, in one write or step by step.
func (s *sender) envelope(c *lineConn, to []string) error {
	commands := []string{"MAIL FROM:<sender@client.example>"}
	replies := []string{"250"}
	for _, local := range to {
		commands = append(commands, "RCPT TO:<"+local+"@"+testDomain+">")
		replies = append(replies, "250")
	}
	commands, replies = append(commands, "DATA"), append(replies, "354")
	if s.pipelined {
		commands = []string{strings.Join(commands, "\r\n")}
	}
	for i, reply := range replies {
		if i < len(commands) {
			if err := c.say(commands[i]); err != nil {
				return err
			}
		}
		if err := c.expect(reply); err != nil {
			return err
		}
	}
	return nil
}
