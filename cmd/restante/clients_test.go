package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The tests of this file run programs that people use to send and fetch mail
// against the program. One that is not installed is skipped, unless the
// environment says TEST_CLIENTS=required.

// message is a kind of message that has been trouble somewhere.
type message struct{ name, text string }

func awkwardMessages() []message {
	head := "From: sender@client.example\r\nSubject: awkward\r\n\r\n"
	return []message{
		{"plain", head + "Hello\r\n"},
		{"dots at line starts", head + ".one\r\n..two\r\n...\r\n. \r\nno . dot\r\n"},
		{"lone dots", head + ".\r\n\r\n.\r\nMAIL FROM:<smuggler@client.example>\r\n.\r\n"},
		{"bare LF around dots", head + "a\n.\nb\n..\nc\r\n"},
		{"long line", head + strings.Repeat("long ", 1000) + "\r\nend\r\n"},
		{"very long line", head + strings.Repeat("long ", 40_000) + "\r\nend\r\n"},
		{"8-bit", head + "Gr\xc3\xbc\xc3\x9fe \xff\xfe\x80\x81 \xe2\x82\xac\r\n"},
		{"empty body", head},
		{"header only", "Subject: no empty line\r\n"},
		{"no final line end", head + "the end"},
		{"ends with empty lines", head + "the end\r\n\r\n\r\n"},
		{"bare CR in the middle", head + "before\rafter\r\r.\r\nend\r\n"},
		{"CR CR LF", head + "one\r\r\n\r\r\ntwo\r\r\r\n"},
		{"2 MiB", head + strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz.\r\n.dot\r\n", 2<<20/45)},
	}
}

// messagesExcept leaves out those that a client changes by itself: swaks takes
// off lone dots at the end and adds an empty line to a header without one, and so
// does fetchmail, which also breaks lines longer than its buffer.
func messagesExcept(t *testing.T, names ...string) []message {
	t.Helper()
	all := awkwardMessages()
	some := slices.DeleteFunc(slices.Clone(all), func(m message) bool { return slices.Contains(names, m.name) })
	if len(some) != len(all)-len(names) {
		t.Fatalf("not all messages are known: %q", names)
	}
	return some
}

// client finds a program.
func client(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	if err == nil && name == "swaks" {
		err = exec.Command("perl", "-MNet::SSLeay", "-e", "1").Run() // for TLS
	}
	if err == nil {
		return
	}
	if os.Getenv("TEST_CLIENTS") == "required" {
		t.Fatalf("%s is not installed: %v", name, err)
	}
	t.Skipf("%s is not installed: %v", name, err)
}

// runClient runs a program with a home directory of its own and returns its
// standard output; the exit status must be the one given.
func runClient(t *testing.T, status int, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "FETCHMAILHOME="+home)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != status {
		t.Fatalf("%s %s: exit status %d instead of %d\n%.2000s%s", name, strings.Join(args, " "), code, status, &out, &errOut)
	}
	return out.Bytes()
}

// portOf is the port number of an address.
func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// curlURL names a server by the name that its certificate has.
func curlURL(t *testing.T, scheme, address string) string {
	t.Helper()
	return scheme + "://localhost:" + portOf(t, address)
}

const allowPlaintext = "allow_plaintext = true" // in the section [auth]

func TestClientsSend(t *testing.T) {
	type sender func(t *testing.T, s *testServer, file string)
	curl := func(flags ...string) sender {
		return func(t *testing.T, s *testServer, file string) {
			runClient(t, 0, "curl", append([]string{"-sS", "--ipv4", "--url", curlURL(t, "smtp", s.smtp) + "/client.example",
				"--mail-from", "sender@client.example", "--mail-rcpt", "alice@" + testDomain, "-T", file}, flags...)...)
		}
	}
	swaks := func(flags ...string) sender {
		return func(t *testing.T, s *testServer, file string) {
			runClient(t, 0, "swaks", append([]string{"--silent", "2", "--server", s.smtp, "--ehlo", "client.example",
				"--from", "sender@client.example", "--to", "alice@" + testDomain, "--data", "@" + file}, flags...)...)
		}
	}
	all, most := awkwardMessages(), messagesExcept(t, "lone dots", "header only")
	for _, c := range []struct {
		program, mode string
		messages      []message
		send          func(s *testServer) sender
	}{
		{"curl", "plain", all, func(*testServer) sender { return curl() }},
		{"curl", "STARTTLS", all, func(s *testServer) sender { return curl("--ssl-reqd", "--cacert", s.cert) }},
		{"curl", "STARTTLS with --crlf", all, func(s *testServer) sender { return curl("--ssl-reqd", "--cacert", s.cert, "--crlf") }},
		{"swaks", "plain", most, func(*testServer) sender { return swaks() }},
		{"swaks", "STARTTLS", most, func(s *testServer) sender {
			return swaks("--tls", "--tls-verify", "--tls-ca-path", s.cert)
		}},
	} {
		t.Run(c.program+" "+c.mode, func(t *testing.T) {
			client(t, c.program)
			s := newServer(t, serverOptions{})
			send := c.send(s)
			for _, m := range c.messages {
				t.Run(m.name, func(t *testing.T) {
					send(t, s, writeFile(t, filepath.Join(t.TempDir(), "message"), []byte(m.text)))
					got := s.fetchAll(t, "alice")
					if len(got) != 1 {
						t.Fatalf("%d messages came", len(got))
					}
					text := m.text
					if c.program == "swaks" {
						text += "\r\n" // it always adds a line end
					}
					sameOctets(t, withoutTrace(t, got[0]), wireForm([]byte(text)))
				})
			}
			if with := "with ESMTPS "; (c.mode != "plain") != strings.Contains(s.traceOf(t, send), with) {
				t.Errorf("%s: %q in the Received header does not tell whether there was TLS", c.mode, with)
			}
		})
	}
}

