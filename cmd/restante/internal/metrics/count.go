package metrics

import (
	"strings"
	"time"
)

// Opened and Closed are for connections of a protocol, "smtp" or "pop3".
func (m *Metrics) Opened(protocol string) {
	m.connections.WithLabelValues(protocol).Inc()
	m.open.WithLabelValues(protocol).Inc()
}

// Closed is the end of what was Opened.
func (m *Metrics) Closed(protocol string) { m.open.WithLabelValues(protocol).Dec() }

// Accepted is a message that is durable: its octets, and the time it took.
func (m *Metrics) Accepted(octets int64, took time.Duration) {
	m.accepted.Inc()
	m.received.Add(float64(octets))
	m.delivery.Observe(took.Seconds())
}

// Refused is the reply to a recipient, or else to a message, such as "550 5.1.1".
func (m *Metrics) Refused(recipient bool, reply string) {
	what := "message"
	if recipient {
		what = "recipient"
	}
	code, status, _ := strings.Cut(reply, " ")
	m.refused.WithLabelValues(what, code, status).Inc()
}

// Login is an attempt to log in.
func (m *Metrics) Login(outcome string) { m.logins.WithLabelValues(outcome).Inc() }

// Fetched is what a session has sent, messages and octets, and removed.
func (m *Metrics) Fetched(retrieved int, octets int64, removed int) {
	m.retrieved.Add(float64(retrieved))
	m.sent.Add(float64(octets))
	m.removed.Add(float64(removed))
}
