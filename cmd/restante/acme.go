package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"restante/cmd/restante/internal/acme"
	"restante/cmd/restante/internal/config"
)

// maxACMEConnections are those of authorities, and of whoever else comes.
const maxACMEConnections = 50

func acmeConfig(c *config.Config) acme.Config {
	names := c.TLS.ACMENames
	if len(names) == 0 {
		names = []string{c.Hostname}
	}
	return acme.Config{
		Dir: filepath.Join(c.DataDir, "tls", "acme"), Names: names, Email: c.TLS.ACMEEmail, Directory: c.TLS.ACMEDirectory,
		HTTP: len(c.TLS.ACMEHTTP) > 0, TLS: len(c.TLS.ACMETLS) > 0,
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
	return &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(s.log.With("protocol", "acme").Handler(), slog.LevelDebug),
	}
}

// serveACME answers an authority on one of its ports. On that for TLS the handshake
// is all there is to it.
func (s *server) serveACME(l boundPort) error {
	if l.protocol == protocolACMETLS {
		return s.proofs.Serve(tls.NewListener(l, s.acme.TLSConfig()))
	}
	return s.proofs.Serve(l)
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
		if err := s.certs.Reload(pairs(s.config)); err != nil {
			s.log.Error("the certificate from the authority is not in use", "error", err)
			return
		}
		for _, info := range s.certs.Describe() {
			s.log.Info("certificate from the authority, in use now", "certificate", info.String())
		}
	})
}
