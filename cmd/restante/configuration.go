package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"restante/auth"
	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
	"restante/smtpd"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and check the configuration",
		RunE:  group,
	}
	cmd.AddCommand(a.configCheck(), a.configShow())
	return cmd
}

func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, the data directory and the certificates",
		Long: `Check the configuration, the data directory and the certificates as the server
would find them, and show what it would use. It is safe while a server runs.`,
		Args: arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if err := becomeOwner(c.DataDir); err != nil {
				return err
			}
			if err := checkDataDir(c.DataDir); err != nil {
				return err
			}
			infos, err := certs.Check(certificateOptions(c))
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s is fine\n\n", a.configFile())
			rows := checkRows(c, infos)
			for _, risk := range risks(c, infos, a.configFile()) {
				rows = append(rows, []string{"risk", risk})
			}
			return table(a.stdout, "hostname | "+c.Hostname, rows)
		},
	}
}

// settingRow is one setting in "config show --json".
type settingRow struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Origin  string `json:"origin"`
	Help    string `json:"help"`
}

func (a *app) configShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show every setting, its default, where it comes from and what it means",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			var rows []settingRow
			for _, s := range c.Settings() {
				rows = append(rows, settingRow(s))
			}
			if asJSON {
				return writeJSON(a.stdout, rows)
			}
			for _, r := range rows {
				if _, err := fmt.Fprintf(a.stdout, "%s = %s\n    %s; default: %s\n    %s\n", r.Key, orDash(r.Value), r.Origin, orDash(r.Default), r.Help); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func checkRows(c *config.Config, infos []certs.Info) [][]string {
	rows := [][]string{{"data directory", c.DataDir}}
	for _, l := range ports(c) {
		rows = append(rows, []string{string(l.protocol), l.address})
	}
	for _, info := range infos {
		rows = append(rows, []string{"certificate", info.String()})
		for _, w := range info.Warnings {
			rows = append(rows, []string{"warning", w})
		}
	}
	if len(infos) == 0 {
		rows = append(rows, []string{"certificate", "self-signed, made by the server"})
	}
	return rows
}

// smtpConfig is what the SMTP receiver takes of the settings.
func (s *server) smtpConfig(c *config.Config) smtpd.Config {
	var observer smtpd.Observer
	if s.metrics != nil {
		observer = smtpCounts{s.metrics}
	}
	return smtpd.Config{
		Hostname:       c.Hostname,
		TLS:            s.certs.Config(),
		MaxMessageSize: int64(c.SMTP.MaxMessageSize),
		MaxRecipients:  c.SMTP.MaxRecipients,

		MaxCommands:      c.SMTP.MaxCommands,
		MaxErrors:        c.SMTP.MaxErrors,
		MaxRefused:       c.SMTP.MaxRefused,
		Exempt:           c.Limits.Exempt.Allows,
		Pause:            c.Limits.Pause,
		GreetingPause:    c.SMTP.GreetingPause,
		RejectHurried:    c.SMTP.RejectHurried,
		RejectOwnName:    c.SMTP.RejectOwnName,
		GreetingTimeout:  c.SMTP.GreetingTimeout,
		CommandTimeout:   c.SMTP.CommandTimeout,
		DataTimeout:      c.SMTP.DataTimeout,
		MessageTimeout:   c.SMTP.MessageTimeout,
		HandshakeTimeout: c.SMTP.HandshakeTimeout,
		MinRate:          int64(c.SMTP.MinRate),

		LocalDomain: firstDomain(s.users),
		Observer:    observer,
		Traced:      tracing(c),
	}
}

// tracing tells whose dialogs are logged; nil: nobody's.
func tracing(c *config.Config) func(netip.Addr, string) bool {
	if c.Log.Level > slog.LevelDebug || c.Log.Trace.Empty() {
		return nil
	}
	return c.Log.Trace.By(canonicalName)
}

// canonicalName is the name of a mailbox as the directory has it. What cannot be one
// stays as it is, in lower case.
func canonicalName(user string) string {
	a, err := auth.ParseAddress(user)
	if err != nil {
		return strings.ToLower(user)
	}
	return a.String()
}

func hashParams(c *config.Config) auth.HashParams {
	return auth.HashParams{
		Memory:  uint32(int64(c.Auth.Argon2Memory) / 1024),
		Time:    uint32(c.Auth.Argon2Time),
		Threads: uint8(c.Auth.Argon2Threads),
	}
}

func pairs(c *config.Config) []certs.Pair {
	var p []certs.Pair
	for _, t := range c.TLS.Certificates {
		p = append(p, certs.Pair{Certificate: t.Certificate, Key: t.Key})
	}
	return p
}

// certificateOptions are about the configured certificates, the one from an
// authority, and the self-signed one under the data directory, which is made when
// there is no other.
func certificateOptions(c *config.Config) certs.Options {
	o := certs.Options{Pairs: pairs(c), SelfSignedDir: selfSignedDir(c), Hostname: c.Hostname, MinVersion: c.TLS.MinVersion}
	if c.Hostname == "localhost" {
		o.ExtraNames = []string{"127.0.0.1", "::1"}
	}
	if c.TLS.ACME {
		o.Fetched = acmeConfig(c).File()
	}
	return o
}

func selfSignedDir(c *config.Config) string { return filepath.Join(c.DataDir, "tls") }

// protocol is what is spoken on a port.
type protocol string

const (
	protocolSMTP  protocol = "smtp"
	protocolPOP3  protocol = "pop3"
	protocolPOP3S protocol = "pop3s"
	// protocolMetrics is HTTP, for programs of this machine.
	protocolMetrics protocol = "metrics"
	// Where an authority sees that host names are ours.
	protocolACMEHTTP protocol = "acme-http"
	protocolACMETLS  protocol = "acme-tls"
)

// port is an address to listen on.
type port struct {
	protocol protocol
	address  string
}

// mail tells whether clients of mail come to the port.
func (p port) mail() bool {
	return p.protocol == protocolSMTP || p.protocol == protocolPOP3 || p.protocol == protocolPOP3S
}

// authority tells whether an authority comes to the port, and nobody else.
func (p port) authority() bool {
	return p.protocol == protocolACMEHTTP || p.protocol == protocolACMETLS
}

// boundPort is a port that is open.
type boundPort struct {
	protocol protocol
	net.Listener
}

// ports are all addresses that the settings name.
func ports(c *config.Config) []port {
	type group struct {
		protocol  protocol
		addresses []string
	}
	groups := []group{{protocolSMTP, c.SMTP.Listen}, {protocolPOP3, c.POP3.Listen}, {protocolPOP3S, c.POP3.ListenTLS}, {protocolMetrics, c.Metrics.Listen}}
	if c.TLS.ACME {
		groups = append(groups, group{protocolACMEHTTP, c.TLS.ACMEHTTP}, group{protocolACMETLS, c.TLS.ACMETLS})
	}
	var ps []port
	for _, group := range groups {
		for _, address := range group.addresses {
			ps = append(ps, port{group.protocol, address})
		}
	}
	return ps
}
