package smtpd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// errUnread is a store that says done without having read the message.
var errUnread = errors.New("smtpd: the store returned before the end of the message")

// A session decides on envelopes. go-smtp calls it on the connection's
// goroutine; the arguments that come from there are placeholders, the wire
// has the real ones.
type session struct {
	wire     *wire
	server   *Server
	envelope envelope
}

func (s *session) Reset() { s.envelope = envelope{} }

func (s *session) Logout() error {
	s.Reset()
	return nil
}

// Mail opens the envelope.
func (s *session) Mail(_ string, o *smtp.MailOptions) error {
	from := s.wire.path
	switch {
	case s.envelope.open:
		return replyMailTwice.smtp()
	case o.Auth != nil: // go-smtp takes it from anybody (RFC 4954 section 5)
		return replyNoParam.smtp()
	}
	s.envelope = envelope{utf8: o.UTF8, from: from, size: o.Size}
	switch {
	case o.Size > s.wire.config.MaxMessageSize:
		return s.refuse(messageRefused, replyTooLarge, slog.Int64("size", o.Size))
	case !o.UTF8 && !from.ascii():
		return s.refuse(messageRefused, replyNeedsUTF8)
	}
	s.envelope.open = true
	return nil
}

// Rcpt judges one recipient on its own.
func (s *session) Rcpt(string, *smtp.RcptOptions) (err error) {
	defer s.contain(&err)
	r, err := s.resolve(s.wire.path)
	if err == nil {
		err = s.fits(r)
	}
	if err != nil {
		return s.refuse(recipientRefused, err, slog.String("to", clip(s.wire.path.String())))
	}
	s.envelope.add(r)
	s.wire.follow(r.Mailboxes)
	return nil
}

// fits tells whether there is room for the message in the recipient's mailboxes.
func (s *session) fits(r Recipient) error {
	mailboxes := s.envelope.fresh(r)
	if len(mailboxes) == 0 {
		return nil
	}
	return ofStore(s.server.store.Fits(s.server.ctx, mailboxes, s.envelope.size))
}

// ofStore is an error of the store's own. It is never the client's, whatever it
// wraps: all that is known of it is that there is no room.
func ofStore(err error) error {
	for _, known := range []error{ErrNoSpace, ErrOverQuota} {
		if errors.Is(err, known) {
			return stated{known, err.Error()}
		}
	}
	if err != nil {
		return fmt.Errorf("store: %v", err)
	}
	return nil
}

// stated is a known error in the words of the store.
type stated struct {
	error
	text string
}

func (s stated) Error() string { return s.text }
func (s stated) Unwrap() error { return s.error }

func (s *session) resolve(to address) (r Recipient, err error) {
	ctx := s.server.ctx
	switch {
	case len(s.envelope.recipients) >= s.wire.config.MaxRecipients:
		return r, replyTooManyRcpt
	case !s.envelope.utf8 && !to.ascii():
		return r, replyNeedsUTF8
	}
	if strings.HasPrefix(to.domain, "[") {
		if to.domain = s.localDomain(to.domain); to.domain == "" {
			return r, ErrRelayDenied
		}
	}
	r, err = s.server.directory.Resolve(ctx, to.local, to.domain)
	if err == nil && (len(r.Mailboxes) == 0 || r.Address == "" || !isText(r.Address) || len(r.Address) > maxAddress) {
		err = fmt.Errorf("directory gave recipient %q with %d mailboxes", r.Address, len(r.Mailboxes))
	}
	return r, err
}

// localDomain is the domain that an address literal stands for: the first
// one, if it is the address the client has connected to; else "".
func (s *session) localDomain(text string) string {
	ip, ok := parseLiteral(text)
	if !ok || ip != addrOf(s.wire.raw.LocalAddr()) || s.wire.config.LocalDomain == nil {
		return ""
	}
	return s.wire.config.LocalDomain(s.server.ctx)
}

