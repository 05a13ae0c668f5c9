package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// blindMail is a whole dialog as a program sends it that takes no notice of answers.
const blindMail = "EHLO client.example\r\nMAIL FROM:<blind@client.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: blind\r\n\r\n.\r\nQUIT\r\n"

// TestMannersEarly: who has spoken before the greeting is turned away by it, with and
// without a pause for that; who waits is greeted.
func TestMannersEarly(t *testing.T) {
	t.Parallel()
	for _, pause := range []string{"0s", "1s"} {
		s := newServer(t, tolerant("RESTANTE_SMTP_GREETING_PAUSE="+pause))
		for _, early := range []string{blindMail, "E", "\r\n", "\x00", "GET / HTTP/1.0\r\n\r\n", clientHello(t)} {
			// A process that is stopped accepts nothing, but its system does.
			s.signal(syscall.SIGSTOP)
			eventually(t, "the server is stopped", s.isStopped)
			d := s.dial(t, "smtp")
			d.write(early)
			s.signal(syscall.SIGCONT)
			d.want("", "554 5.5.1 ")
			d.ended()
		}
		began := time.Now()
		s.talk(t, "smtp").want(sentinel, sentinelAnswer)
		if took := time.Since(began); pause == "1s" && took < time.Second {
			t.Errorf("greeted after %v", took)
		}
		if n := len(s.files("alice")); n != 0 {
			t.Errorf("%d messages came", n)
		}
	}
}

func (s *testServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// isStopped tells whether the system has stopped the process.
func (s *testServer) isStopped() bool {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip(err)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "T")
}

// TestMannersHurried: who sends more with its first greeting has not waited for the
// answer, and is turned away, unless the settings say otherwise.
func TestMannersHurried(t *testing.T) {
	t.Parallel()
	for setting, answers := range map[string]string{"true": "554", "false": "250 250 250 354 250 221"} {
		s := newServer(t, tolerant("RESTANTE_SMTP_REJECT_HURRIED="+setting))
		for _, blind := range []string{blindMail, strings.Replace(blindMail, "EHLO", "HELO", 1)} {
			d := s.talk(t, "smtp")
			d.write(blind)
			var got []string
			for range strings.Count(answers, " ") + 1 {
				got = append(got, d.ask(""))
			}
			d.ended()
			if codes(got) != answers {
				t.Errorf("reject_hurried = %s: answered %q", setting, got)
			}
		}
		// Later greetings may come in a group, and so may the first under TLS.
		d := s.talk(t, "smtp")
		d.secure(s.clientTLS())
		d.write("EHLO client.example\r\nRSET\r\nEHLO client.example\r\n")
		if got := codes(d.replies()); got != "250 250 250" {
			t.Errorf("answers under TLS: %s", got)
		}
		if n, want := len(s.files("alice")), strings.Count(answers, "354")*2; n != want {
			t.Errorf("%d messages came, not %d", n, want)
		}
	}
}

// TestMannersBrowser: a browser is led here to send mail for somebody. It is cut off at
// its first line, whatever follows in its form.
func TestMannersBrowser(t *testing.T) {
	t.Parallel()
	s := newServer(t, tolerant())
	for _, verb := range []string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"} {
		for _, greeted := range []bool{false, true} {
			d := s.talk(t, "smtp")
			if greeted {
				d.want("EHLO client.example", "250 ")
			}
			d.write(verb + " / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n" + blindMail)
			d.want("", "554 5.5.1 ")
			d.ended()
		}
	}
	// Other protocols are errors line by line.
	for _, hello := range []string{"SSH-2.0-client\r\n", "get / http/1.1\r\n", "USER alice\r\nPASS x\r\n", "a1 LOGIN alice x\r\n", "\x03\x00\x00\x13\x0e\xe0\x00\r\n", "*1\r\n$4\r\nINFO\r\n"} {
		d := s.talk(t, "smtp")
		d.write(hello)
		for _, answer := range d.replies() {
			if !strings.HasPrefix(answer, "500 ") {
				t.Errorf("%q is answered %q", hello, answer)
			}
		}
	}
	d := s.talk(t, "smtp")
	d.write(clientHello(t) + "\r\n")
	if answer, err := d.lines.ReadString('\n'); err != nil || !strings.HasPrefix(answer, "500 ") {
		t.Errorf("a handshake without STARTTLS is answered %q, %v", answer, err)
	}
	if n := len(s.files("alice")); n != 0 {
		t.Errorf("%d messages came", n)
	}
}

// TestMannersForged: nobody else has our name. The client comes through a proxy, since
// this machine may use it.
func TestMannersForged(t *testing.T) {
	t.Parallel()
	s := newServer(t, serverOptions{settings: "[proxy]\ntrusted = [\"127.0.0.1\"]", env: append(tolerant().env, "RESTANTE_HOSTNAME=mx.example.org")})
	from := func(client string) *caller {
		d := s.dial(t, "smtp")
		d.write("PROXY TCP4 " + client + " 203.0.113.1 4711 25\r\n")
		d.want("", "220 ")
		return d
	}
	for _, verb := range []string{"EHLO ", "HELO "} {
		for _, name := range []string{"mx.example.org", "MX.Example.Org", "mx.example.org.", "[203.0.113.1]", "[IPv6:::ffff:203.0.113.1]"} {
			d := from("192.0.2.7")
			d.want(verb+name, "550 5.7.1 ")
			d.want("MAIL FROM:<sender@client.example>", "503 ")
			d.want(verb+"client.example", "250 ") // it may go on by its own
			d.want("QUIT", "221 ")
		}
		for client, name := range map[string]string{"192.0.2.7": "[192.0.2.7]", "192.0.2.8": "mx.example.org.client.example", "127.0.0.2": "mx.example.org", "203.0.113.1": "mx.example.org"} {
			from(client).want(verb+name, "250 ")
		}
	}
	d := s.dial(t, "smtp")
	d.write(blindMail) // without the header that a proxy must send
	if rest, err := io.ReadAll(d.lines); errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}
