package smtpd

import (
	"crypto/tls"
	"math"
	"strconv"
	"strings"
	"time"
)

// commands has what the wire does with each verb: it gives the line that
// go-smtp is to see, or "" when it has answered by itself. Whatever is not
// here is unknown (500), whatever has a name but is not offered is 502.
var commands = map[string]func(w *wire, arg string) string{
	"EHLO":     func(w *wire, arg string) string { return w.hello(arg, true) },
	"HELO":     func(w *wire, arg string) string { return w.hello(arg, false) },
	"MAIL":     (*wire).mail,
	"RCPT":     (*wire).rcpt,
	"DATA":     func(w *wire, arg string) string { return w.bare(arg, "DATA\r\n", true) },
	"RSET":     func(w *wire, arg string) string { return w.bare(arg, "RSET\r\n", false) },
	"QUIT":     func(w *wire, arg string) string { return w.bare(arg, "QUIT\r\n", false) },
	"NOOP":     func(*wire, string) string { return "NOOP\r\n" },
	"VRFY":     (*wire).verify,
	"STARTTLS": (*wire).startTLS,
	"BDAT":     (*wire).chunk,
	"AUTH":     (*wire).notHere,
	"ETRN":     (*wire).notHere,
	"EXPN":     (*wire).notHere,
	"HELP":     (*wire).notHere,
	"LHLO":     (*wire).notHere,
	"SAML":     (*wire).notHere,
	"SEND":     (*wire).notHere,
	"SOML":     (*wire).notHere,
	"TURN":     (*wire).notHere,
}

// command deals with one clean line.
func (w *wire) command(line string) {
	if w.commands++; w.commands > w.config.maxCommands() {
		w.answer(replyTooManyCommands)
		return
	}
	verb, arg, _ := strings.Cut(strings.TrimRight(line, " \t"), " ")
	do, ok := commands[strings.ToUpper(verb)]
	if browsers[verb] {
		w.hangUp(replyBrowser)
		return
	}
	if !ok || !isASCII(verb) { // there are letters elsewhere whose upper case is ASCII
		w.answer(replyUnknown)
		return
	}
	w.verb = strings.ToUpper(verb)
	w.stray = w.stray && (w.verb == "RCPT" || w.verb == "DATA")
	w.line = do(w, strings.Trim(arg, " \t"))
}

// refuse answers by itself.
func (w *wire) refuse(r reply) string {
	w.answer(r)
	return ""
}

func (w *wire) notHere(string) string { return w.refuse(replyNotHere) }

// bare is a command without an argument.
func (w *wire) bare(arg, line string, needsHello bool) string {
	switch {
	case arg != "":
		return w.refuse(replyNoArgument)
	case needsHello && w.helo == "":
		return w.refuse(replyNoHello)
	}
	return line
}

func (w *wire) verify(arg string) string {
	if arg == "" {
		return w.refuse(replyBadArgument)
	}
	return "VRFY x\r\n"
}

// hello keeps the name, which is going to stand in a header, and gives
// go-smtp another.
func (w *wire) hello(arg string, esmtp bool) string {
	if !isHello(arg) {
		return w.refuse(replyBadHello)
	}
	if w.forged(arg) {
		return w.refuse(replyForged)
	}
	if w.hurried() {
		return w.hangUp(replyHurried)
	}
	w.helo, w.esmtp = arg, esmtp
	w.show()
	if esmtp {
		return "EHLO x\r\n"
	}
	return "HELO x\r\n"
}

func (w *wire) mail(arg string) string {
	if w.helo == "" {
		return w.refuse(replyNoHello)
	}
	path, params, ok := pathOf(arg, "FROM:")
	if !ok || path.local != "" && path.domain == "" {
		return w.refuse(replyBadSender)
	}
	if strings.Contains(strings.ToUpper(params), " SMTPUTF8=") {
		return w.refuse(replyBadParam) // it has no value (RFC 6531 section 3.4)
	}
	w.path = path
	return "MAIL FROM:<x@x>" + clampSize(params) + "\r\n"
}

func (w *wire) rcpt(arg string) string {
	if w.helo == "" {
		return w.refuse(replyNoHello)
	}
	path, params, ok := pathOf(arg, "TO:")
	if !ok || path.local == "" {
		return w.refuse(replyBadRcpt)
	}
	w.path = path
	return "RCPT TO:<x@x>" + params + "\r\n"
}

// pathOf reads "FROM:<path> parameters", with spaces after the colon allowed.
func pathOf(arg, prefix string) (path address, params string, ok bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return path, "", false
	}
	return parsePath(strings.TrimLeft(arg[len(prefix):], " "))
}

// clampSize makes a SIZE of RFC 1870 (20 digits) one that go-smtp takes (32
// bits); both are too large for any server that uses it.
func clampSize(params string) string {
	fields := strings.Fields(params)
	for i, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		if !strings.EqualFold(key, "SIZE") || strings.Trim(value, "0123456789") != "" || value == "" {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err != nil || n > math.MaxUint32 {
			fields[i] = "SIZE=" + strconv.FormatUint(math.MaxUint32, 10)
			return " " + strings.Join(fields, " ")
		}
	}
	return params
}

// chunk refuses BDAT, which is not offered. The chunk follows in any case and
// must not be read as commands; it has the time of a command.
func (w *wire) chunk(arg string) string {
	size, _, _ := strings.Cut(arg, " ")
	n, err := strconv.ParseUint(size, 10, 63)
	if err != nil {
		return w.refuse(replyBadArgument)
	}
	if n > uint64(w.config.MaxMessageSize)*swallowFactor {
		return w.refuse(replyTooMuch)
	}
	if err := w.in.discard(int64(n)); err != nil {
		w.end(err)
		return ""
	}
	return w.refuse(replyNotHere)
}

func (w *wire) startTLS(arg string) string {
	switch {
	case arg != "":
		return w.refuse(replyNoArgument)
	case w.config.TLS == nil:
		return w.refuse(replyNotHere)
	case w.tls != nil:
		return w.refuse(replyTLSActive)
	}
	w.answer(replyReady)
	if err := w.secure(); err != nil {
		w.log.Info("TLS handshake failed", "error", clip(err.Error()))
		w.closing = true
	}
	return ""
}

// secure puts TLS between the network and the wire. All that was read in the
// clear ahead of the handshake is dropped, the greeting is forgotten (RFC 3207
// section 4.2); the envelope goes when the next greeting comes, which must be
// before any other step.
func (w *wire) secure() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.in.drop()
	w.helo = ""
	w.until = time.Now().Add(w.config.HandshakeTimeout)
	if err := w.arm(); err != nil {
		return err
	}
	conn := tls.Server(w.raw, w.config.TLS)
	if err := conn.HandshakeContext(w.server.ctx); err != nil {
		return err
	}
	state := conn.ConnectionState()
	w.Conn, w.tls = conn, &state
	return nil
}
