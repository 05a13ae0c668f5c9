package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// behindRelay has the server believe the loopback where a client comes from.
const behindRelay = "[proxy]\ntrusted = [\"127.0.0.1\"]\n"

// smtpFrom is a connection of a client somewhere, without the greeting.
func (s *testServer) smtpFrom(t *testing.T, client string) *caller {
	t.Helper()
	d := s.dial(t, "smtp")
	d.write("PROXY TCP4 " + client + " 203.0.113.1 40000 25\r\n")
	return d
}

// TestAttackOwnName: nobody in the world has the name of the server, unless its owner says
// so. A private network may be this machine itself.
func TestAttackOwnName(t *testing.T) {
	s := newServer(t, serverOptions{settings: behindRelay, env: []string{"RESTANTE_HOSTNAME=mail.example.org"}})
	hello := func(client, name, answer string) {
		t.Helper()
		d := s.smtpFrom(t, client)
		d.want("", "220 ")
		d.want("EHLO "+name, answer)
	}
	hello("192.0.2.7", "mail.example.org", "550 5.7.1 ")
	hello("192.0.2.7", "[203.0.113.1]", "550 5.7.1 ")
	for _, near := range []string{"192.168.1.7", "10.0.2.2", "172.17.0.1", "169.254.1.1", "100.64.0.7", "127.0.0.1"} {
		hello(near, "mail.example.org", "250")
	}
	s.reloadWith(t, "reject_own_name = false")
	hello("192.0.2.7", "mail.example.org", "250")
}

// reloadWith adds a line to the section smtp of the settings, which the server reads.
func (s *testServer) reloadWith(t *testing.T, line string) {
	t.Helper()
	before, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, bytes.Replace(before, []byte("[smtp]\n"), []byte("[smtp]\n"+line+"\n"), 1))
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the settings are read", func() bool {
		return len(s.log.find("reloaded the settings and certificates", nil)) == 1
	})
}

// TestAttackAnew: who tries names on one connection after the other gets no further than
// on one. A relay that others stand behind is not held back by what they do.
func TestAttackAnew(t *testing.T) {
	const most = 3
	s := newServer(t, serverOptions{settings: behindRelay,
		env: []string{fmt.Sprintf("RESTANTE_SMTP_MAX_REFUSED=%d", most), "RESTANTE_LIMITS_EXEMPT=198.51.100.0/24"}})
	try := func(client string) (asked int) {
		t.Helper()
		for range 20 {
			d := s.smtpFrom(t, client)
			if strings.HasPrefix(d.ask(""), "421 4.7.0 Too many refused") {
				d.ended()
				return asked
			}
			d.want("EHLO client.example", "250")
			d.want("MAIL FROM:<sender@client.example>", "250")
			for range most {
				if !strings.HasPrefix(d.ask(fmt.Sprintf("RCPT TO:<name%d@%s>", asked, testDomain)), "550 5.1.1 ") {
					break
				}
				asked++
			}
			d.conn.Close()
		}
		return asked
	}
	if asked := try("192.0.2.7"); asked < 2*most || asked > 5*most {
		t.Errorf("%d names were tried", asked)
	}
	s.smtpFrom(t, "192.0.3.8").want("", "220 ")
	if asked := try("198.51.100.7"); asked != 20*most {
		t.Errorf("the relay could ask for %d", asked)
	}
}

// TestAttackConnectionsOfRelay: the limits of an address are not for a relay.
func TestAttackConnectionsOfRelay(t *testing.T) {
	s := newServer(t, serverOptions{settings: behindRelay,
		env: []string{"RESTANTE_LIMITS_CONNECTIONS_PER_ADDRESS=2", "RESTANTE_LIMITS_EXEMPT=198.51.100.0/24"}})
	for range 2 {
		s.smtpFrom(t, "192.0.2.7").want("", "220 ")
	}
	s.smtpFrom(t, "192.0.2.7").want("", "421 4.3.2 ")
	for range 10 {
		s.smtpFrom(t, "198.51.100.7").want("", "220 ")
	}
}