// traceOf sends a message by a client and returns the one that arrives.
func (s *testServer) traceOf(t *testing.T, send func(*testing.T, *testServer, string)) string {
	t.Helper()
	send(t, s, writeFile(t, filepath.Join(t.TempDir(), "message"), []byte("Subject: trace\r\n\r\n")))
	return string(bytes.Join(s.fetchAll(t, "alice"), nil))
}

// TestClientsRefuse sees that clients take the answers for what they mean.
func TestClientsRefuse(t *testing.T) {
	s := newServer(t, serverOptions{})
	file := writeFile(t, filepath.Join(t.TempDir(), "message"), []byte("Subject: x\r\n\r\n"))
	t.Run("curl", func(t *testing.T) {
		client(t, "curl")
		runClient(t, 55, "curl", "-sS", "--ipv4", "--url", curlURL(t, "smtp", s.smtp), "--mail-from", "sender@client.example",
			"--mail-rcpt", "nobody@"+testDomain, "-T", file)
		for _, server := range []string{curlURL(t, "pop3s", s.pop3s), curlURL(t, "pop3", s.pop3)} {
			const wrongLogin, untrusted = 67, 60
			runClient(t, wrongLogin, "curl", "-sS", "--ipv4", "--ssl-reqd", "--cacert", s.cert, "-u", "alice@"+testDomain+":wrong", server)
			runClient(t, untrusted, "curl", "-sS", "--ipv4", "--ssl-reqd", "-u", "alice@"+testDomain+":"+testPassword, server)
		}
	})
	t.Run("swaks", func(t *testing.T) {
		client(t, "swaks")
		const noRecipient = 24
		runClient(t, noRecipient, "swaks", "--silent", "3", "--server", s.smtp, "--from", "sender@client.example", "--to", "nobody@"+testDomain)
	})
}

// curlFetch runs curl on the mailbox of alice.
func curlFetch(t *testing.T, s *testServer, mode string, path string, flags ...string) []byte {
	t.Helper()
	base := map[string][]string{
		"plain":        {curlURL(t, "pop3", s.pop3)},
		"STLS":         {curlURL(t, "pop3", s.pop3), "--ssl-reqd", "--cacert", s.cert},
		"implicit TLS": {curlURL(t, "pop3s", s.pop3s), "--cacert", s.cert},
	}[mode]
	args := append([]string{"-sS", "--ipv4", "-u", "alice@" + testDomain + ":" + testPassword, base[0] + path}, base[1:]...)
	return runClient(t, 0, "curl", append(args, flags...)...)
}

func TestClientsFetchCurl(t *testing.T) {
	client(t, "curl")
	s := newServer(t, serverOptions{settings: allowPlaintext})
	all := awkwardMessages()
	var want []string
	for _, m := range all {
		s.deliver(t, []byte(m.text), "alice@"+testDomain)
		want = append(want, string(wireForm([]byte(m.text))))
	}
	slices.Sort(want)
	raw := s.peekAll(t, "alice")
	for _, mode := range []string{"plain", "STLS", "implicit TLS"} {
		t.Run(mode, func(t *testing.T) {
			if list := curlFetch(t, s, mode, "/"); bytes.Count(list, []byte("\n")) != len(all) {
				t.Errorf("the list of %d messages is\n%s", len(all), list)
			}
			var texts []string
			for i := range all {
				got := curlFetch(t, s, mode, fmt.Sprintf("/%d", i+1))
				sameOctets(t, got, raw[i])
				texts = append(texts, string(withoutTrace(t, got)))
			}
			slices.Sort(texts) // within a second the order is not that of delivery
			if !slices.Equal(texts, want) {
				t.Errorf("what was fetched is not what was sent")
			}
		})
	}
	t.Run("delete", func(t *testing.T) {
		curlFetch(t, s, "implicit TLS", "/1", "-X", "DELE", "-l")
		if left := len(s.files("alice")); left != len(all)-1 {
			t.Errorf("%d messages of %d are left after one was deleted", left, len(all))
		}
	})
	t.Run("SASL mechanisms", func(t *testing.T) {
		curlFetch(t, s, "STLS", "/", "--login-options", "AUTH=LOGIN")
		curlFetch(t, s, "STLS", "/", "--login-options", "AUTH=PLAIN")
	})
}

