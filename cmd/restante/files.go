package main

import (
	"syscall"

	"restante/cmd/restante/internal/config"
)

// connectionShares are how many connections each protocol may have open: what the
// settings say, or less where the system does not allow so many open files. A quarter
// of those is kept for mail and the directory, so that who is connected is served and
// who is too many is told so, instead of all waiting for files.
func connectionShares(c *config.Config) (smtp, pop3 int, fewer bool) {
	smtp, pop3 = c.SMTP.MaxConnections, c.POP3.MaxConnections
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return smtp, pop3, false
	}
	room, wanted := files.Cur-files.Cur/4, uint64(smtp+pop3)
	if wanted <= room {
		return smtp, pop3, false
	}
	share := func(n int) int { return max(1, int(uint64(n)*room/wanted)) }
	return share(smtp), share(pop3), true
}

// warnOfFiles tells that there are fewer connections than the settings say.
func (s *server) warnOfFiles(c *config.Config) {
	if smtp, pop3, fewer := connectionShares(c); fewer {
		s.log.Warn("the system allows too few open files for smtp.max_connections and pop3.max_connections: there are fewer connections (LimitNOFILE= in a systemd unit, ulimit -n elsewhere)",
			"smtp", smtp, "pop3", pop3)
	}
}
