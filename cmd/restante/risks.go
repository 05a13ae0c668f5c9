package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
)

// risks are settings that work, and that their owner should know the price of.
func risks(c *config.Config, infos []certs.Info, configFile string) []string {
	var found []string
	risk := func(on bool, format string, args ...any) {
		if on {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	risk(c.Auth.AllowPlaintext.Beyond(), "auth.allow_plaintext: passwords may cross the network where others can read them, from %s", c.Auth.AllowPlaintext)
	risk(len(c.POP3.ListenTLS) == 0 && len(c.POP3.Listen) > 0, "pop3.listen_tls: there is no port that is encrypted from the start, and who is between a mail program and the server may keep it from asking for encryption")
	risk(!slices.ContainsFunc(infos, func(i certs.Info) bool { return !i.SelfSigned }) && !c.TLS.ACME && c.Hostname != "localhost",
		"tls: the certificate is self-signed, so mail programs warn, and their users learn to ignore it; see tls.acme")
	risk(c.Limits.PerAddress == 0, "limits.connections_per_address: one client may take all connections")
	risk(c.Limits.PerNetwork == 0, "limits.connections_per_network: the clients of one network may take all connections")
	risk(c.Limits.PerMinute == 0, "limits.new_connections_per_minute: one client may come as often as it likes")
	risk(c.Limits.Exempt.All(), "limits.exempt: the limits of addresses and networks hold for nobody")
	risk(c.Limits.Pause == 0, "limits.pause: who makes errors or tries names is answered as fast as everybody else")
	risk(c.SMTP.MinRate == 0, "smtp.min_rate: a sender may hold a connection for an hour with a few octets")
	risk(c.Auth.FailureDelay == 0, "auth.failure_delay: wrong passwords are answered at once")
	risk(c.Auth.Exempt.Beyond(), "auth.exempt: addresses that are not of this machine may guess passwords without end: %s", c.Auth.Exempt)
	risk(c.Auth.Argon2Memory < config.Default().Auth.Argon2Memory, "auth.argon2_memory: stolen hashes are easier to break than with the default")
	risk(c.Proxy.Trusted.All(), "proxy.trusted: everybody may pretend to come from anywhere")
	risk(!c.Sandbox.Landlock, "sandbox.landlock: a fault in the server could reach other files of its user")
	risk(c.User == "root", "user: a fault in the server could reach everything on this machine")
	risk(c.Log.Level <= slog.LevelDebug && !c.Log.Trace.Empty(), "log.trace: dialogs with %s are in the log", c.Log.Trace)
	for _, path := range []string{c.DataDir, configFile} {
		st, err := os.Stat(path)
		others := os.FileMode(0o022) // who may write the settings owns the server
		if path == c.DataDir {
			others = 0o077
		}
		if err == nil && st.Mode().Perm()&others != 0 {
			found = append(found, fmt.Sprintf("%s is open to others (mode %04o); close it with: chmod go-%s %s", path, st.Mode().Perm(), map[bool]string{true: "rwx", false: "w"}[path == c.DataDir], path))
		}
	}
	return found
}
