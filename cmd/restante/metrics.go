package main

import (
	"context"
	"fmt"

	"restante/cmd/restante/internal/metrics"
	"restante/pop3d"
)

// maxMetricsConnections are those of programs of this machine. One that runs wild
// takes no descriptors that mail needs.
const maxMetricsConnections = 32

// measure has what the server does counted, and told to programs of this machine.
func (s *server) measure() {
	refused := make(map[string]func() int64)
	for protocol, l := range s.limiters {
		refused[protocol] = l.Refused
	}
	var outcomes []string
	for _, o := range pop3d.Outcomes() {
		outcomes = append(outcomes, string(o))
	}
	s.metrics = metrics.New(outcomes, s.expiries, refused)
	s.http = metrics.NewServer(s.metrics, s.ready, s.log)
}

// smtpCounts is the smtpd.Observer that counts.
type smtpCounts struct{ *metrics.Metrics }

func (c smtpCounts) Opened() { c.Metrics.Opened("smtp") }
func (c smtpCounts) Closed() { c.Metrics.Closed("smtp") }

// pop3Counts is the pop3d.Observer that counts.
type pop3Counts struct{ m *metrics.Metrics }

func (c pop3Counts) Opened()               { c.m.Opened("pop3") }
func (c pop3Counts) Login(o pop3d.Outcome) { c.m.Login(string(o)) }

func (c pop3Counts) Closed(retrieved int, octets int64, removed int) {
	c.m.Closed("pop3")
	c.m.Fetched(retrieved, octets, removed)
}

func (s *server) expiries() (all []metrics.Certificate) {
	for _, info := range s.certs.Describe() {
		name := s.config.Hostname
		if len(info.Names) > 0 {
			name = info.Names[0]
		}
		all = append(all, metrics.Certificate{Name: name, Expiry: info.NotAfter})
	}
	return all
}

// ready tells why mail cannot be taken or fetched now.
func (s *server) ready(ctx context.Context) error {
	if _, err := s.users.FirstDomain(ctx); err != nil {
		return fmt.Errorf("the directory cannot be read: %w", err)
	}
	if err := s.mail.Probe(); err != nil {
		return fmt.Errorf("the disk cannot be written: %w", err)
	}
	return nil
}
