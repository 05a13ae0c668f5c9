package pop3d

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/emersion/go-sasl"
)

// Authenticator proves users. It must be safe for concurrent use.
type Authenticator interface {
	// Authenticate checks a user name and password as the client sent them.
	// [ErrBadCredentials] for whatever the client may have got wrong, with the
	// same cost whether the user exists or not; [ErrThrottled] when so many logins
	// have failed that this one was not looked at.
	Authenticate(ctx context.Context, c Credentials) (Login, error)
}

// Credentials are what a client presents.
type Credentials struct {
	User, Password string
	Client         netip.Addr // invalid: not known
	Protocol       string     // as in [Visit]
}

// Login is a proven user.
type Login struct {
	Mailbox     string // name for [Mailstore.Open]
	AppPassword string // name of the one that was used; "" is the user's password
	// Alive is asked before each command once the maildrop is open. When it
	// says false the session ends and removes nothing. Nil: always alive.
	Alive func(ctx context.Context) bool
}

// SASL makes the server side of the mechanisms of AUTH (RFC 5034).
type SASL struct {
	// Mechanisms are the names shown to clients, best first. None: no AUTH.
	Mechanisms []string
	// New starts an exchange; false when the mechanism is unknown. Mechanism
	// names are case-insensitive. The server calls verify at most once, with
	// what the client presented; the outcome is decided after that.
	New func(mechanism string, verify func(authzid, user, password string) error) (sasl.Server, bool)
}

// dialogue is a SASL exchange under way.
type dialogue struct {
	server                  sasl.Server
	mechanism               string
	presented               bool
	authzid, user, password string
}

// verify takes the credentials out of the mechanism. They are checked when the
// exchange is over, where PASS has its credentials checked too.
func (d *dialogue) verify(authzid, user, password string) error {
	d.presented = true
	d.authzid, d.user, d.password = authzid, user, password
	return nil
}

// mayLogIn tells whether credentials may be sent over this connection.
func (s *session) mayLogIn() bool { return s.secure || s.trusted }

// maySTLS tells whether TLS can be started.
func (s *session) maySTLS() bool { return !s.secure && s.config.TLS != nil }

// needTLS refuses a login in the clear.
func (s *session) needTLS() reply {
	if s.maySTLS() {
		return refuse("login needs encryption: send STLS first, or use the TLS port")
	}
	return refuse("login needs encryption, which this server does not offer here")
}

func (s *session) stls(context.Context, arguments) reply {
	if s.secure {
		return refuse("TLS is on already")
	}
	if !s.maySTLS() {
		return refuse("TLS is not available")
	}
	r := okay("begin TLS negotiation")
	r.next = negotiation
	return r
}

// user accepts any name: whether it exists shows only together with the password.
func (s *session) user(_ context.Context, a arguments) reply {
	if !s.mayLogIn() {
		return s.needTLS()
	}
	s.name = strings.Trim(string(a.text), " ")
	if s.name == "" {
		return refuse("usage: USER name")
	}
	return okay("send PASS")
}

func (s *session) pass(ctx context.Context, a arguments) reply {
	if !s.mayLogIn() {
		return s.needTLS()
	}
	if s.name == "" {
		return refuse("send USER first")
	}
	name := s.name
	s.name = ""
	return s.logIn(ctx, "USER", name, string(a.text))
}

// auth begins a SASL exchange. Without arguments it lists the mechanisms, as
// some clients expect from before there was CAPA.
func (s *session) auth(ctx context.Context, a arguments) reply {
	mechanism, initial, _ := strings.Cut(strings.Trim(string(a.text), " "), " ")
	if mechanism == "" {
		return s.listMechanisms()
	}
	if !s.mayLogIn() {
		return s.needTLS()
	}
	d := &dialogue{mechanism: strings.ToUpper(mechanism)}
	var known bool
	if s.backend.New != nil {
		d.server, known = s.backend.New(mechanism, d.verify)
	}
	if !known {
		return refuse("unknown mechanism")
	}
	s.name, s.sasl = "", d
	switch initial {
	case "":
		return s.advance(ctx, nil)
	case "=": // an initial response of no octets (RFC 5034 section 4)
		return s.advance(ctx, []byte{})
	}
	return s.respond(ctx, []byte(initial))
}

