package smtpd

import (
	"log/slog"
	"strconv"
	"strings"
)

const hidden = "(hidden)"

// traceLine logs a command line of a dialog that is traced.
func (w *wire) traceLine(line string) {
	if w.traced {
		w.trace("client", harmless(line))
	}
}

// harmless is a command line without what may be a password or a line of a message:
// nobody logs in here, but some try, and who does not wait for the reply to DATA sends
// the message also when it is refused. What can be read as an argument is shown.
func harmless(line string) string {
	verb, arg, _ := strings.Cut(line, " ")
	name := strings.ToUpper(verb)
	if commands[name] == nil {
		return hidden
	}
	arg = strings.Trim(arg, " \t")
	switch {
	case arg == "":
		return verb
	case (name == "EHLO" || name == "HELO") && isHello(arg):
		return verb + " " + arg
	case name == "MAIL":
		return verb + harmlessPath(arg, "FROM:")
	case name == "RCPT":
		return verb + harmlessPath(arg, "TO:")
	}
	return verb + " " + hidden
}

// harmlessPath shows the path of MAIL or RCPT, and those of its parameters that tell
// nothing else than they should.
func harmlessPath(arg, prefix string) string {
	path, params, ok := pathOf(arg, prefix)
	if !ok {
		return " " + hidden
	}
	text := " " + prefix + "<" + path.String() + ">"
	for _, p := range strings.Fields(params) {
		key, value, _ := strings.Cut(strings.ToUpper(p), "=")
		switch {
		case strings.EqualFold(p, "SMTPUTF8"):
		case key == "BODY" && (value == "7BIT" || value == "8BITMIME" || value == "BINARYMIME"):
		case key == "SIZE" && value != "" && strings.Trim(value, "0123456789") == "":
		default:
			return text + " " + hidden
		}
		text += " " + p
	}
	return text
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
