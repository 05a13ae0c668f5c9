package metrics

import (
	"strings"
	"time"

	"restante/pop3d"
)

// SMTP is the smtpd.Observer.
type SMTP struct{ M *Metrics }

func (s SMTP) Opened() {
	s.M.connections.WithLabelValues("smtp").Inc()
	s.M.open.WithLabelValues("smtp").Inc()
}

func (s SMTP) Closed() { s.M.open.WithLabelValues("smtp").Dec() }

func (s SMTP) Accepted(octets int64, took time.Duration) {
	s.M.accepted.Inc()
	s.M.received.Add(float64(octets))
	s.M.delivery.Observe(took.Seconds())
}

func (s SMTP) Refused(recipient bool, reply string) {
	what := "message"
	if recipient {
		what = "recipient"
	}
	code, status, _ := strings.Cut(reply, " ")
	s.M.refused.WithLabelValues(what, code, status).Inc()
}

// POP3 is the pop3d.Observer.
type POP3 struct{ M *Metrics }

func (p POP3) Opened() {
	p.M.connections.WithLabelValues("pop3").Inc()
	p.M.open.WithLabelValues("pop3").Inc()
}

func (p POP3) Login(o pop3d.Outcome) { p.M.logins.WithLabelValues(string(o)).Inc() }

func (p POP3) Closed(retrieved int, octets int64, removed int) {
	p.M.open.WithLabelValues("pop3").Dec()
	p.M.retrieved.Add(float64(retrieved))
	p.M.sent.Add(float64(octets))
	p.M.removed.Add(float64(removed))
}
