package main

import (
	"reflect"
	"slices"

	"github.com/coreos/go-systemd/v22/daemon"

	"restante/cmd/restante/internal/config"
)

// reload takes new settings and certificates for connections to come. What is
// wrong leaves everything as it was.
func (s *server) reload(load func() (*config.Config, error)) {
	s.notify(daemon.SdNotifyReloading)
	defer s.notify(daemon.SdNotifyReady)
	c, err := load()
	if err == nil {
		s.warnOfConfinement(c)
		err = s.certs.Reload(pairs(c))
	}
	if err != nil {
		s.log.Error("reload failed; the settings and certificates stay as they were", "error", err)
		return
	}
	for _, key := range restartOnly(s.config, c) {
		s.log.Warn("a changed setting needs a restart", "setting", key)
	}
	s.level.Set(c.Log.Level)
	s.smtp.Reconfigure(s.smtpConfig(c))
	s.pop3.Reconfigure(s.pop3Config(c))
	smtpShare, pop3Share, _ := connectionShares(c)
	s.limiters["smtp"].Reconfigure(limits(c, smtpShare))
	s.limiters["pop3"].Reconfigure(limits(c, pop3Share))
	s.warnOfCertificates()
	s.warnOfTrace(c)
	s.warnOfFiles(c)
	s.log.Info("reloaded the settings and certificates")
}

// restartOnly names the settings that differ and are only read at the start.
func restartOnly(old, now *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"hostname", old.Hostname != now.Hostname}, // of greetings it holds at once
		{"data_dir", old.DataDir != now.DataDir},
		{"smtp.listen", !slices.Equal(old.SMTP.Listen, now.SMTP.Listen)},
		{"pop3.listen", !slices.Equal(old.POP3.Listen, now.POP3.Listen)},
		{"pop3.listen_tls", !slices.Equal(old.POP3.ListenTLS, now.POP3.ListenTLS)},
		{"metrics.listen", !slices.Equal(old.Metrics.Listen, now.Metrics.Listen)},
		{"tls.min_version", old.TLS.MinVersion != now.TLS.MinVersion},
		{"tls.acme and what begins so", !sameACME(old.TLS, now.TLS)},
		{"user", old.User != now.User},
		{"proxy.trusted", old.Proxy.Trusted.String() != now.Proxy.Trusted.String()},
		{"sandbox.landlock", old.Sandbox != now.Sandbox},
		{"log.format", old.Log.Format != now.Log.Format},
		{"auth.failure_delay", old.Auth.FailureDelay != now.Auth.FailureDelay},
		{"auth.exempt", old.Auth.Exempt.String() != now.Auth.Exempt.String()},
		{"auth.argon2_memory, argon2_time or argon2_threads", hashParams(old) != hashParams(now)},
	} {
		if k.changed {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// sameACME compares all that is about the authority.
func sameACME(a, b config.TLS) bool {
	a.Certificates, b.Certificates, a.MinVersion = nil, nil, b.MinVersion
	return reflect.DeepEqual(a, b)
}
