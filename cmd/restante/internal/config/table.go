package config

import (
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// generalSettings are about the server as a whole.
func generalSettings() []setting {
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
		key: "user", accepts: text, standard: []string{""},
		help: "As whom to serve when root starts the server. The default is the owner of the data directory. To serve as root has to be said: \"root\".",
		set:  optional(scalar(func(c *Config) *string { return &c.User }, parseUser)),
		get:  func(c *Config) []string { return present(c.User) },
	}}
}

// smtpSettings are about receiving mail.
func smtpSettings() []setting {
	return []setting{{
		key: "smtp.listen", accepts: list, ports: true, standard: []string{":25"},
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
		key: "smtp.max_connections", accepts: number, standard: []string{"1000"},
		help: "How many connections of senders may be open. More are told to come again later.",
		set:  integer(func(c *Config) *int { return &c.SMTP.MaxConnections }, 1, 100000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.SMTP.MaxConnections)) },
	}, {
		key: "smtp.max_commands", accepts: number, standard: []string{"1000"},
		help: "How many commands a sender may give without a message being accepted. Four for each recipient that a message may have come on top.",
		set:  integer(func(c *Config) *int { return &c.SMTP.MaxCommands }, 50, 1000000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.SMTP.MaxCommands)) },
	}, {
		key: "smtp.max_errors", accepts: number, standard: []string{"20"},
		help: "How many errors a sender may make on one connection, refused recipients not counted, before it is closed.",
		set:  integer(func(c *Config) *int { return &c.SMTP.MaxErrors }, 1, 10000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.SMTP.MaxErrors)) },
	}, {
		key: "smtp.max_refused", accepts: number, standard: []string{"50"},
		help: "How many recipients of one connection may be refused before it is closed. It keeps senders from trying names.",
		set:  integer(func(c *Config) *int { return &c.SMTP.MaxRefused }, 1, 10000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.SMTP.MaxRefused)) },
	}, {
		key: "smtp.greeting_pause", accepts: text, standard: []string{"0s"},
		help: "How long the server waits before it greets. A sender that talks meanwhile is no mail server and is turned away. 0s looks only whether it has talked already.",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.GreetingPause }, 0, 30*time.Second),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.GreetingPause)) },
	}, {
		key: "smtp.reject_hurried", accepts: flag, standard: []string{"true"},
		help: "Whether to turn away senders that go on talking without waiting for the answer to their greeting. No mail server does that.",
		set:  scalar(func(c *Config) *bool { return &c.SMTP.RejectHurried }, parseBool),
		get:  func(c *Config) []string { return present(strconv.FormatBool(c.SMTP.RejectHurried)) },
	}, {
		key: "smtp.reject_own_name", accepts: flag, standard: []string{"true"},
		help: "Whether to refuse senders from elsewhere that give the name of this machine as theirs. Set it to false when another machine of yours sends mail here by that name. Private networks may always.",
		set:  scalar(func(c *Config) *bool { return &c.SMTP.RejectOwnName }, parseBool),
		get:  func(c *Config) []string { return present(strconv.FormatBool(c.SMTP.RejectOwnName)) },
	}, {
		key: "smtp.greeting_timeout", accepts: text, standard: []string{"2m"},
		help: "How long a sender may take for its first command.",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.GreetingTimeout }, time.Second, time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.GreetingTimeout)) },
	}, {
		key: "smtp.command_timeout", accepts: text, standard: []string{"5m"},
		help: "How long a sender may take for a command. Five minutes is what the standard asks for (RFC 5321).",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.CommandTimeout }, time.Second, time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.CommandTimeout)) },
	}, {
		key: "smtp.data_timeout", accepts: text, standard: []string{"3m"},
		help: "How long a sender may be silent inside a message. Three minutes is what the standard asks for (RFC 5321).",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.DataTimeout }, time.Second, time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.DataTimeout)) },
	}, {
		key: "smtp.message_timeout", accepts: text, standard: []string{"1h"},
		help: "How long a whole message may take.",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.MessageTimeout }, time.Minute, 24*time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.MessageTimeout)) },
	}, {
		key: "smtp.handshake_timeout", accepts: text, standard: []string{"1m"},
		help: "How long the handshake for encryption may take.",
		set:  duration(func(c *Config) *time.Duration { return &c.SMTP.HandshakeTimeout }, time.Second, 10*time.Minute),
		get:  func(c *Config) []string { return present(showDuration(c.SMTP.HandshakeTimeout)) },
	}, {
		key: "smtp.min_rate", accepts: text | number, standard: []string{"200B"},
		help: "How much of a message has to come in a second, after the first minute. 0 is no limit.",
		set:  size(func(c *Config) *Size { return &c.SMTP.MinRate }, 0, mebi),
		get:  func(c *Config) []string { return present(c.SMTP.MinRate.String()) },
	}}
}

