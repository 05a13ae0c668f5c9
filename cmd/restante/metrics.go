package main

import (
	"context"
	"fmt"

	"restante/cmd/restante/internal/metrics"
)

// measure has what the server does counted, and told to programs of this machine.
func (s *server) measure() {
	refused := make(map[string]func() int64)
	for protocol, l := range s.limiters {
		refused[protocol] = l.Refused
	}
	s.metrics = metrics.New(s.expiries, refused)
	s.http = metrics.NewServer(s.metrics, s.ready, s.log)
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
