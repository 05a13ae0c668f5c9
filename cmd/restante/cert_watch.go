package main

import (
	"context"
	"time"

	"restante/cmd/restante/internal/config"
)

// certificatesEvery is how often the files of certificates are looked at.
const certificatesEvery = 5 * time.Second

// watchCertificates takes certificates that were renewed on disk, so that nobody
// has to tell the server.
func (s *server) watchCertificates(ctx context.Context) {
	tick, daily := time.NewTicker(certificatesEvery), time.NewTicker(24*time.Hour)
	defer tick.Stop()
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-daily.C:
			s.warnOfCertificates()
			continue
		case <-tick.C:
		}
		changed, err := s.certs.Refresh()
		if err != nil {
			s.log.Error("certificates stay as they were", "error", err)
		}
		if changed {
			for _, info := range s.certs.Describe() {
				s.log.Info("certificate changed on disk, in use now", "certificate", info.String())
			}
			s.warnOfCertificates()
		}
	}
}

// warnOfCertificates logs what its owner should mend about a certificate.
func (s *server) warnOfCertificates() {
	for _, info := range s.certs.Describe() {
		for _, warning := range info.Warnings {
			s.log.Warn(warning)
		}
	}
}

// warnOfTrace says whose dialogs are logged, lest it be forgotten.
func (s *server) warnOfTrace(c *config.Config) {
	switch {
	case c.Log.Trace.Empty():
	case tracing(c) == nil:
		s.log.Warn("log.trace is of no effect unless log.level is debug")
	default:
		s.log.Warn("dialogs are logged", "of", c.Log.Trace.String())
	}
}
