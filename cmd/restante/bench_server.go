package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"restante/auth"
	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
	"restante/cmd/restante/internal/loadgen"
)

const (
	benchDomain    = "bench.test"
	benchMailboxes = 10
	// benchWaiting messages wait in each mailbox that is fetched from.
	benchWaiting = 100
)

var errBenchServer = errors.New("the server ended by itself")

// benchServer is the throw-away server that is measured.
type benchServer struct {
	*server
	password string
	tls      *tls.Config // of its clients
}

func benchUser(n int) string { return fmt.Sprintf("user%d@%s", n%benchMailboxes, benchDomain) }

// benchIn runs the server in dir while it is measured, and writes the report.
func (a *app) benchIn(ctx context.Context, dir string, o benchOptions, r *benchReport) error {
	c, err := benchConfig(dir)
	if err != nil {
		return err
	}
	password, err := populateBench(ctx, c)
	if err != nil {
		return err
	}
	faults := benchFaults{new(atomic.Pointer[string])}
	s, err := startOnFreePorts(ctx, c, slog.New(faults), new(slog.LevelVar))
	if err != nil {
		return err
	}
	b := &benchServer{server: s, password: password}
	if b.tls, err = benchTLS(c); err != nil {
		return errors.Join(err, s.close())
	}
	err = b.whileServing(ctx, func(ctx context.Context) error { return a.measure(ctx, b, o, r) })
	return errors.Join(err, faults.err())
}

// benchFaults is the log of the server: it shows nothing, and keeps the first
// error. Each client that hears of a fault makes one more.
type benchFaults struct{ first *atomic.Pointer[string] }

func (benchFaults) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (f benchFaults) WithAttrs([]slog.Attr) slog.Handler         { return f }
func (f benchFaults) WithGroup(string) slog.Handler              { return f }

func (f benchFaults) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			text += ": " + a.Value.String()
		}
		return true
	})
	f.first.CompareAndSwap(nil, &text)
	return nil
}

func (f benchFaults) err() error {
	if text := f.first.Load(); text != nil {
		return fmt.Errorf("the server had a fault: %s", *text)
	}
	return nil
}

// whileServing runs the server as long as do takes. The end of ctx ends do
// first, and the server when its clients are gone.
func (b *benchServer) whileServing(ctx context.Context, do func(context.Context) error) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		err := b.run(serving, nil, nil)
		cancel(errBenchServer)
		ended <- err
	}()
	err := do(ctx)
	stop()
	return errors.Join(err, <-ended)
}

func benchConfig(dir string) (*config.Config, error) {
	c := config.Default()
	c.Hostname = "localhost"
	c.DataDir = dir
	var err error
	c.Auth.AllowPlaintext, err = config.ParseNetworks([]string{"127.0.0.0/8"})
	return c, err
}

// populateBench adds the domain, and the users with one password.
func populateBench(ctx context.Context, c *config.Config) (password string, err error) {
	users, err := openDirectory(ctx, c, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	if err := users.AddDomain(ctx, benchDomain, ""); err != nil {
		return "", err
	}
	password = auth.GeneratePassword()
	secret, err := auth.PlainSecret(password)
	if err != nil {
		return "", err
	}
	for n := range benchMailboxes {
		if _, err := users.AddUser(ctx, benchUser(n), secret); err != nil {
			return "", err
		}
	}
	return password, nil
}

// benchTLS trusts the self-signed certificate of the server, and no other.
func benchTLS(c *config.Config) (*tls.Config, error) {
	doc, err := os.ReadFile(filepath.Join(selfSignedDir(c), certs.CertificateFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(doc) {
		return nil, errors.New("the self-signed certificate of the server cannot be read")
	}
	return &tls.Config{RootCAs: roots, ServerName: c.Hostname, MinVersion: tls.VersionTLS12}, nil
}

// empty removes the mail that came so far, and waits until the disk has nothing
// left to do, so that one measurement does not pay for another.
func (b *benchServer) empty(ctx context.Context) error {
	for n := range benchMailboxes {
		if err := b.mail.RemoveMailbox(ctx, benchUser(n)); err != nil {
			return err
		}
	}
	return settleDisk(b.config.DataDir)
}

// fill puts messages into every mailbox.
func (b *benchServer) fill(ctx context.Context) error {
	if err := b.empty(ctx); err != nil {
		return err
	}
	var all []string
	for n := range benchMailboxes {
		all = append(all, benchUser(n))
	}
	message := loadgen.Message(smallMessage)
	for range benchWaiting {
		id := strings.ToLower(rand.Text()[:16])
		if _, err := b.mail.Deliver(ctx, id, all, bytes.NewReader(message)); err != nil {
			return err
		}
	}
	return settleDisk(b.config.DataDir)
}

// settleDisk writes out all that the file system of dir has in memory.
func settleDisk(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("syncing the file system of %s: %w", dir, err)
	}
	return nil
}
