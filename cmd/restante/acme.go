package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"restante/cmd/restante/internal/acme"
	"restante/cmd/restante/internal/config"
	"restante/cmd/restante/internal/listen"
)

const (
	// proofTime is for one connection of an authority. Whoever else comes must not
	// be able to hold many, or for long.
	proofTime = 4 * time.Second
	// bindEvery is how often a port for the proofs is tried that was taken.
	bindEvery = 10 * time.Second
)

// acmeLimits let an authority come, which looks from several networks at once, while
// somebody tries to be in its way.
func acmeLimits() listen.Limits {
	return listen.Limits{Total: 100, PerAddress: 5, PerNetwork: 10}
}

func acmeConfig(c *config.Config) acme.Config {
	names := c.TLS.ACMENames
	if len(names) == 0 {
		names = []string{c.Hostname}
	}
	return acme.Config{
		Dir: filepath.Join(c.DataDir, "tls", "acme"), Names: names, Email: c.TLS.ACMEEmail, Directory: c.TLS.ACMEDirectory,
	}
}

// prepareACME makes the client of the authority, if there is to be one. Its files
// belong to the owner of the data directory.
func (s *server) prepareACME() error {
	if !s.config.TLS.ACME {
		return nil
	}
	c := acmeConfig(s.config)
	c.Log = s.log.With("protocol", "acme")
	if file := s.config.TLS.ACMERoots; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("tls.acme_roots: %w", err)
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(text) {
			return fmt.Errorf("tls.acme_roots: there is no certificate in %s", file)
		}
	}
	client, err := acme.New(c)
	s.acme = client
	return err
}

// newProofs makes what answers an authority, on all of its ports.
func (s *server) newProofs() *http.Server {
	handler := http.NotFoundHandler()
	if s.acme != nil {
		handler = s.acme.HTTPHandler()
	}
	proofs := &http.Server{
		Handler: handler, ReadTimeout: proofTime, WriteTimeout: proofTime, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(s.log.With("protocol", "acme").Handler(), slog.LevelDebug),
	}
	proofs.SetKeepAlivesEnabled(false)
	return proofs
}

// serveACME answers an authority on one of its ports. On that for TLS the handshake
// is all there is to it.
func (s *server) serveACME(l boundPort) error {
	if l.protocol == protocolACMETLS {
		s.acme.Listening(acme.ProofTLS)
		return s.proofs.Serve(tls.NewListener(l, s.acme.TLSConfig()))
	}
	s.acme.Listening(acme.ProofHTTP)
	return s.proofs.Serve(l)
}

// postpone tells of a port for the proofs that is taken: mail does not wait for it.
func (s *server) postpone(p port, err error) {
	s.postponed = append(s.postponed, p)
	s.log.Error("the authority cannot come to this port, all else is served; it is tried again, and another may be used: see tls.acme_tls and tls.acme_http",
		"protocol", p.protocol, "error", err)
}

// servePostponed tries again to listen on a port that was taken, and serves it. A
// server that has given up root may not do so with each port.
func (s *server) servePostponed(ctx context.Context, p port) error {
	tick := time.NewTicker(bindEvery)
	defer tick.Stop()
	for tries := 1; ; tries++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l, err := s.listen(p)
		if err != nil && tries%int(24*time.Hour/bindEvery) == 0 {
			s.log.Error("a port for the authority is still not open", "protocol", p.protocol, "error", err)
		}
		if errors.Is(err, syscall.EACCES) {
			s.log.Error("a port for the authority cannot be opened after root was given up: free it, and restart the server", "protocol", p.protocol, "error", err)
			return nil
		}
		if err == nil {
			s.log.Info("listening", "protocol", l.protocol, "address", l.Addr().String())
			return s.serve(l)
		}
	}
}

// renewCertificate asks the authority until ctx ends.
func (s *server) renewCertificate(ctx context.Context) {
	if s.acme == nil {
		return
	}
	if fetched := acmeConfig(s.config).File(); len(s.config.TLS.Certificates) == 0 {
		if _, err := os.Stat(fetched); err != nil {
			s.log.Warn("a self-signed certificate is in use until the authority gives one", "authority", s.config.TLS.ACMEDirectory)
		}
	}
	s.acme.Run(ctx, func() {
		if err := s.certs.Reread(); err != nil {
			s.log.Error("the certificate from the authority is not in use", "error", err)
			return
		}
		for _, info := range s.certs.Describe() {
			s.log.Info("certificate from the authority, in use now", "certificate", info.String())
		}
	})
}
