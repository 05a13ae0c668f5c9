package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"restante/auth"
	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
	"restante/cmd/restante/internal/control"
	"restante/cmd/restante/internal/listen"
	"restante/pop3d"
	"restante/smtpd"
	"restante/storage"
)

const (
	// gracePeriod is what sessions have to finish in when the server stops.
	gracePeriod = 30 * time.Second
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the server in the foreground",
		Long: `Run the server in the foreground and log to standard error. SIGTERM and Ctrl-C
end it: what runs is finished within 30 seconds; a second one ends it at once.
SIGHUP reads the configuration and the certificates anew.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			goOnUnread() // of its log
			log, level := newLog(a.stderr, c)
			limitMemory(log)
			forbidCores(log)
			if err := refuseRoot(c); err != nil {
				return err
			}
			s, err := start(cmd.Context(), c, log, level)
			if err != nil {
				return err
			}
			if os.Geteuid() == 0 {
				log.Warn("serving as root, as the settings say", "data_dir", c.DataDir)
			}
			if s.configFile, err = filepath.Abs(a.configFile()); err == nil {
				err = s.confine(s.configFile)
			}
			if err != nil {
				return errors.Join(err, s.close())
			}
			return s.run(cmd.Context(), hup, a.loadConfig)
		},
	}
}

// start does all that can fail before the first client is served: it takes the
// lock of the data directory, reads the certificates, binds the ports, gives up
// root and opens the directory. When it fails nothing stays open.
//
// Started by root, it makes files as the owner of the data directory, and reads
// certificates and binds low ports as root.
func start(ctx context.Context, c *config.Config, log *slog.Logger, level *slog.LevelVar) (_ *server, err error) {
	if err := checkDataDir(c.DataDir); err != nil {
		return nil, err
	}
	who, foreign, err := serveAs(c)
	if err != nil {
		return nil, err
	}
	asOwner := func(do func() error) error { return do() }
	if foreign {
		asOwner = who.act
	}
	s := &server{config: c, log: log, level: level, since: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := asOwner(s.lockData); err != nil {
		return nil, err
	}
	if err := asOwner(s.prepareACME); err != nil {
		return nil, err
	}
	readCertificates := s.readCertificates
	if len(c.TLS.Certificates) == 0 {
		readCertificates = func() error { return asOwner(s.readCertificates) }
	}
	if err := readCertificates(); err != nil {
		return nil, err
	}
	if err := s.bind(); err != nil {
		return nil, err
	}
	if foreign {
		if err := who.become(); err != nil {
			return nil, err
		}
		s.changedUser()
	}
	if s.users, err = s.openUsers(ctx); err != nil {
		return nil, err
	}
	s.assemble()
	return s, nil
}

// openUsers opens the directory for logins: failures are counted, and kept.
func (s *server) openUsers(ctx context.Context) (*auth.Directory, error) {
	run := filepath.Join(s.config.DataDir, control.Directory)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, fmt.Errorf("the directory of the running server cannot be made: %w", err)
	}
	o := directoryOptions(s.config, s.log)
	o.FailureDelay = s.config.Auth.FailureDelay
	o.Exempt = s.config.Auth.Exempt.Allows
	o.ThrottleFile = filepath.Join(run, "failed-logins.json")
	return auth.Open(ctx, filepath.Join(s.config.DataDir, directoryFile), o)
}

// lockData opens the mail and takes the lock that one server holds.
func (s *server) lockData() error {
	mail, err := storage.Open(s.config.DataDir, storage.Options{Hostname: s.config.Hostname, Log: s.log})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, mail.Close)
	s.mail = mail
	release, err := mail.LockServer()
	if errors.Is(err, storage.ErrServerRunning) {
		return fmt.Errorf("another server is running on the data directory %s; stop it first", s.config.DataDir)
	}
	if err != nil {
		return err
	}
	s.closers = append(s.closers, release)
	return nil
}

func (s *server) readCertificates() (err error) {
	s.certs, err = certs.Open(certificateOptions(s.config))
	return err
}

// changedUser follows after root was given up, which undoes some of what was done.
func (s *server) changedUser() {
	forbidCores(s.log)
	if _, err := certs.Check(certificateOptions(s.config)); err != nil {
		s.log.Warn("the certificates were read as root, and cannot be read any more: a renewed one is not taken before a restart, and a reload fails", "error", err)
	}
}

// bind opens every port of the settings, with the limits on connections.
func (s *server) bind() error {
	// Senders cannot take the places of those who fetch mail.
	smtpShare, pop3Share, _ := connectionShares(s.config)
	smtp := listen.NewLimiter(limits(s.config, smtpShare), s.log)
	pop3 := listen.NewLimiter(limits(s.config, pop3Share), s.log)
	authority := listen.NewLimiter(acmeLimits(), s.log)
	watchers := listen.NewLimiter(listen.Limits{Total: maxMetricsConnections}, s.log)
	s.limiters = map[string]*listen.Limiter{"smtp": smtp, "pop3": pop3}
	s.limited = map[protocol]func(net.Listener) net.Listener{
		protocolSMTP:    func(l net.Listener) net.Listener { return smtp.Wrap(l, smtpd.Refusal(s.config.Hostname)) },
		protocolPOP3:    func(l net.Listener) net.Listener { return pop3.Wrap(l, pop3d.Refusal()) },
		protocolPOP3S:   func(l net.Listener) net.Listener { return pop3.Wrap(l, "") }, // nothing can be said before the handshake
		protocolMetrics: func(l net.Listener) net.Listener { return watchers.Wrap(l, "") },
		// To be turned away without a word is all that others can expect.
		protocolACMEHTTP: func(l net.Listener) net.Listener { return authority.Wrap(l, "") },
		protocolACMETLS:  func(l net.Listener) net.Listener { return authority.Wrap(l, "") },
	}
	for _, p := range ports(s.config) {
		l, err := s.listen(p)
		switch {
		case err == nil:
			s.closers = append(s.closers, func() error { return ignoreClosed(l.Close()) })
			s.listeners = append(s.listeners, l)
		case p.authority() && errors.Is(err, syscall.EADDRINUSE):
			s.postpone(p, err)
		default:
			return err
		}
	}
	return nil
}

// listen opens one port.
func (s *server) listen(p port) (boundPort, error) {
	l, err := listen.Listen(p.address)
	if err != nil {
		return boundPort{}, err
	}
	if !s.config.Proxy.Trusted.Empty() && p.mail() {
		l = listen.Proxied(l, s.config.Proxy.Trusted.Allows, s.log)
	}
	return boundPort{p.protocol, s.limited[p.protocol](l)}, nil
}

// limits are those of a protocol, all its ports together.
func limits(c *config.Config, total int) listen.Limits {
	return listen.Limits{Total: total, PerAddress: c.Limits.PerAddress, PerNetwork: c.Limits.PerNetwork, PerMinute: c.Limits.PerMinute,
		Exempt: c.Limits.Exempt.Allows}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// close undoes what start did, the last first.
func (s *server) close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// run serves until ctx ends, then drains. A value from hup makes it read the
// settings anew by load.
func (s *server) run(ctx context.Context, hup <-chan os.Signal, load func() (*config.Config, error)) error {
	serving, failed := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		s.log.Info("listening", "protocol", l.protocol, "address", l.Addr().String())
		serving.Go(func() error { return s.serve(l) })
	}
	for _, p := range s.postponed {
		serving.Go(func() error { return s.servePostponed(failed, p) })
	}
	serving.Go(func() error { s.sweep(failed); return nil })
	serving.Go(func() error { s.watchCertificates(failed); return nil })
	serving.Go(func() error { s.serveControl(failed); return nil })
	serving.Go(func() error { s.renewCertificate(failed); return nil })
	s.warnOfCertificates()
	s.warnOfTrace(s.config)
	s.warnOfFiles(s.config)
	s.notify(daemon.SdNotifyReady)
	for failed.Err() == nil {
		select {
		case <-failed.Done():
		case <-hup:
			s.reload(load)
		}
	}
	s.log.Info("stopping", "grace", gracePeriod)
	s.notify(daemon.SdNotifyStopping)
	s.drain()
	err := serving.Wait()
	if err = errors.Join(err, s.close()); err == nil {
		s.log.Info("stopped")
	}
	return err
}

// sweep clears away what crashes left, beside the work. What it cannot clear
// away is for the log: it is in nobody's way.
func (s *server) sweep(ctx context.Context) {
	if err := s.mail.Sweep(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("sweeping the mail directory left something behind", "error", err)
	}
}

// serve hands the connections of one port to the package that speaks its
// protocol. A server that was shut down is no error.
func (s *server) serve(l boundPort) error {
	var err error
	switch l.protocol {
	case protocolSMTP:
		err = s.smtp.Serve(l)
	case protocolPOP3:
		err = s.pop3.Serve(l)
	case protocolPOP3S:
		err = s.pop3.ServeTLS(l)
	case protocolMetrics:
		err = s.http.Serve(l)
	case protocolACMEHTTP, protocolACMETLS:
		err = s.serveACME(l)
	}
	if errors.Is(err, smtpd.ErrServerClosed) || errors.Is(err, pop3d.ErrServerClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving %s on %s: %w", l.protocol, l.Addr(), err)
}

// drain gives both servers the same grace period, at the same time.
func (s *server) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), gracePeriod)
	defer cancel()
	var both errgroup.Group
	both.Go(func() error { return s.smtp.Shutdown(ctx) })
	both.Go(func() error { return s.pop3.Shutdown(ctx) })
	if err := both.Wait(); err != nil {
		s.log.Warn("sessions were cut off at the end of the grace period", "error", err)
	}
	_ = s.proofs.Close() // an authority asks again
	if s.http != nil {
		_ = s.http.Shutdown(ctx) // whoever asks now may do without
	}
}

// notify tells the service manager, if there is one, what state we are in.
func (s *server) notify(state string) {
	if state == daemon.SdNotifyReloading {
		// Type=notify-reload wants the moment of the reload too.
		state += "\n" + daemon.SdNotifyMonotonicUsec()
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("the service manager cannot be told of our state", "error", err)
	}
}
