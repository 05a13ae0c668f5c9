package pop3d

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// state of a session (RFC 1939 section 3). Beside the three states of the
// protocol there are the moments in which no command is legal.
type state uint8

const (
	same          state = iota // in a reply: no change
	authorization              // before the login
	exchange                   // inside AUTH: lines are responses, not commands
	negotiation                // after the reply to STLS: TLS comes next
	transaction                // logged in
	update                     // after QUIT in transaction: update is to be called
	closed                     // after the last reply
)

// openTime bounds the opening of a maildrop. It is no stranger who waits, and the
// first time a large mailbox of another program takes long.
const openTime = 10 * time.Minute

// session is the protocol without the network: lines in, replies out. It is
// used from one goroutine.
type session struct {
	config  *Config
	backend *backend
	trusted bool // the client's network may log in without TLS
	secure  bool // TLS is on
	remote  netip.Addr
	loginBy time.Time // when a user must be proven; zero: any time

	state     state
	name      string    // given by USER
	claimed   string    // the user of the last AUTH exchange, proven or not
	sasl      *dialogue // the running AUTH exchange
	login     Login
	drop      Maildrop // from login until release; nil otherwise
	deleted   []bool   // by message; nil until the first DELE
	remaining tally    // not deleted: what STAT reports

	commands     int // before the login
	errors       int
	failedLogins int
	hungUp       bool // the end was not the client's wish
	stats        summary
}

// summary of a session for the log.
type summary struct {
	retrieved tally
	removed   int
	left      int
	end       string // why the session ended
}

func newSession(c *Config, b *backend, trusted bool) *session {
	return &session{config: c, backend: b, trusted: trusted, state: authorization}
}

func (s *session) greeting() reply { return okay(s.config.Hostname + " POP3 server ready") }

// secured is told that TLS is on. What the client said before is forgotten: it
// may have been said by somebody else (RFC 2595 section 4).
func (s *session) secured() {
	s.secure, s.name, s.state = true, "", authorization
}

// lineLimit is the longest line that may come now, line end included.
func (s *session) lineLimit() int {
	if s.state == exchange {
		return responseLimit
	}
	return commandLimit
}

// handle answers one line, given without its line end. It may change the line.
func (s *session) handle(ctx context.Context, line []byte) reply {
	return s.settle(s.dispatch(ctx, line))
}

// overlong answers a line that was longer than lineLimit.
func (s *session) overlong() reply {
	r := refuse("line too long")
	if s.state == exchange {
		r = s.endExchange(r)
	}
	return s.settle(r)
}

// settle does the book-keeping of a reply: errors and the next state.
func (s *session) settle(r reply) reply {
	if r.fault {
		s.errors++
		if s.errors >= s.config.MaxErrors {
			r = s.hangUp("too many errors", reply{status: negative, text: "too many errors, closing the connection", event: r.event})
		}
	}
	if r.next != same {
		s.state = r.next
	}
	return r
}

func (s *session) dispatch(ctx context.Context, line []byte) reply {
	if s.drop == nil {
		if s.commands++; s.commands > s.config.MaxCommands {
			return s.hangUp("too many commands", refuse("too many commands without a login, closing the connection"))
		}
	}
	if s.state == exchange {
		return s.respond(ctx, line)
	}
	if s.state == transaction && s.login.Alive != nil && !s.login.Alive(ctx) {
		return s.hangUp("account changed", reply{status: negative, code: codeAuth, text: "the account was changed, log in again"})
	}
	for _, c := range line {
		if c == 0 {
			return refuse("NUL in a command")
		}
	}
	keyword, rest := splitCommand(line)
	cmd, ok := commands[s.state][string(keyword)]
	if !ok {
		return s.unknown(keyword)
	}
	args, ok := cmd.parse(rest)
	if !ok {
		return refuse("usage: " + cmd.usage)
	}
	if args.numbers > 0 {
		if why := s.missing(args.index()); why != "" {
			return refuse(why)
		}
	}
	return cmd.run(s, ctx, args)
}

// unknown refuses a keyword that is not legal now.
func (s *session) unknown(keyword []byte) reply {
	if _, ok := commands[transaction][string(keyword)]; ok {
		return refuse("log in first")
	}
	if _, ok := commands[authorization][string(keyword)]; ok {
		return refuse("already logged in")
	}
	if browsers[string(keyword)] {
		return s.hangUp("not a mail program", refuse("this is a mail server"))
	}
	return refuse("unknown command")
}

// browsers are the verbs of HTTP. Whoever says one is a program that was led here
// to say something for somebody else.
var browsers = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true, "CONNECT": true, "PATCH": true,
	"TRACE": true, "PRI": true,
}

// missing says why there is no such message; "" when there is.
func (s *session) missing(i int) string {
	if i < 0 || i >= s.drop.Len() {
		return "no such message"
	}
	if s.isDeleted(i) {
		return "message " + strconv.Itoa(i+1) + " is deleted"
	}
	return ""
}

func (s *session) isDeleted(i int) bool { return s.deleted != nil && s.deleted[i] }

// hangUp makes r the last reply of a session that the client did not end.
func (s *session) hangUp(why string, r reply) reply {
	s.hungUp = true
	return s.last(why, r)
}