// Data takes the message and has the last word on it: 250 only when the store
// has it, and in every case the connection is left at the message's end or
// not at all.
func (s *session) Data(io.Reader) (err error) {
	defer s.contain(&err)
	began := time.Now()
	m := s.wire.message()
	defer s.wire.setReceiving(false)
	id := newMessageID(began)
	size, err := s.deliver(id, m)
	defer func() { s.wire.traceMessage(m.size) }()
	if m.err != io.EOF {
		if lost := m.drain(); lost != nil {
			err = lost
			s.wire.adrift = true
		}
	}
	if err != nil {
		return s.refuse(messageRefused, err, slog.String("id", id), s.recipients(), slog.Int64("size", m.size))
	}
	s.wire.messages++
	s.wire.show()
	s.wire.commands = 0
	s.wire.fruitful = time.Now()
	s.wire.config.Observer.Accepted(size, time.Since(began))
	s.wire.log.LogAttrs(s.server.ctx, slog.LevelInfo, "message accepted",
		slog.String("id", id), slog.String("from", clip(s.envelope.from.String())),
		s.recipients(), slog.Int("mailboxes", len(s.envelope.mailboxes)), slog.Int64("size", size),
		slog.String("tls", s.wire.tlsVersion()), slog.String("helo", clip(s.wire.helo)),
		slog.Duration("duration", time.Since(began)))
	return accepted(id).smtp()
}

// recipients is for the log.
func (s *session) recipients() slog.Attr {
	return slog.String("to", clip(strings.Join(s.envelope.recipients, " ")))
}

// deliver hands the message to the store. What went wrong in reading it goes before
// whatever the store made of that.
func (s *session) deliver(id string, m *message) (size int64, err error) {
	source := s.server.sources.Get().(*bufio.Reader)
	source.Reset(m)
	defer s.server.sources.Put(source)
	h := newHeader(s.trace(id).header(), source)
	size, err = s.server.store.Deliver(s.server.ctx, id, s.envelope.mailboxes, h)
	switch {
	case h.err != nil && h.err != io.EOF:
		return 0, h.err
	case err != nil:
		return 0, ofStore(err)
	case h.err == nil:
		return 0, errUnread
	}
	return size, nil
}

func (s *session) trace(id string) trace {
	w := s.wire
	return trace{id: id, hostname: w.config.Hostname, helo: w.helo, remote: w.remote, tls: w.tls, esmtp: w.esmtp,
		utf8: s.envelope.utf8, from: s.envelope.from, to: s.envelope.only(), at: time.Now()}
}

const (
	recipientRefused = "recipient refused"
	messageRefused   = "message refused"
)

// refuse logs a refusal and gives its reply. The detail of a fault of ours is
// in the log only.
func (s *session) refuse(what string, err error, attrs ...slog.Attr) error {
	r, ours := asReply(err)
	s.wire.config.Observer.Refused(what == recipientRefused, r.codes())
	level := slog.LevelInfo
	if ours {
		level = slog.LevelError
	}
	attrs = append(attrs, slog.String("from", clip(s.envelope.from.String())),
		slog.String("reply", r.line()), slog.String("error", clip(err.Error())))
	s.wire.log.LogAttrs(s.server.ctx, level, what, attrs...)
	return r.smtp()
}

// contain makes a panic below the session the end of the connection only.
func (s *session) contain(err *error) {
	if v := recover(); v != nil {
		s.wire.log.Error("panic", "value", v, "stack", string(debug.Stack()))
		*err = replyBroken.smtp()
	}
}

// maxAttr is the length of a log attribute that a client has a hand in.
const maxAttr = 512

func clip(s string) string {
	if len(s) <= maxAttr {
		return s
	}
	return strings.ToValidUTF8(s[:maxAttr], "") + "..."
}

// addrOf is the IP address of a TCP connection's end; invalid for any other.
func addrOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