// fetchmail is one configuration of that program and the directory in which it
// remembers what it has seen.
type fetchmail struct {
	dir, rc string
}

// fetchmailFor sets the program up. What it fetches is appended to box, if there
// is one.
func fetchmailFor(t *testing.T, s *testServer, mode, box string) fetchmail {
	t.Helper()
	dir := t.TempDir()
	port, secure := portOf(t, s.pop3), "sslproto ''"
	verify := " sslcertck sslcertfile " + s.cert + " sslcommonname localhost"
	switch mode {
	case "STLS":
		secure = "sslproto 'TLS1.2+'" + verify
	case "implicit TLS":
		port, secure = portOf(t, s.pop3s), "ssl"+verify
	}
	rc := fmt.Sprintf("poll 127.0.0.1 protocol POP3 service %s auth password\nuser '%s' password '%s' is 'alice' here %s\n",
		port, "alice@"+testDomain, testPassword, secure)
	if box != "" {
		rc += fmt.Sprintf("mda \"cat >>%s\"\n", box)
	}
	return fetchmail{dir, writeFile(t, filepath.Join(dir, "rc"), []byte(rc))}
}

// run returns whether mail was there.
func (f fetchmail) run(t *testing.T, flags ...string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "fetchmail", append([]string{"-f", f.rc, "--norewrite", "--invisible", "--nosyslog"}, flags...)...)
	cmd.Env = append(os.Environ(), "HOME="+f.dir, "FETCHMAILHOME="+f.dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	const noMail = 1
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == noMail) {
		t.Fatalf("fetchmail %s: %v\n%s", strings.Join(flags, " "), err, out)
	}
	return err == nil
}

func TestClientsFetchFetchmail(t *testing.T) {
	client(t, "fetchmail")
	s := newServer(t, serverOptions{settings: allowPlaintext})
	for _, mode := range []string{"plain", "STLS", "implicit TLS"} {
		t.Run(mode, func(t *testing.T) {
			for _, m := range messagesExcept(t, "header only", "very long line") {
				s.deliver(t, []byte(m.text), "alice@"+testDomain)
			}
			n := len(s.files("alice"))
			box := filepath.Join(t.TempDir(), "box")
			f := fetchmailFor(t, s, mode, box)
			// Without line ends of the wire: fetchmail takes off every CR.
			want := bytes.ReplaceAll(bytes.Join(s.peekAll(t, "alice"), nil), []byte("\r"), nil)

			if !f.run(t, "--keep", "--uidl") {
				t.Error("no mail the first time")
			}
			sameOctets(t, takeFile(t, box), want)
			if f.run(t, "--keep", "--uidl") {
				t.Error("mail was fetched a second time though its UIDLs are known")
			}
			if !f.run(t, "--keep", "--fetchall") {
				t.Error("no mail for --fetchall")
			}
			sameOctets(t, takeFile(t, box), want)
			if left := len(s.files("alice")); left != n {
				t.Errorf("%d messages of %d are left though all were kept", left, n)
			}
			if !f.run(t, "--fetchall", "--nokeep") {
				t.Error("no mail for --nokeep")
			}
			sameOctets(t, takeFile(t, box), want)
			if left := len(s.files("alice")); left != 0 {
				t.Errorf("%d messages are left after all were fetched", left)
			}
			if f.run(t) {
				t.Error("mail in an empty mailbox")
			}
		})
	}
}

// TestClientsFetchBSMTP has fetchmail write what it got with its line ends.
func TestClientsFetchBSMTP(t *testing.T) {
	client(t, "fetchmail")
	s := newServer(t, serverOptions{})
	f := fetchmailFor(t, s, "STLS", "")
	for _, m := range messagesExcept(t, "header only", "very long line") {
		s.deliver(t, []byte(m.text), "alice@"+testDomain)
		file := filepath.Join(f.dir, "bsmtp")
		if !f.run(t, "--fetchall", "--bsmtp", file) {
			t.Fatal("no mail")
		}
		_, data, _ := bytes.Cut(takeFile(t, file), []byte("DATA\r\n"))
		got, ok := bytes.CutSuffix(data, []byte(".\r\n"))
		if !ok {
			t.Errorf("%s: not ended: %.300q", m.name, data)
		}
		got = bytes.ReplaceAll(got, []byte("\r\n."), []byte("\r\n"))
		// It uses the Return-Path for the envelope and takes it off.
		returnPath := []byte("Return-Path: <sender@client.example>\r\n")
		sameOctets(t, withoutTrace(t, append(returnPath, got...)), wireForm([]byte(m.text)))
	}
}

// peekAll retrieves all messages of a user.
func (s *testServer) peekAll(t *testing.T, user string) [][]byte {
	t.Helper()
	d := s.talk(t, "pop3s").logIn(user)
	var all [][]byte
	for i := range s.files(user) {
		d.want(fmt.Sprintf("RETR %d", i+1), "+OK")
		all = append(all, d.multiline())
	}
	d.want("QUIT", "+OK")
	return all
}

// takeFile reads a file and removes it.
func takeFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	return data
}
