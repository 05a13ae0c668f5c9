package smtpd

import (
	"log/slog"
	"strconv"
	"strings"
)

// traceLine logs a command line of a dialog that is traced. What may be a password
// is hidden, and that is all that is no command: nobody logs in here, but some try.
func (w *wire) traceLine(line string) {
	if !w.traced {
		return
	}
	verb, _, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); {
	case verb == "AUTH":
		line = "AUTH (hidden)"
	case commands[verb] == nil:
		line = "(hidden)"
	}
	w.trace("client", line)
}

// trace logs lines of a dialog that is traced.
func (w *wire) trace(who, lines string) {
	if !w.traced {
		return
	}
	for line := range strings.Lines(lines) {
		w.log.LogAttrs(w.server.ctx, slog.LevelDebug, "trace", slog.String("from", who), slog.String("line", clip(strings.TrimRight(line, "\r\n"))))
	}
}

// traceMessage logs that a message came, and nothing of what is in it.
func (w *wire) traceMessage(octets int64) {
	w.trace("client", "(message of "+strconv.FormatInt(octets, 10)+" octets)")
}

// follow traces the dialog from here on if it is about a traced user.
func (w *wire) follow(mailboxes []string) {
	if w.traced || w.config.Traced == nil {
		return
	}
	for _, name := range mailboxes {
		if w.config.Traced(w.remote, name) {
			w.traced = true
			w.trace("client", "RCPT TO:<"+w.path.String()+">")
			return
		}
	}
}
