package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// TestDialogs plays every file of testdata/dialogs against a server of its own,
// which has the domain example.org with the users alice and bob. A line of a
// dialog is empty, a comment after "#", a setting of the server ("#! KEY =
// VALUE") or a step. TEXT in a step may have the escapes of Go: \r, \x00, \\.
//
//	connect PORT [NAME]    a new connection to smtp, pop3 or pop3s
//	ehlo [NAME]            the same to smtp, with greeting and EHLO client.example
//	login USER [NAME]      the same to pop3s, with greeting, USER and PASS; again
//	                       while an earlier session has not let go of the maildrop
//	on NAME                go on with another connection; one without a name is ""
//	C: TEXT                send TEXT and CRLF
//	C+ TEXT                send TEXT
//	S: PATTERN             the next line received is this; * is any characters,
//	                       {name} too, and every {name} in a dialog is the same
//	S> PATTERN             skip lines up to one that is this
//	octets {name}          skip the rest of a POP3 reply with a body: so many octets,
//	                       dots taken off, the end not counted
//	N x STEP               do STEP N times
//	tls                    a TLS handshake as a client
//	EOF                    the server has closed the connection
//	hang up                close the connection
//	$ ARGS                 run "restante ARGS"; a password it asks for is testPassword
//	stop                   end the server with SIGTERM; it exits with 0
//	start                  start the server again
//	mailbox USER N         USER's mailbox comes to hold N messages
//	file USER PATH TEXT    write a file into USER's Maildir
//	rename USER PATH PATH  rename it
//	remove USER PATH       remove it
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o := dialogOptions(string(text))
			d := &dialog{t: t, options: o, server: newServer(t, o),
				peers: make(map[string]*peer), values: make(map[string]string)}
			for i, line := range strings.Split(string(text), "\n") {
				d.where = fmt.Sprintf("%s:%d", file, i+1)
				d.step(line)
			}
		})
	}
}

// dialogOptions takes the settings "#! key = value" of a dialog. They go into
// the environment of the server.
func dialogOptions(text string) serverOptions {
	var o serverOptions
	for line := range strings.SplitSeq(text, "\n") {
		if setting, ok := strings.CutPrefix(line, "#! "); ok {
			key, value, _ := strings.Cut(setting, " = ")
			o.env = append(o.env, "RESTANTE_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
		}
	}
	return o
}

type dialog struct {
	t       *testing.T
	options serverOptions
	server  *testServer
	where   string
	peers   map[string]*peer
	*peer                     // the one that is spoken with
	values  map[string]string // by {name}
}

// A peer is the client's end of one connection.
type peer struct {
	conn  net.Conn
	lines *bufio.Reader
}

func (d *dialog) step(line string) {
	d.t.Helper()
	if line == "" || strings.HasPrefix(line, "#") {
		return
	}
	verb, rest, _ := strings.Cut(line, " ")
	if n, err := strconv.Atoi(verb); err == nil {
		for range n {
			d.step(strings.TrimPrefix(rest, "x "))
		}
		return
	}
	if !d.talk(verb, rest) && !d.manage(verb, rest) {
		d.t.Fatalf("%s: not a step: %q", d.where, line)
	}
}

// talk does the steps of a client. It reports whether verb is one.
func (d *dialog) talk(verb, rest string) bool {
	d.t.Helper()
	switch verb {
	case "connect":
		port, name, _ := strings.Cut(rest, " ")
		d.connect(port)
		d.peers[name] = d.peer
	case "ehlo":
		d.ehlo()
		d.peers[rest] = d.peer
	case "login":
		user, name, _ := strings.Cut(rest, " ")
		eventually(d.t, d.where+": login", func() bool { return d.login(user) })
		d.peers[name] = d.peer
	case "on":
		d.peer = d.peers[rest]
	case "C:":
		d.send(rest, "\r\n")
	case "C+":
		d.send(rest, "")
	case "S:":
		if got := d.receive(rest); !d.matches(rest, got) {
			d.t.Errorf("%s:\nwant %q\ngot  %q", d.where, rest, got)
		}
	case "S>":
		for !d.matches(rest, d.receive(rest)) {
		}
	case "octets":
		d.octets(rest)
	case "tls":
		d.handshake()
	case "EOF":
		d.renew()
		b, err := d.lines.ReadByte()
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			d.t.Fatalf("%s: %q and %v instead of the end", d.where, b, err)
		}
	case "hang": // up
		d.conn.Close()
	default:
		return false
	}
	return true
}

// manage does the steps beside the protocols. It reports whether verb is one.
func (d *dialog) manage(verb, rest string) bool {
	d.t.Helper()
	args := strings.SplitN(rest, " ", 3)
	var err error
	switch verb {
	case "$":
		restante(d.t, d.server.config, testPassword+"\n", strings.Fields(rest)...)
	case "stop":
		if code := d.server.stop(syscall.SIGTERM); code != 0 {
			d.t.Errorf("%s: the server ended with status %d", d.where, code)
		}
	case "start":
		d.server.start(d.options)
	case "mailbox":
		eventually(d.t, d.where+": mailbox "+rest, func() bool {
			return strconv.Itoa(len(d.server.files(args[0]))) == args[1]
		})
	case "file":
		err = os.WriteFile(d.path(args[0], args[1]), []byte(d.text(args[2])), 0o600)
	case "rename":
		err = os.Rename(d.path(args[0], args[1]), d.path(args[0], args[2]))
	case "remove":
		err = os.Remove(d.path(args[0], args[1]))
	default:
		return false
	}
	if err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
	return true
}

