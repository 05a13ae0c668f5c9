package main

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// lineEnds are what some program ends a line at, obeys, or makes such of.
func lineEnds() []string {
	return []string{"\r", "\n", "\r\n", "\n\r", "\r\r\n", "\r\n ", "\r\n\t", "\x00", "\x00\r\n", "\v", "\f", "\b", "\x1b[2J\x1b]0;x\x07", "\x7f", "\x1a", "\x04",
		"\u0085", "\u009b", "\u2028", "\u2029", "\u202e", "\u2066", "\u200e", "\u061c", "\u200b", "\ufeff", "\U000e0001", "\xc0\x8a", "\xc0\x8d\xc0\x8a", "\xe0\x80\x8a",
		"\x85", "\xff", "\xed\xa0\x80", "\u560d\u560a", "\u010a", "\uff0a", "\u240a", "%0d%0a", "=0D=0A", "=?utf-8?q?=0D=0A?=", `\r\n`, `\012`, "&#10;", "\\", `"`, "\\\n"}
}

// An evilStep is a command with something in it that is to become a line.
type evilStep struct {
	step    int // of the good ones that it stands for
	command string
}

func goodSteps() []string {
	return []string{"EHLO client.example", "MAIL FROM:<sender@client.example> SMTPUTF8", "RCPT TO:<alice@example.org>"}
}

func evilSteps(evil string) []evilStep {
	const (
		hello = iota
		mail
		rcpt
	)
	evil += "X-Forged: yes"
	return []evilStep{
		{hello, "EHLO client.example" + evil}, {hello, "HELO " + evil + ".example"}, {hello, "EHLO [127.0.0.1" + evil + "]"},
		{mail, "MAIL FROM:<sender" + evil + "@client.example> SMTPUTF8"}, {mail, `MAIL FROM:<"sender` + evil + `"@client.example> SMTPUTF8`},
		{mail, "MAIL FROM:<sender@client" + evil + ".example> SMTPUTF8"}, {mail, "MAIL FROM:<sender@client.example" + evil + "> SMTPUTF8"},
		{mail, "MAIL FROM:<@route" + evil + ".example:sender@client.example> SMTPUTF8"}, {mail, "MAIL FROM:<sender@client.example>" + evil},
		{mail, "MAIL FROM:<sender@client.example> SMTPUTF8 SIZE=100" + evil}, {mail, "MAIL FROM:<sender@client.example> BODY=8BITMIME" + evil},
		{mail, "MAIL FROM:<sender@client.example> SMTPUTF8" + evil}, {mail, "MAIL FROM:<sender@client.example> AUTH=<>" + evil},
		{mail, "MAIL FROM:<sender@client.example> ENVID=" + evil}, {mail, "MAIL FROM:<sender" + strings.ReplaceAll(evil, ": ", "") + "@client.example> SMTPUTF8"},
		{rcpt, "RCPT TO:<alice+" + evil + "@example.org>"}, {rcpt, `RCPT TO:<"alice+` + evil + `"@example.org>`}, {rcpt, "RCPT TO:<alice@example.org" + evil + ">"},
		{rcpt, "RCPT TO:<alice+" + strings.ReplaceAll(evil, ": ", "") + "@example.org>"}, {rcpt, "RCPT TO:<alice@[127.0.0.1" + evil + "]>"},
		{rcpt, "RCPT TO:<alice@example.org> ORCPT=rfc822;" + evil}, {rcpt, "RCPT TO:<alice@example.org>" + evil}, {rcpt, evil},
	}
}

// deliverEvil sends a message with one evil command in the dialog. Where that is
// refused, the good one follows it.
func (d *caller) deliverEvil(evil evilStep) {
	d.t.Helper()
	d.allow(deadline)
	for i, good := range goodSteps() {
		if i == evil.step {
			d.write(evil.command + "\r\n")
			if strings.Contains(codes(d.replies()), "250") {
				continue
			}
		}
		d.want(good, "250 ")
	}
	d.want("DATA", "354 ")
	d.write("Subject: innocent\r\n\r\n")
	d.want(".", "250 ")
}

// traceLines is all that delivery may add: three fields, without a character that
// ends a line somewhere or turns its direction.
var traceLines = regexp.MustCompile(strings.ReplaceAll(`^Return-Path: <TEXT*>\r\nDelivered-To: TEXT+\r\n`+
	`Received: from [!-~]+ \(\[127\.0\.0\.1\]\)\r\n\tby localhost with (UTF8SMTP|ESMTP|SMTP)\r\n\tid [a-z0-9]{16} for <TEXT+>;\r\n\t[ -~]+\r\n$`,
	"TEXT", `[^\p{Cc}\p{Zl}\p{Zp}\x{61c}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]`))

// TestForgeHeader: whatever stands in HELO, MAIL and RCPT, it makes no line of its own
// in the message and none in the log, where dialogs are traced.
func TestForgeHeader(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			o := tolerant("RESTANTE_LOG_FORMAT="+format, "RESTANTE_LOG_LEVEL=debug", "RESTANTE_LOG_TRACE=127.0.0.1")
			s := prepareServer(t, o)
			restante(t, s.config, testPassword+"\n", "user", "add", "alice@"+testDomain, "--password-stdin")
			s.startAny(t, o.env...)
			sent := 0
			for _, end := range lineEnds() {
				d := s.talk(t, "smtp")
				d.want("EHLO client.example", "250 ")
				for _, evil := range evilSteps(end) {
					d.deliverEvil(evil)
					sent++
				}
				d.want("QUIT", "221 ")
			}
			all := s.fetchAll(t, "alice")
			if len(all) != sent {
				t.Errorf("%d messages of %d came", len(all), sent)
			}
			for _, message := range all {
				if trace, ok := strings.CutSuffix(string(message), "Subject: innocent\r\n\r\n"); !ok || !traceLines.MatchString(trace) {
					t.Errorf("%q", message)
				}
			}
			s.stop(syscall.SIGTERM)
			s.onlyOwnLines(t, format, sent)
		})
	}
}

// onlyOwnLines looks at each line of the log, of which so many are about accepted messages.
func (s *testServer) onlyOwnLines(t *testing.T, format string, accepted int) {
	t.Helper()
	beginning := map[string]string{"json": `{"time":"`, "text": "time="}[format]
	isMessage := map[string]string{"json": `,"msg":"message accepted",`, "text": ` msg="message accepted" `}[format]
	for line := range strings.Lines(s.log.text()) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, beginning) || strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("in the log: %q", line)
		}
		if format == "json" && json.Unmarshal([]byte(line), new(map[string]any)) != nil {
			t.Errorf("not JSON: %q", line)
		}
		if strings.Contains(line, isMessage) {
			accepted--
		}
	}
	if accepted != 0 {
		t.Errorf("%d accepted messages more than lines about them in the log", accepted)
	}
}
