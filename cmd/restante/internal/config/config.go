// Package config reads the settings of the server, from its file in TOML, the
// environment and the command line, and explains them.
//
// The table in table.go is the one place that knows every setting: names,
// defaults, checks, explanations and the template of the file come from it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Config is all settings, checked. Default gives one, and Load.
type Config struct {
	Hostname string // the server's own domain name
	DataDir  string // absolute
	SMTP     SMTP
	POP3     POP3
	TLS      TLS
	Auth     Auth
	Limits   Limits
	Proxy    Proxy
	Sandbox  Sandbox
	User     string // as whom root serves; "": the owner of DataDir
	Log      Log
	Metrics  Metrics

	origins map[string]string // by key; a default has none
}

// SMTP is about receiving mail. Addresses to listen on are "host:port".
type SMTP struct {
	Listen         []string
	MaxMessageSize Size
	MaxRecipients  int // of one message

	MaxConnections   int
	MaxCommands      int // between two messages, four for each recipient that may be not counted
	MaxErrors        int
	MaxRefused       int           // recipients
	GreetingPause    time.Duration // before our greeting
	RejectHurried    bool
	RejectOwnName    bool
	GreetingTimeout  time.Duration // for the client's
	CommandTimeout   time.Duration
	DataTimeout      time.Duration // between two pieces of a message
	MessageTimeout   time.Duration // for a whole one
	HandshakeTimeout time.Duration // TLS
	MinRate          Size          // octets a second of a message
}

// POP3 is about fetching mail. ListenTLS is for TLS from the first octet.
type POP3 struct {
	Listen, ListenTLS []string
	IdleTimeout       time.Duration
	LoginDelay        time.Duration

	MaxConnections   int
	MaxCommands      int // before the login
	MaxErrors        int
	MaxFailedLogins  int
	LoginTimeout     time.Duration // from the first octet to the login
	HandshakeTimeout time.Duration // TLS
}

// Proxy is about clients that come through others.
type Proxy struct {
	Trusted Networks
}

// Sandbox is what the server denies itself.
type Sandbox struct {
	Landlock bool
}

// Limits are for both protocols. 0 is no limit.
type Limits struct {
	PerAddress int           // connections of an address, each protocol by itself
	PerNetwork int           // likewise of a network
	PerMinute  int           // new ones of an address
	Exempt     Networks      // from these, and from what is remembered of an address
	Pause      time.Duration // after an error, the more there were the longer
}

// TLS holds the certificates; none means a self-signed one.
type TLS struct {
	Certificates []Certificate
	MinVersion   uint16 // as in crypto/tls

	ACME          bool
	ACMEEmail     string
	ACMENames     []string // none: the hostname
	ACMEDirectory string   // URL
	ACMERoots     string   // PEM file, absolute; "": those of the system
	ACMEHTTP      []string // addresses to listen on
	ACMETLS       []string
}

// Certificate names the PEM files of a certificate and its key, absolute.
type Certificate struct {
	Certificate, Key string
}

// Auth is about logins. Argon2Memory is in octets, whole KiB.
type Auth struct {
	AllowPlaintext Networks
	FailureDelay   time.Duration
	Exempt         Networks // never refused for the failures of their address
	Argon2Memory   Size
	Argon2Time     int
	Argon2Threads  int
}

// Log is about the log. Format is "text" or "json".
type Log struct {
	Level  slog.Level
	Format string
	Trace  Trace
}

// Metrics is about what is counted. Listen is "host:port" on the loopback.
type Metrics struct {
	Listen []string
}

// LoadOptions are the sources of settings beside the file. A flag goes before
// the environment, the environment before the file, the file before a default.
type LoadOptions struct {
	Env   []string          // "NAME=value" each, as os.Environ gives them
	Flags map[string]string // by setting key, such as "smtp.listen"; lists comma-separated

	Optional        bool // it is no error when there is no file
	WithoutHostname bool // it is no error when no hostname is set
}

// Setting is one setting as people see it.
type Setting struct {
	Key, Value, Default string
	Origin              string // "default", "FILE:LINE", "environment NAME" or "flag"
	Help                string
}

// configFileVariable names the file. It is for whoever calls Load.
const configFileVariable = "RESTANTE_CONFIG"

var errNoPorts = errors.New("smtp.listen, pop3.listen and pop3.listen_tls are all empty: there is nothing to serve")

var (
	errNoChallenge = errors.New("tls.acme is true, but tls.acme_http and tls.acme_tls are both empty: the authority cannot see that the names are yours")
	errLocalName   = errors.New("tls.acme is true, but the hostname is localhost, for which nobody gives certificates")
)

var errNoHostname = errors.New(`hostname is not set: give the name that the DNS has for this machine, for example hostname = "mail.example.org"`)

// Default returns the defaults. There is none for the hostname.
func Default() *Config {
	c := &Config{origins: map[string]string{}}
	for _, s := range settings() {
		if len(s.standard) > 0 {
			// The tests see to it that every default is accepted.
			_ = s.set(c, value{items: s.standard})
		}
	}
	return c
}

// Load reads the settings. The error holds every problem found, a line each,
// with file and line where there is one; it is fs.ErrNotExist when the file is
// missing.
func Load(path string, o LoadOptions) (*Config, error) {
	c := Default()
	doc, err := os.ReadFile(path)
	if err != nil && !(o.Optional && errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	l := loader{config: c, file: path, dir: filepath.Dir(absolute), table: settings()}
	l.document(doc)
	l.environment(o.Env)
	l.flags(o.Flags)
	l.samePorts()
	if len(c.SMTP.Listen)+len(c.POP3.Listen)+len(c.POP3.ListenTLS) == 0 {
		l.problems = append(l.problems, errNoPorts)
	}
	if c.TLS.ACME && len(c.TLS.ACMEHTTP)+len(c.TLS.ACMETLS) == 0 {
		l.problems = append(l.problems, errNoChallenge)
	}
	if c.TLS.ACME && c.Hostname == "localhost" && len(c.TLS.ACMENames) == 0 {
		l.problems = append(l.problems, errLocalName)
	}
	if c.origins["hostname"] == "" && !o.WithoutHostname && !l.broken {
		l.problems = append(l.problems, errNoHostname)
	}
	if err := errors.Join(l.problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// Settings returns every setting, in the order of the file.
func (c *Config) Settings() []Setting {
	standard := Default()
	var all []Setting
	for _, s := range settings() {
		all = append(all, Setting{
			Key:     s.key,
			Value:   s.show(c),
			Default: s.show(standard),
			Origin:  c.origin(s.key),
			Help:    s.help,
		})
	}
	return all
}

func (c *Config) origin(key string) string {
	if o := c.origins[key]; o != "" {
		return o
	}
	return "default"
}