// pop3Settings are about fetching mail.
func pop3Settings() []setting {
	return []setting{{
		key: "pop3.listen", accepts: list, ports: true, standard: []string{":110"},
		help: "Where mail programs fetch mail, encrypted after they ask for it (STARTTLS). [] is nowhere.",
		set:  addresses(func(c *Config) *[]string { return &c.POP3.Listen }),
		get:  func(c *Config) []string { return c.POP3.Listen },
	}, {
		key: "pop3.listen_tls", accepts: list, ports: true, standard: []string{":995"},
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
		key: "pop3.max_connections", accepts: number, standard: []string{"6000"},
		help: "How many connections of mail programs may be open. More are told to come again later.",
		set:  integer(func(c *Config) *int { return &c.POP3.MaxConnections }, 1, 100000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.POP3.MaxConnections)) },
	}, {
		key: "pop3.max_commands", accepts: number, standard: []string{"50"},
		help: "How many commands a mail program may give before it has logged in.",
		set:  integer(func(c *Config) *int { return &c.POP3.MaxCommands }, 10, 10000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.POP3.MaxCommands)) },
	}, {
		key: "pop3.max_errors", accepts: number, standard: []string{"20"},
		help: "How many errors a mail program may make on one connection before it is closed.",
		set:  integer(func(c *Config) *int { return &c.POP3.MaxErrors }, 1, 10000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.POP3.MaxErrors)) },
	}, {
		key: "pop3.max_failed_logins", accepts: number, standard: []string{"3"},
		help: "How many logins may fail on one connection before it is closed.",
		set:  integer(func(c *Config) *int { return &c.POP3.MaxFailedLogins }, 1, 100),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.POP3.MaxFailedLogins)) },
	}, {
		key: "pop3.login_timeout", accepts: text, standard: []string{"2m"},
		help: "How long a mail program may take from the beginning to the login.",
		set:  duration(func(c *Config) *time.Duration { return &c.POP3.LoginTimeout }, time.Second, time.Hour),
		get:  func(c *Config) []string { return present(showDuration(c.POP3.LoginTimeout)) },
	}, {
		key: "pop3.handshake_timeout", accepts: text, standard: []string{"1m"},
		help: "How long the handshake for encryption may take.",
		set:  duration(func(c *Config) *time.Duration { return &c.POP3.HandshakeTimeout }, time.Second, 10*time.Minute),
		get:  func(c *Config) []string { return present(showDuration(c.POP3.HandshakeTimeout)) },
	}}
}

