package config

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// setting is a row of the table that everything about settings comes from.
type setting struct {
	key      string
	accepts  kind
	fields   []string // the keys of each table, all of them files; only where tables are accepted
	standard []string // the default; none for a setting that has no default
	help     string   // what it means, for someone who knows no mail servers
	set      func(*Config, value) error
	get      func(*Config) []string
}

// settings is the table, in the order of the file.
func settings() []setting {
	return []setting{{
		key: "hostname", accepts: text,
		help: "The name of this machine in the DNS. Other servers see it in the greeting and in each message.",
		set:  scalar(func(c *Config) *string { return &c.Hostname }, parseHostname),
		get:  func(c *Config) []string { return present(c.Hostname) },
	}, {
		key: "data_dir", accepts: text, standard: []string{"/var/lib/restante"},
		help: "The directory that holds all mail, users and keys. Back it up.",
		set:  setDataDir,
		get:  func(c *Config) []string { return present(c.DataDir) },
	}, {
		key: "smtp.listen", accepts: list, standard: []string{":25"},
		help: "Where other servers deliver mail. They always come to port 25. \":25\" is port 25 on every address of this machine.",
		set:  addresses(func(c *Config) *[]string { return &c.SMTP.Listen }),
		get:  func(c *Config) []string { return c.SMTP.Listen },
	}, {
		key: "smtp.max_message_size", accepts: text | number, standard: []string{"50MiB"},
		help: "The largest message that is taken, with its attachments. They grow by a third on their way. KB is 1000 octets, KiB 1024.",
		set:  size(func(c *Config) *Size { return &c.SMTP.MaxMessageSize }, 64*kibi, 2*gibi),
		get:  func(c *Config) []string { return present(c.SMTP.MaxMessageSize.String()) },
	}, {
		key: "smtp.max_recipients", accepts: number, standard: []string{"100"},
		help: "How many recipients one delivery may have. A sender with more delivers again for the others.",
		// RFC 5321 section 4.5.3.1.8 wants at least 100.
		set: integer(func(c *Config) *int { return &c.SMTP.MaxRecipients }, 100, 10000),
		get: func(c *Config) []string { return present(strconv.Itoa(c.SMTP.MaxRecipients)) },
	}, {
		key: "pop3.listen", accepts: list, standard: []string{":110"},
		help: "Where mail programs fetch mail, encrypted after they ask for it (STARTTLS). [] is nowhere.",
		set:  addresses(func(c *Config) *[]string { return &c.POP3.Listen }),
		get:  func(c *Config) []string { return c.POP3.Listen },
	}, {
		key: "pop3.listen_tls", accepts: list, standard: []string{":995"},
		help: "Where mail programs fetch mail, encrypted from the start (SSL/TLS). [] is nowhere.",
		set:  addresses(func(c *Config) *[]string { return &c.POP3.ListenTLS }),
		get:  func(c *Config) []string { return c.POP3.ListenTLS },
	}, {
		key: "pop3.idle_timeout", accepts: text, standard: []string{"10m"},
		help: "How long a mail program may be silent before the connection is closed. 10m, ten minutes, is the least.",
		// RFC 1939 section 3: at least 10 minutes.
		set: duration(func(c *Config) *time.Duration { return &c.POP3.IdleTimeout }, 10*time.Minute, 24*time.Hour),
		get: func(c *Config) []string { return present(showDuration(c.POP3.IdleTimeout)) },
	}, {
		key: "pop3.login_delay", accepts: text, standard: []string{"0s"},
		help: "How far apart the logins of one user are to be. A few may come together, more are refused until then. 0s is no limit.",
		set:  duration(func(c *Config) *time.Duration { return &c.POP3.LoginDelay }, 0, time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.POP3.LoginDelay)) },
	}, {
		key: "tls.certificates", accepts: tables, fields: []string{"certificate", "key"},
		help: "Certificates for encryption, chosen by the name that a client asks for; the first is for all others. Without any the server makes a self-signed one, about which mail programs warn.",
		set:  setCertificates,
		get:  showCertificates,
	}, {
		key: "auth.allow_plaintext", accepts: flag | list, standard: []string{"false"},
		help: "Whether passwords may be sent without encryption: false, true, or the networks they may come from, such as [\"127.0.0.0/8\", \"::1\"].",
		set: func(c *Config, v value) (err error) {
			c.Auth.AllowPlaintext, err = ParseNetworks(v.items)
			return err
		},
		get: func(c *Config) []string { return c.Auth.AllowPlaintext.items() },
	}, {
		key: "auth.argon2_memory", accepts: text, standard: []string{"19MiB"},
		help: "What it costs to try one password. More makes stolen password hashes harder to break, and needs more memory for each login.",
		// The upper bounds keep a login from exhausting the machine.
		set: size(func(c *Config) *Size { return &c.Auth.Argon2Memory }, 1*mebi, 1*gibi),
		get: func(c *Config) []string { return present(c.Auth.Argon2Memory.String()) },
	}, {
		key: "auth.argon2_time", accepts: number, standard: []string{"2"},
		help: "How many rounds one password takes. More makes each login slower, and guessing too.",
		set:  integer(func(c *Config) *int { return &c.Auth.Argon2Time }, 1, 64),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.Auth.Argon2Time)) },
	}, {
		key: "auth.argon2_threads", accepts: number, standard: []string{"1"},
		help: "How many processors work on one password.",
		set:  integer(func(c *Config) *int { return &c.Auth.Argon2Threads }, 1, 64),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.Auth.Argon2Threads)) },
	}, {
		key: "log.level", accepts: text, standard: []string{"info"},
		help: "How much is logged: debug, info, warn or error.",
		set:  scalar(func(c *Config) *slog.Level { return &c.Log.Level }, parseLevel),
		get:  func(c *Config) []string { return present(strings.ToLower(c.Log.Level.String())) },
	}, {
		key: "log.format", accepts: text, standard: []string{"text"},
		help: "How a line of the log looks: text, or json for programs that read logs.",
		set:  scalar(func(c *Config) *string { return &c.Log.Format }, parseFormat),
		get:  func(c *Config) []string { return present(c.Log.Format) },
	}, {
		key: "log.trace", accepts: list, standard: []string{},
		help: "Whose dialogs are in the log line by line, without passwords and mail, while log.level is debug: users, and addresses or networks of clients, such as [\"alice@example.org\", \"192.0.2.7\"].",
		set: func(c *Config, v value) (err error) {
			c.Log.Trace, err = ParseTrace(v.items)
			return err
		},
		get: func(c *Config) []string { return c.Log.Trace.items() },
	}, {
		key: "metrics.listen", accepts: list, standard: []string{},
		help: "Where programs of this machine ask how the server is doing, by HTTP, such as [\"127.0.0.1:9125\"]; see \"restante help metrics\". [] is nowhere.",
		set:  loopback(addresses(func(c *Config) *[]string { return &c.Metrics.Listen })),
		get:  func(c *Config) []string { return c.Metrics.Listen },
	}}
}