func (d *dialog) path(user, name string) string {
	return filepath.Join(d.server.maildir(user), name)
}

func (d *dialog) connect(port string) {
	d.t.Helper()
	address := map[string]string{"smtp": d.server.smtp, "pop3": d.server.pop3, "pop3s": d.server.pop3s}[port]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
	d.t.Cleanup(func() { conn.Close() })
	d.peer = new(peer)
	d.use(conn)
	if port == "pop3s" {
		d.handshake()
	}
}

func (d *dialog) use(conn net.Conn) {
	d.conn, d.lines = conn, bufio.NewReader(conn)
	d.renew()
}

// renew gives the next step its own time: commands and other peers come in between.
func (p *peer) renew() {
	_ = p.conn.SetDeadline(time.Now().Add(deadline)) // what is closed says so when it is used
}

func (d *dialog) ehlo() {
	d.t.Helper()
	d.connect("smtp")
	d.talk("S:", "220 *")
	d.send("EHLO client.example", "\r\n")
	d.talk("S>", "250 *")
}

// login reports false when the maildrop is in use.
func (d *dialog) login(user string) bool {
	d.t.Helper()
	d.connect("pop3s")
	d.talk("S:", "+OK*")
	d.send("USER "+user+"@"+testDomain, "\r\n")
	d.talk("S:", "+OK*")
	d.send("PASS "+testPassword, "\r\n")
	got := d.receive("+OK*")
	if strings.HasPrefix(got, "-ERR [IN-USE]") {
		d.conn.Close()
		return false
	}
	if !strings.HasPrefix(got, "+OK") {
		d.t.Fatalf("%s: no login for %s: %q", d.where, user, got)
	}
	return true
}

// handshake trusts the certificate that the server made, and no other.
func (d *dialog) handshake() {
	d.t.Helper()
	conn := tls.Client(d.conn, d.server.clientTLS())
	if err := conn.Handshake(); err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
	d.use(conn)
}

// clientTLS trusts the certificate that the server made, and no other.
func (s *testServer) clientTLS() *tls.Config {
	s.t.Helper()
	pem, err := os.ReadFile(s.cert)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		s.t.Fatal("no certificate in " + s.cert)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

func (d *dialog) send(text, end string) {
	d.t.Helper()
	d.renew()
	if _, err := d.conn.Write([]byte(d.text(text) + end)); err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
}

// text resolves escapes. A quote stands for itself.
func (d *dialog) text(s string) string {
	d.t.Helper()
	var raw []byte
	for s != "" {
		r, multibyte, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			d.t.Fatalf("%s: %q: %v", d.where, s, err)
		}
		if multibyte {
			raw = utf8.AppendRune(raw, r)
		} else {
			raw = append(raw, byte(r))
		}
		s = rest
	}
	return string(raw)
}

// receive gives the next line without its CRLF; wanted is for the error.
func (d *dialog) receive(wanted string) string {
	d.t.Helper()
	d.renew()
	line, err := d.lines.ReadString('\n')
	if err != nil {
		d.t.Fatalf("%s: want %q, got %q and %v", d.where, wanted, line, err)
	}
	got, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		d.t.Fatalf("%s: %q does not end in CRLF", d.where, line)
	}
	return got
}

// wildcard is what stands for itself in no pattern.
var wildcard = regexp.MustCompile(`\*|\{[a-z]+\}`)

// matches compares a line with a pattern, and keeps what a {name} stood for the
// first time.
func (d *dialog) matches(pattern, got string) bool {
	d.t.Helper()
	var expr strings.Builder
	var names []string
	rest, got := octetwise(d.text(pattern)), octetwise(got)
	for _, w := range wildcard.FindAllString(rest, -1) {
		before, after, _ := strings.Cut(rest, w)
		expr.WriteString(regexp.QuoteMeta(before))
		value, known := d.values[w]
		switch {
		case w == "*":
			expr.WriteString(".*")
		case known:
			expr.WriteString(regexp.QuoteMeta(value))
		default:
			names = append(names, w)
			expr.WriteString("(.+)")
		}
		rest = after
	}
	found := regexp.MustCompile("^" + expr.String() + regexp.QuoteMeta(rest) + "$").FindStringSubmatch(got)
	for i, name := range names {
		if found != nil {
			d.values[name] = found[i+1]
		}
	}
	return found != nil
}

// octetwise makes each octet a character, for what is not UTF-8.
func octetwise(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// octets counts what comes up to the end of a POP3 reply with a body.
func (d *dialog) octets(name string) {
	d.t.Helper()
	n := 0
	for line := d.receive("."); line != "."; line = d.receive(".") {
		n += len(strings.TrimPrefix(line, ".")) + len("\r\n")
	}
	if got := strconv.Itoa(n); got != d.values[name] {
		d.t.Errorf("%s: the message has %s octets, %q were announced", d.where, got, d.values[name])
	}
}