// tlsSettings are about certificates.
func tlsSettings() []setting {
	return []setting{{
		key: "tls.min_version", accepts: text, standard: []string{"1.2"},
		help: "The oldest version of TLS that is spoken: 1.2 or 1.3. Some mail servers that deliver speak 1.2 only.",
		set:  scalar(func(c *Config) *uint16 { return &c.TLS.MinVersion }, parseTLSVersion),
		get:  func(c *Config) []string { return present(showTLSVersion(c.TLS.MinVersion)) },
	}, {
		key: "tls.acme", accepts: flag, standard: []string{"false"},
		help: "Whether to get a certificate from a certificate authority by itself, and renew it. It takes a port that the authority can reach, see acme_http, and means that you accept the authority's terms of service.",
		set:  scalar(func(c *Config) *bool { return &c.TLS.ACME }, parseBool),
		get:  func(c *Config) []string { return present(strconv.FormatBool(c.TLS.ACME)) },
	}, {
		key: "tls.acme_email", accepts: text, standard: []string{""},
		help: "Whom the authority may write to.",
		set:  optional(scalar(func(c *Config) *string { return &c.TLS.ACMEEmail }, parseEmail)),
		get:  func(c *Config) []string { return present(c.TLS.ACMEEmail) },
	}, {
		key: "tls.acme_names", accepts: list, standard: []string{},
		help: "The host names that the certificate is for. [] is the hostname alone.",
		set:  hostnames(func(c *Config) *[]string { return &c.TLS.ACMENames }),
		get:  func(c *Config) []string { return c.TLS.ACMENames },
	}, {
		key: "tls.acme_http", accepts: list, ports: true, standard: []string{":80"},
		help: "Where the authority looks by HTTP whether the names are yours. It always comes to port 80. Nothing else is served there. [] is nowhere.",
		set:  addresses(func(c *Config) *[]string { return &c.TLS.ACMEHTTP }),
		get:  func(c *Config) []string { return c.TLS.ACMEHTTP },
	}, {
		key: "tls.acme_tls", accepts: list, ports: true, standard: []string{},
		help: "Where the authority looks by TLS whether the names are yours, instead of by HTTP. It always comes to port 443, \":443\". Nothing else is served there. [] is nowhere.",
		set:  addresses(func(c *Config) *[]string { return &c.TLS.ACMETLS }),
		get:  func(c *Config) []string { return c.TLS.ACMETLS },
	}, {
		key: "tls.acme_directory", accepts: text, standard: []string{"https://acme-v02.api.letsencrypt.org/directory"},
		help: "The certificate authority, by the URL of its ACME directory. The default is that of Let's Encrypt.",
		set:  scalar(func(c *Config) *string { return &c.TLS.ACMEDirectory }, parseURL),
		get:  func(c *Config) []string { return present(c.TLS.ACMEDirectory) },
	}, {
		key: "tls.acme_roots", accepts: text, standard: []string{""},
		help: "A file of certificates that the authority's own web server is checked with, for an authority that the system does not know.",
		set:  optional(setFile(func(c *Config) *string { return &c.TLS.ACMERoots })),
		get:  func(c *Config) []string { return present(c.TLS.ACMERoots) },
	}, {
		key: "tls.certificates", accepts: tables, fields: []string{"certificate", "key"},
		help: "Certificates for encryption, chosen by the name that a client asks for; the first is for all others. Without any the server makes a self-signed one, about which mail programs warn.",
		set:  setCertificates,
		get:  showCertificates,
	}}
}

// authSettings are about logins.
func authSettings() []setting {
	return []setting{{
		key: "auth.allow_plaintext", accepts: flag | list, standard: []string{"false"},
		help: "Whether passwords may be sent without encryption: false, true, or the networks they may come from, such as [\"127.0.0.0/8\", \"::1\"].",
		set: func(c *Config, v value) (err error) {
			c.Auth.AllowPlaintext, err = ParseNetworks(v.items)
			return err
		},
		get: func(c *Config) []string { return c.Auth.AllowPlaintext.items() },
	}, {
		key: "auth.failure_delay", accepts: text, standard: []string{"1s"},
		help: "How long a failed login takes at least. The more an address has failed, the longer it takes, up to eight times. 0s is no delay.",
		set:  duration(func(c *Config) *time.Duration { return &c.Auth.FailureDelay }, 0, 10*time.Second),
		get:  func(c *Config) []string { return present(showDuration(c.Auth.FailureDelay)) },
	}, {
		key: "auth.exempt", accepts: flag | list, standard: []string{"127.0.0.0/8", "::1/128"},
		help: "The networks whose addresses are not refused after many failed logins, since many people share them, such as that of a web mail program. Accounts are. false is none.",
		set: func(c *Config, v value) (err error) {
			c.Auth.Exempt, err = ParseNetworks(v.items)
			return err
		},
		get: func(c *Config) []string { return c.Auth.Exempt.items() },
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
	}}
}