// last makes r the last reply of the session.
func (s *session) last(why string, r reply) reply {
	s.end(why)
	r.next = closed
	return r
}

// end ends the session without UPDATE: nothing is removed, the lock is
// released. The first reason given stays.
func (s *session) end(why string) {
	s.state = closed
	if s.stats.end == "" {
		s.stats.end = why
	}
	// Nothing was changed, so nothing is lost when closing fails.
	_ = s.release()
}

// release gives the maildrop back.
func (s *session) release() error {
	if s.drop == nil {
		return nil
	}
	s.stats.left = s.drop.Len() - s.stats.removed
	drop := s.drop
	s.drop = nil
	s.backend.visits.end(s.login.Mailbox)
	return drop.Close()
}

// enter opens the maildrop of a proven user; who is for the log.
func (s *session) enter(ctx context.Context, login Login, who []slog.Attr) reply {
	opening, cancel := context.WithTimeout(ctx, openTime)
	drop, err := s.backend.Open(opening, login.Mailbox)
	cancel()
	now := time.Now()
	switch {
	case errors.Is(err, ErrInUse):
		s.config.Observer.Login(LoginInUse)
		return s.later(codeInUse, "maildrop in use", s.occupied(login.Mailbox, now), who)
	case err != nil:
		s.config.Observer.Login(LoginTrouble)
		r := trouble("the maildrop cannot be opened now", err, who...)
		r.next = authorization
		return r
	}
	// Only now, as a login that finds the maildrop in use has to be tried again.
	if early := s.backend.visits.admit(login.Mailbox, now, s.config.LoginDelay); early > 0 {
		_ = drop.Close() // nothing was changed
		s.config.Observer.Login(LoginTooSoon)
		wait := inWords(early.Truncate(time.Second) + time.Second)
		return s.later(codeLoginDelay, "too soon", "too many logins, try again in "+wait, who)
	}
	s.login, s.drop = login, drop
	s.backend.visits.begin(login.Mailbox, now)
	s.sign(now)
	s.config.Observer.Login(LoginOK)
	s.undelete()
	r := okay("maildrop has " + s.remaining.String())
	r.next = transaction
	r.event = &event{slog.LevelInfo, "login", append(who, slog.Int("messages", drop.Len()))}
	return r
}

// sign leaves a note of the login. Nobody needs it so much that the login fails
// without it.
func (s *session) sign(now time.Time) {
	v := Visit{At: now, Protocol: s.protocol(), Address: "-"}
	if s.remote.IsValid() {
		v.Address = s.remote.WithZone("").String()
	}
	if s.backend.visits.worthSigning(s.login.Mailbox, v) {
		_ = s.drop.Sign(v)
	}
}

func (s *session) protocol() string {
	if s.secure {
		return "POP3+TLS"
	}
	return "POP3"
}

// later refuses the login of a proven user for now.
func (s *session) later(code, why, text string, who []slog.Attr) reply {
	return reply{
		status: negative, code: code, text: text, next: authorization, fault: true,
		event: &event{slog.LevelInfo, "login refused, " + why, append(who, slog.String("reply", text))},
	}
}

// occupied tells who has the maildrop, so that its user knows what to wait for.
func (s *session) occupied(mailbox string, now time.Time) string {
	if lasted, ok := s.backend.visits.lasted(mailbox, now); ok {
		return "the maildrop has been in use by another session for " + inWords(lasted)
	}
	return "the maildrop is in use by another program"
}

// undelete removes all deletion marks.
func (s *session) undelete() {
	s.deleted = nil
	s.remaining = tally{messages: s.drop.Len()}
	for i := range s.remaining.messages {
		s.remaining.octets += s.drop.Octets(i)
	}
}

// capa lists what the server can do (RFC 2449 sections 5 and 6). USER and SASL are
// announced in both states, STLS only where it is legal (RFC 2595 section 4). What
// runs here is for those who have logged in.
func (s *session) capa(context.Context, arguments) reply {
	lines := "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nUTF8 USER\r\nLANG\r\n"
	if s.config.LoginDelay > 0 {
		seconds := (s.config.LoginDelay + time.Second - 1) / time.Second
		lines += "LOGIN-DELAY " + strconv.Itoa(int(seconds)) + "\r\n"
	}
	if s.mayLogIn() {
		lines += "USER\r\n"
		if len(s.backend.Mechanisms) > 0 {
			lines += "SASL " + strings.Join(s.backend.Mechanisms, " ") + "\r\n"
		}
	}
	if s.state == authorization && s.maySTLS() {
		lines += "STLS\r\n"
	}
	if s.state == transaction {
		lines += "IMPLEMENTATION Restante\r\n"
	}
	return listing("capabilities follow", lines)
}

// listing is a multi-line reply of a few lines, none of which begins with a dot.
func listing(text, lines string) reply {
	r := okay(text)
	r.body = func(w *bufio.Writer) error {
		_, err := w.WriteString(lines)
		return err
	}
	return r
}

// leave is QUIT before the login.
func (s *session) leave(context.Context, arguments) reply {
	return s.last("quit", okay("bye"))
}
