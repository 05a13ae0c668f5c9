package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var errInUse = errors.New("mailbox is in use")

// maildropConn is a POP3 session after its login.
type maildropConn struct {
	*lineConn
	mailbox string
	octets  []int    // of LIST
	uids    []string // of UIDL
}

// openMaildrop logs in and lists a mailbox. errInUse: another session has it.
func openMaildrop(address, mailbox string) (*maildropConn, error) {
	c, err := dialLines(address)
	if err != nil {
		return nil, err
	}
	m := &maildropConn{lineConn: c, mailbox: mailbox}
	if err := m.begin(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m, nil
}

func (m *maildropConn) begin() error {
	err := errors.Join(m.expect("+OK"), m.ok("USER "+m.mailbox+"@"+testDomain), m.ok("PASS "+testPassword))
	if err != nil {
		return err
	}
	err = m.list("LIST", func(value string) error {
		octets, err := strconv.Atoi(value)
		m.octets = append(m.octets, octets)
		return err
	})
	if err != nil {
		return err
	}
	err = m.list("UIDL", func(value string) error {
		m.uids = append(m.uids, value)
		return nil
	})
	if err == nil && len(m.uids) != len(m.octets) {
		err = fmt.Errorf("LIST has %d messages and UIDL %d", len(m.octets), len(m.uids))
	}
	return err
}

// refusal is an answer that begins with -ERR.
type refusal string

func (r refusal) Error() string { return string(r) }

// ok gives a command and wants +OK: refusal or errInUse.
func (m *maildropConn) ok(command string) error {
	if err := m.say(command); err != nil {
		return err
	}
	answer, err := m.line()
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(answer, "+OK"):
		return nil
	case strings.HasPrefix(answer, "-ERR [IN-USE]"):
		return errInUse
	}
	verb, _, _ := strings.Cut(command, " ")
	return refusal(verb + ": " + answer)
}

// list gives take the second word of each line, which are numbered from 1.
func (m *maildropConn) list(command string, take func(value string) error) error {
	if err := m.ok(command); err != nil {
		return err
	}
	for n := 1; ; n++ {
		line, err := m.line()
		if err != nil || line == "." {
			return err
		}
		number, value, _ := strings.Cut(line, " ")
		if number != strconv.Itoa(n) {
			return fmt.Errorf("%s: line %d is %q", command, n, line)
		}
		if err := take(value); err != nil {
			return err
		}
	}
}

// retrieve gets message i (from 0) and looks at it. A message that the server
// refuses to send is damaged, unless the server is cut off. Each has the time of a
// connection: a mailbox of many may take longer in all, while others are looked at.
func (m *maildropConn) retrieve(l *ledger, i int) (sighting, error) {
	s := sighting{uid: m.uids[i]}
	if err := m.SetDeadline(time.Now().Add(deadline)); err != nil {
		return s, err
	}
	err := m.ok(fmt.Sprintf("RETR %d", i+1))
	if refused, is := errors.AsType[refusal](err); is {
		s.damage, s.refused = refused.Error(), true
		return s, nil
	}
	if err != nil {
		return s, err
	}
	text := make([]byte, 0, m.octets[i])
	for {
		line, err := m.lines.ReadSlice('\n')
		if err != nil {
			return s, err
		}
		if string(line) == ".\r\n" {
			break
		}
		if line[0] == '.' {
			line = line[1:]
		}
		text = append(text, line...)
	}
	s.tag, s.damage = l.recognise(text)
	if s.damage == "" && len(text) != m.octets[i] {
		s.damage = fmt.Sprintf("%d octets were announced and %d sent", m.octets[i], len(text))
	}
	return s, nil
}

// remove gives DELE for these messages.
func (m *maildropConn) remove(numbers []int) error {
	for _, i := range numbers {
		if err := m.ok(fmt.Sprintf("DELE %d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

// quit ends the session, in which messages with these tags were marked.
func (m *maildropConn) quit(l *ledger, marked []int) error {
	l.removing(m.mailbox, marked)
	if err := m.ok("QUIT"); err != nil {
		return err
	}
	l.removed(m.mailbox, marked)
	return m.Close()
}

// fetcher is a POP3 client that fetches some messages and removes some.
type fetcher struct {
	*load
	rng *rand.Rand
}

func (f *fetcher) session() error {
	m, err := openMaildrop(f.pop3, f.users[f.rng.IntN(len(f.users))])
	if errors.Is(err, errInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	var numbers, tags []int
	for i := range m.uids {
		if len(m.uids) > 40 && f.rng.IntN(2) == 0 {
			continue
		}
		s, err := m.retrieve(f.ledger, i)
		if err != nil {
			return err
		}
		if s.refused && f.cut.Load() {
			continue // the disk may be gone; what is sent all the same has to be whole
		}
		f.ledger.saw(m.mailbox, s)
		if s.damage == "" && f.rng.IntN(4) > 0 {
			numbers, tags = append(numbers, i), append(tags, s.tag)
		}
	}
	if err := m.remove(numbers); err != nil {
		return err
	}
	return f.end(m, tags)
}

// end quits, or loses the connection at some point: only a whole QUIT removes.
func (f *fetcher) end(m *maildropConn, tags []int) error {
	switch f.rng.IntN(20) {
	case 0:
		return m.Close()
	case 1:
		_, err := m.Write([]byte("QUIT\r"))
		return errors.Join(err, m.Close())
	case 2: // and gone before the answer
		f.ledger.removing(m.mailbox, tags)
		return errors.Join(m.say("QUIT"), m.Close())
	}
	f.left.Store(m.mailbox, len(m.uids)-len(tags))
	return m.quit(f.ledger, tags)
}

// retrieveAll gets every message.
func (m *maildropConn) retrieveAll(l *ledger) (seen []sighting, err error) {
	for i := range m.uids {
		s, err := m.retrieve(l, i)
		if err != nil {
			return nil, err
		}
		seen = append(seen, s)
	}
	return seen, nil
}

// inspect looks at every message of a mailbox, and then removes so many that no
// more than keep are left.
func inspect(l *ledger, address, mailbox string, keep int) error {
	m, err := openMaildrop(address, mailbox)
	if err != nil {
		return err
	}
	defer m.Close()
	seen, err := m.retrieveAll(l)
	if err != nil {
		return err
	}
	l.check(mailbox, seen)
	var numbers, tags []int
	for i := range max(0, len(seen)-keep) {
		numbers, tags = append(numbers, i), append(tags, seen[i].tag)
	}
	if err := m.remove(numbers); err != nil {
		return err
	}
	return m.quit(l, tags)
}

// glance looks at every message of a mailbox to which messages may still be on their
// way, from clients that hung up. For a while such a client's session may have it.
func glance(l *ledger, address, mailbox string) error {
	m, err := openMaildrop(address, mailbox)
	for end := time.Now().Add(deadline); errors.Is(err, errInUse) && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		m, err = openMaildrop(address, mailbox)
	}
	if err != nil {
		return err
	}
	defer m.Close()
	seen, err := m.retrieveAll(l)
	if err != nil {
		return err
	}
	l.glance(mailbox, seen)
	return m.quit(l, nil)
}

// firstLook glances into a mailbox as soon as the server takes a connection, which it
// has to once over is closed.
func firstLook(l *ledger, address, mailbox string, over <-chan struct{}) error {
	for last := false; ; {
		select {
		case <-over:
			last = true
		case <-time.After(time.Millisecond):
		}
		err := glance(l, address, mailbox)
		if last || !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
}