// variable is the environment variable of the setting.
func (s setting) variable() string {
	return "RESTANTE_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// fromText is the value that an environment variable or a flag stands for.
func (s setting) fromText(in string) value {
	if s.accepts&list == 0 {
		return value{items: []string{strings.TrimSpace(in)}}
	}
	var items []string
	for item := range strings.SplitSeq(in, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return value{items: items}
}

// show is the value as people see it, in the form of the environment.
func (s setting) show(c *Config) string {
	return strings.Join(s.get(c), ", ")
}

func keys(table []setting) []string {
	all := make([]string, 0, len(table))
	for _, s := range table {
		all = append(all, s.key)
	}
	return all
}

// present is the list of a text, unless it is empty.
func present(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func setDataDir(c *Config, v value) error {
	if v.items[0] == "" {
		return errEmpty
	}
	dir, err := filepath.Abs(v.path(v.items[0])) // absolute already unless from outside the file
	if err != nil {
		return fmt.Errorf("cannot be found: %w", err)
	}
	// An environment variable could not say it: there, spaces at the ends count for nothing.
	if strings.TrimSpace(dir) != dir {
		return fmt.Errorf("must not end with a space: %q", dir)
	}
	c.DataDir = dir
	return nil
}

// setCertificates takes the tables of the file; no other source has tables.
func setCertificates(c *Config, v value) error {
	c.TLS.Certificates = nil
	for _, r := range v.rows {
		c.TLS.Certificates = append(c.TLS.Certificates, Certificate{
			Certificate: v.path(r.text("certificate")),
			Key:         v.path(r.text("key")),
		})
	}
	return nil
}

func showCertificates(c *Config) []string {
	var files []string
	for _, pair := range c.TLS.Certificates {
		files = append(files, pair.Certificate+" with "+pair.Key)
	}
	return files
}
