package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"restante/auth"
	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
)

const (
	demoDomain = "demo.test"
	demoUser   = "you@" + demoDomain
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Try it: a throw-away server on this machine, with a user and a message",
		Long: `Run a throw-away server that only this machine reaches, with a user, a generated
password and one message waiting, and print how to send mail to it and fetch it.
Ctrl-C ends it and removes all it made.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context()) },
	}
}

func (a *app) demo(ctx context.Context) error {
	// The window that it runs in may be closed: nothing is to stay then, either.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	goOnUnread()
	dir, err := os.MkdirTemp("", "restante-demo-")
	if err != nil {
		return fmt.Errorf("there is no place for the demo: %w", err)
	}
	err = a.demoIn(ctx, dir)
	if gone := os.RemoveAll(dir); gone != nil {
		return errors.Join(err, gone)
	}
	if err == nil {
		fmt.Fprintf(a.stdout, "\nThe demo is over; %s was removed.\n", dir)
	}
	return err
}

func (a *app) demoIn(ctx context.Context, dir string) error {
	c := config.Default()
	c.Hostname = "localhost"
	c.DataDir = dir
	password, err := populateDemo(ctx, c)
	if err != nil {
		return err
	}
	log, level := newLog(a.stderr, c)
	s, err := startOnFreePorts(ctx, c, log, level)
	if err != nil {
		return err
	}
	if _, err := s.mail.Deliver(ctx, strings.ToLower(rand.Text()[:16]), []string{demoUser}, strings.NewReader(welcome(time.Now()))); err != nil {
		return errors.Join(err, s.close())
	}
	if err := printInstructions(a.stdout, c, password); err != nil {
		return errors.Join(err, s.close())
	}
	return s.run(ctx, nil, nil)
}

// startOnFreePorts starts the server on ports that are free. One may be taken by
// somebody else in the moment between finding and binding it: then others are
// found.
func startOnFreePorts(ctx context.Context, c *config.Config, log *slog.Logger, level *slog.LevelVar) (*server, error) {
	for tries := 10; ; tries-- {
		for _, p := range []struct {
			listen *[]string
			port   int
		}{{&c.SMTP.Listen, 2525}, {&c.POP3.Listen, 2110}, {&c.POP3.ListenTLS, 2995}} {
			addresses, err := freeLoopback(p.port)
			if err != nil {
				return nil, err
			}
			*p.listen = addresses
		}
		s, err := start(ctx, c, log, level)
		if tries == 1 || !errors.Is(err, syscall.EADDRINUSE) {
			return s, err
		}
	}
}

// populateDemo adds the domain and the user to the directory.
func populateDemo(ctx context.Context, c *config.Config) (password string, err error) {
	users, err := openDirectory(ctx, c, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	if err := users.AddDomain(ctx, demoDomain, ""); err != nil {
		return "", err
	}
	password = auth.GeneratePassword()
	secret, err := auth.PlainSecret(password)
	if err != nil {
		return "", err
	}
	_, err = users.AddUser(ctx, demoUser, secret)
	return password, err
}

// freeLoopback finds a port that is free on this machine, the wanted one if
// possible, and gives its loopback addresses: IPv6 too where there is IPv6.
func freeLoopback(wanted int) (addresses []string, err error) {
	for _, port := range []int{wanted, 0, 0, 0, 0} {
		if addresses, err = loopbackPort(port); err == nil {
			return addresses, nil
		}
	}
	return nil, fmt.Errorf("no port is free on this machine: %w", err)
}

// loopbackPort gives the loopback addresses of a port, any one if it is 0.
// "localhost" may mean either of them, so both must be free.
func loopbackPort(port int) ([]string, error) {
	four, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	defer four.Close()
	_, chosen, err := net.SplitHostPort(four.Addr().String())
	if err != nil {
		return nil, err
	}
	addresses := []string{net.JoinHostPort("127.0.0.1", chosen), net.JoinHostPort("::1", chosen)}
	six, err := net.Listen("tcp6", addresses[1])
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, err
	case err != nil:
		return addresses[:1], nil // no IPv6 here
	}
	return addresses, six.Close()
}

func welcome(now time.Time) string {
	return `From: Restante <postmaster@` + demoDomain + `>
To: ` + demoUser + `
Subject: Your first message
Date: ` + now.Format("Mon, 02 Jan 2006 15:04:05 -0700") + `
Message-ID: <welcome@` + demoDomain + `>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

This message was waiting for you. It came by POP3, over TLS, from the
throw-away server that "restante demo" runs on this machine.

Send one of your own, fetch it, and delete it: nothing here is kept.
`
}

// printInstructions writes the commands to paste, for the ports and the
// certificate of this run.
func printInstructions(w io.Writer, c *config.Config, password string) error {
	portOf := func(addresses []string) string {
		return addresses[0][strings.LastIndexByte(addresses[0], ':')+1:]
	}
	return demoText.Execute(w, map[string]string{
		"Dir":         c.DataDir,
		"Certificate": shellWord(filepath.Join(selfSignedDir(c), certs.CertificateFile)),
		"User":        demoUser,
		"Password":    password,
		"SMTP":        portOf(c.SMTP.Listen),
		"POP3":        portOf(c.POP3.Listen),
		"POP3S":       portOf(c.POP3.ListenTLS),
	})
}

// shellWord quotes s for a shell when it has more than letters, digits and what
// is usual in the name of a file.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r)
	}
	if strings.TrimFunc(s, plain) == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var demoText = template.Must(template.New("demo").Parse(`
A throw-away mail server is running on this machine. Ctrl-C ends it.
One message is waiting for {{.User}}. Everything is in {{.Dir}}.

Send a message, with curl:

  printf 'From: me@example.org\nTo: {{.User}}\nSubject: Hello\n\nHello, Restante!\n' |
  curl --crlf --ssl-reqd --cacert {{.Certificate}} \
    --mail-from me@example.org --mail-rcpt {{.User}} --upload-file - smtp://localhost:{{.SMTP}}

or with swaks:

  swaks --server localhost:{{.SMTP}} --tls --tls-verify --tls-ca-path {{.Certificate}} \
    --from me@example.org --to {{.User}}

Fetch the first message:

  curl --cacert {{.Certificate}} --user '{{.User}}:{{.Password}}' pop3s://localhost:{{.POP3S}}/1

List the messages with their sizes:

  curl --cacert {{.Certificate}} --user '{{.User}}:{{.Password}}' pop3s://localhost:{{.POP3S}}/

A desktop mail program (it will ask whether to trust the certificate):

  Incoming   POP3, server localhost, port {{.POP3S}}, SSL/TLS
             or port {{.POP3}} with STARTTLS
  User name  {{.User}}
  Password   {{.Password}}, "normal password"
  Outgoing   none: this server only receives

What happens from here on:

`))
