package pop3d

import (
	"context"
	"log/slog"
	"strings"
)

// shown are the commands that are in a trace as they are. Anything else may be a
// password, also what is no command: people slip, and programs send the response
// to a mechanism that was refused.
var shown = map[string]bool{
	"USER": true, "CAPA": true, "LANG": true, "UTF8": true, "STLS": true, "QUIT": true, "NOOP": true, "RSET": true,
	"STAT": true, "LIST": true, "UIDL": true, "RETR": true, "TOP": true, "DELE": true,
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
	keyword, args, _ := strings.Cut(string(line), " ")
	switch name := strings.ToUpper(keyword); {
	case shown[name]:
		c.trace("client", strings.TrimRight(keyword+" "+args, " "))
	case name == "AUTH":
		mechanism, _, response := strings.Cut(args, " ")
		if response {
			mechanism += " " + hidden
		}
		c.trace("client", strings.TrimRight(keyword+" "+mechanism, " "))
	case name == "PASS":
		c.trace("client", keyword+" "+hidden)
	default:
		c.trace("client", hidden)
	}
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
	for _, name := range []string{c.session.name, c.session.login.Mailbox} {
		if name != "" && c.config.Traced(c.session.remote, name) {
			c.traced = true
			c.trace("client", "(from here on: "+name+")")
			return
		}
	}
}
