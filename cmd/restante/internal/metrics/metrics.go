// Package metrics counts what the server does, and tells it by HTTP in the form of
// Prometheus. No label has an address in it, and each has few values.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is what is counted. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	connections *prometheus.CounterVec // protocol
	open        *prometheus.GaugeVec   // protocol

	accepted prometheus.Counter
	received prometheus.Counter
	delivery prometheus.Histogram
	refused  *prometheus.CounterVec // what, code, status

	logins    *prometheus.CounterVec // outcome
	retrieved prometheus.Counter
	sent      prometheus.Counter
	removed   prometheus.Counter
}

// Certificate is what is told of a certificate in use.
type Certificate struct {
	Name   string // the first it is valid for
	Expiry time.Time
}

// New makes metrics that are all zero; logins have these outcomes. certificates tells those in use, and refused
// the connections refused so far by protocol; both are asked at each scrape.
func New(outcomes []string, certificates func() []Certificate, refused map[string]func() int64) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:    prometheus.NewRegistry(),
		connections: counters("restante_connections_total", "Connections that were served.", "protocol"),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "restante_connections_open", Help: "Connections that are served now."}, []string{"protocol"}),
		accepted: counter("restante_smtp_messages_accepted_total", "Messages that were answered 250."),
		received: counter("restante_smtp_received_bytes_total", "Size on disk of the messages that were answered 250, once each."),
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "restante_smtp_delivery_seconds",
			Help:    "Time from the DATA command until the message is durable, the sender's time to send it included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17),
		}),
		refused:   counters("restante_smtp_refused_total", "Recipients and messages that were refused, by reply.", "what", "code", "status"),
		logins:    counters("restante_pop3_logins_total", "Attempts to log in.", "outcome"),
		retrieved: counter("restante_pop3_messages_retrieved_total", "Messages that were sent whole, counted at the end of the session."),
		sent:      counter("restante_pop3_sent_bytes_total", "Octets of these messages."),
		removed:   counter("restante_pop3_messages_removed_total", "Messages that were removed by their users."),
	}
	m.registry.MustRegister(m.connections, m.open, m.accepted, m.received, m.delivery, m.refused, m.logins, m.retrieved, m.sent, m.removed,
		refusals(refused), expiries(certificates), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, protocol := range []string{"smtp", "pop3"} { // there from the start
		m.connections.WithLabelValues(protocol)
		m.open.WithLabelValues(protocol)
	}
	for _, outcome := range outcomes {
		m.logins.WithLabelValues(outcome)
	}
	return m
}

// refusals are connections over the limits.
type refusals map[string]func() int64

func refusalsDesc() *prometheus.Desc {
	return prometheus.NewDesc("restante_connections_refused_total", "Connections that were refused because there were too many.", []string{"protocol"}, nil)
}

func (r refusals) Describe(out chan<- *prometheus.Desc) { out <- refusalsDesc() }

func (r refusals) Collect(out chan<- prometheus.Metric) {
	for protocol, count := range r {
		out <- prometheus.MustNewConstMetric(refusalsDesc(), prometheus.CounterValue, float64(count()), protocol)
	}
}

// expiries are when certificates end.
type expiries func() []Certificate

func expiriesDesc() *prometheus.Desc {
	return prometheus.NewDesc("restante_certificate_expiry_timestamp_seconds", "When a certificate in use expires, in Unix time.", []string{"name"}, nil)
}

func (e expiries) Describe(out chan<- *prometheus.Desc) { out <- expiriesDesc() }

func (e expiries) Collect(out chan<- prometheus.Metric) {
	earliest := make(map[string]time.Time) // names may be in several
	for _, c := range e() {
		if at, ok := earliest[c.Name]; !ok || c.Expiry.Before(at) {
			earliest[c.Name] = c.Expiry
		}
	}
	for name, at := range earliest {
		out <- prometheus.MustNewConstMetric(expiriesDesc(), prometheus.GaugeValue, float64(at.Unix()), name)
	}
}