// limitSettings are about both protocols.
func limitSettings() []setting {
	return []setting{{
		key: "limits.connections_per_address", accepts: number, standard: []string{"50"},
		help: "How many connections one address (or IPv6 /64) may have open, senders and mail programs by themselves. 0 is no limit. This machine itself has none.",
		set:  integer(func(c *Config) *int { return &c.Limits.PerAddress }, 0, 100000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.Limits.PerAddress)) },
	}, {
		key: "limits.connections_per_network", accepts: number, standard: []string{"200"},
		help: "How many connections one network (IPv4 /24, IPv6 /48) may have open. 0 is no limit.",
		set:  integer(func(c *Config) *int { return &c.Limits.PerNetwork }, 0, 100000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.Limits.PerNetwork)) },
	}, {
		key: "limits.new_connections_per_minute", accepts: number, standard: []string{"300"},
		help: "How many connections one address (or IPv6 /64) may begin in a minute. 0 is no limit.",
		set:  integer(func(c *Config) *int { return &c.Limits.PerMinute }, 0, 1000000),
		get:  func(c *Config) []string { return present(strconv.Itoa(c.Limits.PerMinute)) },
	}, {
		key: "limits.exempt", accepts: list, standard: []string{},
		help: "The addresses and networks that the limits of addresses and networks are not for, since many clients stand behind them: a filter or relay in front of this server, a second MX, a container's network. This machine itself always is.",
		set:  networks(func(c *Config) *Networks { return &c.Limits.Exempt }),
		get:  func(c *Config) []string { return c.Limits.Exempt.list() },
	}, {
		key: "limits.pause", accepts: text, standard: []string{"500ms"},
		help: "How much longer each answer takes to a client that goes on making errors or asking for recipients that do not exist, from the fourth on, up to ten times this. 0s is no pause.",
		set:  duration(func(c *Config) *time.Duration { return &c.Limits.Pause }, 0, 5*time.Second),
		get:  func(c *Config) []string { return present(showDuration(c.Limits.Pause)) },
	}}
}

// operationSettings are about how the server runs.
func operationSettings() []setting {
	return []setting{{
		key: "proxy.trusted", accepts: list, standard: []string{},
		help: "The addresses and networks of load balancers that come for others and say so by the PROXY protocol, which they must then. Never name one that others can come from.",
		set:  networks(func(c *Config) *Networks { return &c.Proxy.Trusted }),
		get:  func(c *Config) []string { return c.Proxy.Trusted.list() },
	}, {
		key: "sandbox.landlock", accepts: flag, standard: []string{"true"},
		help: "Whether the server gives up, once it has started, to reach any file but the data directory, the configuration and the certificates. It takes Linux 5.19 or later.",
		set:  scalar(func(c *Config) *bool { return &c.Sandbox.Landlock }, parseBool),
		get:  func(c *Config) []string { return present(strconv.FormatBool(c.Sandbox.Landlock)) },
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
		key: "metrics.listen", accepts: list, ports: true, standard: []string{},
		help: "Where programs of this machine ask how the server is doing, by HTTP, such as [\"127.0.0.1:9125\"]; see \"restante help metrics\". [] is nowhere.",
		set:  loopback(addresses(func(c *Config) *[]string { return &c.Metrics.Listen })),
		get:  func(c *Config) []string { return c.Metrics.Listen },
	}}
}