// listMechanisms answers AUTH alone. Before TLS there are perhaps none, which is no
// error: clients such as Outlook ask first and start TLS then.
func (s *session) listMechanisms() reply {
	var lines strings.Builder
	if s.mayLogIn() {
		for _, m := range s.backend.Mechanisms {
			lines.WriteString(m + "\r\n")
		}
	}
	return listing("mechanisms follow", lines.String())
}

// respond takes a response of the client in base64; "*" cancels the exchange.
func (s *session) respond(ctx context.Context, line []byte) reply {
	if string(line) == "*" {
		return s.endExchange(refuse("authentication cancelled"))
	}
	response := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Decode(response, line)
	if err != nil {
		return s.endExchange(refuse("invalid base64"))
	}
	return s.advance(ctx, response[:n])
}

// advance gives the mechanism a response; nil when there is none yet.
func (s *session) advance(ctx context.Context, response []byte) reply {
	d := s.sasl
	challenge, done, err := d.server.Next(response)
	if err == nil && !done {
		return reply{status: continuation, text: base64.StdEncoding.EncodeToString(challenge), next: exchange}
	}
	if err != nil || !d.presented {
		return s.endExchange(refuse("malformed response"))
	}
	s.sasl, s.claimed = nil, d.user
	if d.authzid != "" && !strings.EqualFold(d.authzid, d.user) {
		return s.rejected(describe(d.mechanism, d.user), "acting for another user")
	}
	return s.logIn(ctx, d.mechanism, d.user, d.password)
}

// endExchange goes back to commands with r.
func (s *session) endExchange(r reply) reply {
	s.sasl = nil
	r.next = authorization
	return r
}

// logIn checks credentials, however they were sent, and opens the maildrop.
func (s *session) logIn(ctx context.Context, mechanism, name, password string) reply {
	who := describe(mechanism, name)
	login, err := s.authenticate(ctx, Credentials{name, password, s.remote.WithZone(""), s.protocol()})
	if errors.Is(err, ErrThrottled) {
		return s.throttled(who, err.Error())
	}
	if errors.Is(err, ErrBadCredentials) {
		return s.rejected(who, err.Error())
	}
	if err != nil {
		s.config.Observer.Login(LoginTrouble)
		r := trouble("the login cannot be checked now", err, who...)
		r.next = authorization
		return r
	}
	who = append(who, slog.String("mailbox", login.Mailbox))
	if login.AppPassword != "" {
		who = append(who, slog.String("app_password", login.AppPassword))
	}
	return s.enter(ctx, login, who)
}

// authenticate takes no longer than the login may.
func (s *session) authenticate(ctx context.Context, c Credentials) (Login, error) {
	if !s.loginBy.IsZero() {
		bounded, cancel := context.WithDeadline(ctx, s.loginBy)
		defer cancel()
		ctx = bounded
	}
	return s.backend.Authenticate(ctx, c)
}

// describe tells the log who wanted to log in, and how. No real name is as long
// as what AUTH can carry.
func describe(mechanism, name string) []slog.Attr {
	return []slog.Attr{slog.String("user", name[:min(len(name), commandLimit)]), slog.String("mechanism", mechanism)}
}

// throttled refuses a login that was not looked at, and the connection with it.
func (s *session) throttled(who []slog.Attr, reason string) reply {
	s.config.Observer.Login(LoginThrottled)
	return s.hangUp("too many failed logins", reply{
		status: negative, code: codeAuth, text: "too many failed logins, try again later",
		event: &event{slog.LevelWarn, "login refused", append(who, slog.String("reason", reason))},
	})
}

// rejected gives the one answer to every failed login. The reason is for the log.
func (s *session) rejected(who []slog.Attr, reason string) reply {
	r := reply{
		status: negative, code: codeAuth, text: "wrong user name or password", next: authorization,
		event: &event{slog.LevelWarn, "login failed", append(who, slog.String("reason", reason))},
	}
	s.config.Observer.Login(LoginFailed)
	s.failedLogins++
	if s.failedLogins >= s.config.MaxFailedLogins {
		return s.hangUp("too many failed logins", r)
	}
	return r
}
