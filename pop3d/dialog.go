package pop3d

import (
	"context"
	"log/slog"
	"strings"
)

// shown has, for each command that is in a trace, which of its words are shown.
// Anything else may be a password, also what is no command: people slip, and
// programs send the response to a mechanism that was refused.
var shown = map[string]func(n int, word string) bool{
	"USER": func(n int, _ string) bool { return n == 0 },
	"AUTH": func(n int, word string) bool { return n == 0 && mechanisms[strings.ToUpper(word)] },
	"LANG": func(_ int, word string) bool { return word == "*" || strings.EqualFold(word, languageEnglish) },
	"PASS": never, "CAPA": never, "UTF8": never, "STLS": never, "QUIT": never, "NOOP": never, "RSET": never, "STAT": never,
	"LIST": digits, "UIDL": digits, "RETR": digits, "TOP": digits, "DELE": digits,
}

func never(int, string) bool { return false }

func digits(_ int, word string) bool {
	_, ok := parseNumber([]byte(word))
	return ok
}

// mechanisms are the names that clients try, ours or not. What else comes after AUTH
// may be a response.
var mechanisms = map[string]bool{
	"PLAIN": true, "LOGIN": true, "CRAM-MD5": true, "DIGEST-MD5": true, "NTLM": true, "GSSAPI": true, "GSS-SPNEGO": true,
	"EXTERNAL": true, "ANONYMOUS": true, "XOAUTH2": true, "OAUTHBEARER": true,
	"SCRAM-SHA-1": true, "SCRAM-SHA-1-PLUS": true, "SCRAM-SHA-256": true, "SCRAM-SHA-256-PLUS": true,
}

const hidden = "(hidden)"

// maxTraced is how much of a line a trace shows, octets.
const maxTraced = 512

func (c *conn) trace(who, line string) {
	if len(line) > maxTraced {
		line = strings.ToValidUTF8(line[:maxTraced], "") + "..."
	}
	c.log.LogAttrs(context.Background(), slog.LevelDebug, "trace", slog.String("from", who), slog.String("line", line))
}

// traceLine logs a line of the client's, if that is asked for, without passwords.
func (c *conn) traceLine(line []byte) {
	if !c.traced {
		return
	}
	if c.session.state == exchange {
		c.trace("client", hidden)
		return
	}
	c.trace("client", harmless(string(line)))
}

// harmless is a command without what may be a password: from the first such word on
// the line is hidden.
func harmless(line string) string {
	keyword, rest, _ := strings.Cut(line, " ")
	isShown, known := shown[strings.ToUpper(keyword)]
	if !known {
		return hidden
	}
	for n, word := range strings.Fields(rest) {
		if !isShown(n, word) {
			return keyword + " " + hidden
		}
		keyword += " " + word
	}
	return keyword
}

// traceReply logs the first line of a reply, and nothing of what follows it.
func (c *conn) traceReply(r reply) {
	if !c.traced {
		return
	}
	line := r.status
	if r.code != "" {
		line += " [" + r.code + "]"
	}
	line += " " + r.text
	if r.status == continuation {
		line = r.status + " " + hidden // it may show what the client has said
	}
	if r.body != nil {
		line += " (and more lines)"
	}
	c.trace("server", line)
}

// follow traces the dialog from here on if its user is traced.
func (c *conn) follow() {
	if c.traced || c.config.Traced == nil {
		return
	}
	for _, name := range []string{c.session.name, c.session.claimed, c.session.login.Mailbox} {
		if name != "" && c.config.Traced(c.session.remote, name) {
			c.traced = true
			c.trace("client", "(from here on: "+name+")")
			return
		}
	}
}
