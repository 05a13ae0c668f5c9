package pop3d

import (
	"bytes"
	"context"
	"math"
)

// command is one line of a state's table.
type command struct {
	usage string // shown when the arguments are wrong
	// A command takes between min and max numbers: a message, then a count of
	// lines. With text set it takes the rest of the line as it stands, which
	// may be empty only if min is 0.
	min, max int
	text     bool
	run      func(*session, context.Context, arguments) reply
}

// arguments of a command after they were checked.
type arguments struct {
	numbers int
	number  [2]int
	text    []byte // valid until the next line is read
}

// index of the message that the first number names; valid once the session
// found it to exist.
func (a arguments) index() int { return a.number[0] - 1 }

// commands has, for each state, the commands legal in it (RFC 1939 sections
// 4, 5 and 7, RFC 2449 section 5, RFC 2595 section 4, RFC 5034 section 4, RFC
// 6856 sections 2 and 3).
var commands = [...]map[string]command{
	authorization: {
		"USER": {usage: "USER name", min: 1, text: true, run: (*session).user},
		"PASS": {usage: "PASS password", min: 1, text: true, run: (*session).pass},
		"AUTH": {usage: "AUTH [mechanism [response]]", text: true, run: (*session).auth},
		"STLS": {usage: "STLS", run: (*session).stls},
		"CAPA": {usage: "CAPA", run: (*session).capa},
		"UTF8": {usage: "UTF8", run: (*session).utf8},
		"LANG": {usage: "LANG [language]", text: true, run: (*session).lang},
		"QUIT": {usage: "QUIT", run: (*session).leave},
	},
	transaction: {
		"STAT": {usage: "STAT", run: (*session).stat},
		"LIST": {usage: "LIST [message]", max: 1, run: (*session).list},
		"UIDL": {usage: "UIDL [message]", max: 1, run: (*session).uidl},
		"RETR": {usage: "RETR message", min: 1, max: 1, run: (*session).retr},
		"TOP":  {usage: "TOP message lines", min: 2, max: 2, run: (*session).top},
		"DELE": {usage: "DELE message", min: 1, max: 1, run: (*session).dele},
		"RSET": {usage: "RSET", run: (*session).rset},
		"NOOP": {usage: "NOOP", run: (*session).noop},
		"CAPA": {usage: "CAPA", run: (*session).capa},
		"LANG": {usage: "LANG [language]", text: true, run: (*session).lang},
		"QUIT": {usage: "QUIT", run: (*session).quit},
	},
}

// splitCommand cuts a command line, without its line end, after the keyword,
// which it makes upper-case in place (keywords are case-insensitive).
func splitCommand(line []byte) (keyword, rest []byte) {
	keyword, rest, _ = bytes.Cut(line, []byte(" "))
	for i, c := range keyword {
		if 'a' <= c && c <= 'z' {
			keyword[i] = c - 'a' + 'A'
		}
	}
	return keyword, rest
}

// parse checks what follows the keyword. Spaces around numbers are harmless.
func (c command) parse(rest []byte) (arguments, bool) {
	if c.text {
		return arguments{text: rest}, len(rest) >= c.min
	}
	var a arguments
	for {
		rest = bytes.TrimLeft(rest, " ")
		if len(rest) == 0 {
			return a, a.numbers >= c.min
		}
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte(" "))
		n, ok := parseNumber(field)
		if !ok || a.numbers == c.max {
			return a, false
		}
		a.number[a.numbers] = n
		a.numbers++
	}
}

// parseNumber reads decimal digits, nothing else. A number too large for an int
// becomes the largest one.
func parseNumber(digits []byte) (int, bool) {
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt-9)/10 {
			n = math.MaxInt
			continue
		}
		n = n*10 + int(c-'0')
	}
	return n, len(digits) > 0
}
