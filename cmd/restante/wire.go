package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"restante/auth"
	"restante/cmd/restante/internal/acme"
	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
	"restante/cmd/restante/internal/control"
	"restante/cmd/restante/internal/listen"
	"restante/cmd/restante/internal/metrics"
	"restante/pop3d"
	"restante/smtpd"
	"restante/storage"
)

// The packages auth, storage, smtpd and pop3d do not know one another. What
// follows is all that lies between them: each type makes one package do what
// another one asks for, and translates its errors.

// translated is an error of one package that is also one which another asks
// for. It reads as the first.
type translated struct {
	error
	asked error
}

func (t translated) Unwrap() []error { return []error{t.asked, t.error} }

// translate makes err one of the errors that the asking package knows. An error
// that is in no pair stays what it is: a fault of ours.
func translate(err error, pairs ...[2]error) error {
	for _, p := range pairs {
		if errors.Is(err, p[0]) {
			return translated{err, p[1]}
		}
	}
	return err
}

// recipients is the directory as the SMTP receiver asks it.
type recipients struct{ users *auth.Directory }

func (r recipients) Resolve(ctx context.Context, local, domain string) (smtpd.Recipient, error) {
	res, err := r.users.Resolve(ctx, local, domain)
	if err != nil {
		return smtpd.Recipient{}, translate(err,
			[2]error{auth.ErrNotHosted, smtpd.ErrRelayDenied},
			[2]error{auth.ErrNoSuchUser, smtpd.ErrNoSuchUser},
			[2]error{auth.ErrDisabled, smtpd.ErrDisabled},
			[2]error{auth.ErrBadAddress, smtpd.ErrBadAddress})
	}
	return smtpd.Recipient{Address: res.Address, Mailboxes: res.Mailboxes}, nil
}

// firstDomain is the domain that the server's own address literal stands for.
// When it cannot be told there is none: such recipients are refused.
func firstDomain(users *auth.Directory) func(context.Context) string {
	return func(ctx context.Context) string {
		name, err := users.FirstDomain(ctx)
		if err != nil {
			return ""
		}
		return name
	}
}

// logins is the directory as the POP3 server asks it.
type logins struct{ users *auth.Directory }

func (l logins) Authenticate(ctx context.Context, c pop3d.Credentials) (pop3d.Login, error) {
	account, err := l.users.Authenticate(ctx, auth.Credentials(c))
	if err != nil {
		return pop3d.Login{}, translate(err,
			[2]error{auth.ErrThrottled, pop3d.ErrThrottled},
			[2]error{auth.ErrBadCredentials, pop3d.ErrBadCredentials})
	}
	return pop3d.Login{Mailbox: account.Mailbox, AppPassword: account.AppPassword, Alive: account.Alive}, nil
}

// deliveries is the storage as the SMTP receiver asks it.
type deliveries struct {
	mail  *storage.Store
	users *auth.Directory
	fill  *fillLevels
	log   *slog.Logger
}

func (d deliveries) Deliver(ctx context.Context, id string, mailboxes []string, message io.Reader) (int64, error) {
	a := &admission{deliveries: d, ctx: ctx, mailboxes: mailboxes, message: message}
	size, err := func() (int64, error) {
		defer a.release() // also for a panic; what is delivered has its room
		return d.mail.Deliver(ctx, id, mailboxes, a)
	}()
	if err != nil {
		return 0, translate(err, [2]error{storage.ErrNoSpace, smtpd.ErrNoSpace}, [2]error{storage.ErrOverQuota, smtpd.ErrOverQuota})
	}
	d.warn(ctx, mailboxes)
	return size, nil
}

// maildrops is the storage as the POP3 server asks it.
type maildrops struct{ mail *storage.Store }

func (m maildrops) Open(ctx context.Context, mailbox string) (pop3d.Maildrop, error) {
	drop, err := m.mail.OpenMaildrop(ctx, mailbox)
	if err != nil {
		return nil, translate(err, [2]error{storage.ErrInUse, pop3d.ErrInUse})
	}
	return maildrop{drop}, nil
}

type maildrop struct{ *storage.Maildrop }

func (m maildrop) Sign(v pop3d.Visit) error { return m.Maildrop.Sign(storage.Visit(v)) }

func (m maildrop) Message(i int) (io.ReadCloser, error) {
	r, err := m.Maildrop.Message(i)
	if err != nil {
		return nil, translate(err, [2]error{storage.ErrGone, pop3d.ErrGone})
	}
	return r, nil
}

// server is everything that serves. start fills it, step by step.
type server struct {
	config    *config.Config
	mail      *storage.Store
	users     *auth.Directory
	certs     *certs.Manager
	listeners []boundPort
	smtp      *smtpd.Server
	pop3      *pop3d.Server
	log       *slog.Logger
	level     *slog.LevelVar
	closers   []func() error
	since     time.Time
	acme      *acme.Client    // nil: certificates come from elsewhere
	control   *control.Server // nil: it could not be opened

	limiters   map[string]*listen.Limiter // by protocol
	metrics    *metrics.Metrics           // nil: nobody asks
	http       *metrics.Server            // with metrics
	configFile string                     // read again by a reload
	readable   []string                   // directories that may be read beside the data directory; nil: all

	proofs    *http.Server // answers authorities
	postponed []port       // for them, which were taken at the start
	limited   map[protocol]func(net.Listener) net.Listener
}

// assemble joins the parts.
func (s *server) assemble() {
	s.closers = append(s.closers, s.users.Close)
	if len(s.config.Metrics.Listen) > 0 {
		s.measure()
	}
	smtpLog := s.log.With("protocol", "smtp")
	s.smtp = smtpd.NewServer(s.smtpConfig(s.config), recipients{s.users},
		deliveries{mail: s.mail, users: s.users, fill: &fillLevels{notes: s.mail}, log: smtpLog}, smtpLog)
	s.pop3 = pop3d.NewServer(s.pop3Config(s.config), logins{s.users}, maildrops{s.mail},
		pop3d.SASL{Mechanisms: auth.Mechanisms(), New: auth.NewSASL}, s.log.With("protocol", "pop3"))
	s.proofs = s.newProofs()
	s.listenControl()
}

func (s *server) pop3Config(c *config.Config) pop3d.Config {
	var observer pop3d.Observer
	if s.metrics != nil {
		observer = pop3Counts{s.metrics}
	}
	return pop3d.Config{
		Hostname:       c.Hostname,
		TLS:            s.certs.Config(),
		AllowPlaintext: c.Auth.AllowPlaintext.Allows,
		IdleTimeout:    c.POP3.IdleTimeout,
		LoginDelay:     c.POP3.LoginDelay,

		LoginTimeout:     c.POP3.LoginTimeout,
		HandshakeTimeout: c.POP3.HandshakeTimeout,
		MaxCommands:      c.POP3.MaxCommands,
		MaxErrors:        c.POP3.MaxErrors,
		MaxFailedLogins:  c.POP3.MaxFailedLogins,
		Pause:            c.Limits.Pause,

		Observer: observer,
		Traced:   tracing(c),
	}
}
