package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// nmapCheck runs scripts of nmap on a port, and says what has to be in the result
// and what must not.
type nmapCheck struct {
	port      string // smtp, pop3 or pop3s
	scripts   []string
	want      []string // regular expressions
	forbidden []string
}

// Every port: nothing weak, and none of the faults of other programs.
var (
	tlsScripts   = []string{"ssl-enum-ciphers", "ssl-poodle", "ssl-heartbleed", "ssl-ccs-injection", "ssl-dh-params", "sslv2-drown", "ssl-known-key"}
	tlsWant      = []string{`TLSv1\.2:`, `TLSv1\.3:`, `least strength: A\n`}
	tlsForbidden = []string{`TLSv1\.[01]:`, `SSLv\d:`, `warnings:`, `State: (LIKELY )?VULNERABLE`, `: VULNERABLE`}
)

func nmapChecks() []nmapCheck {
	return []nmapCheck{{
		port: "smtp",
		scripts: []string{"smtp-commands", "smtp-open-relay", "smtp-enum-users", "smtp-strangeport", "smtp-ntlm-info",
			"smtp-vuln-cve2010-4344", "smtp-vuln-cve2011-1720", "smtp-vuln-cve2011-1764"},
		want: []string{
			`smtp-open-relay: Server doesn't seem to be an open relay, all tests failed`,
			`smtp-commands: localhost, PIPELINING, .*STARTTLS`,
			`smtp-enum-users: \n\|_  Couldn't find any accounts`,
			`smtp-vuln-cve2010-4344: \n\|_  The SMTP server is not Exim: NOT VULNERABLE`,
		},
		forbidden: []string{`smtp-commands:.*(AUTH|VRFY|EXPN|ETRN|TURN|CHUNKING)`, `smtp-ntlm-info`},
	}, {
		port:      "pop3",
		scripts:   []string{"pop3-capabilities", "pop3-ntlm-info"},
		want:      []string{`pop3-capabilities:.* STLS`},
		forbidden: []string{`pop3-capabilities:.*(SASL|USER UIDL|USER\n| USER |APOP)`, `pop3-ntlm-info`},
	}, {
		port:      "pop3s",
		scripts:   []string{"pop3-capabilities", "pop3-ntlm-info"},
		want:      []string{`pop3-capabilities:.*SASL\(PLAIN LOGIN\)`},
		forbidden: []string{`pop3-capabilities:.*(STLS|APOP|NTLM|MD5)`, `pop3-ntlm-info`},
	}}
}

// TestAuditNmap runs the scripts of nmap that are about what this server does.
func TestAuditNmap(t *testing.T) {
	auditor(t, "nmap", "--version")
	s := auditServer(t, "RSA", serverOptions{})
	t.Cleanup(func() { s.unharmed(t) })
	for _, c := range nmapChecks() {
		t.Run(c.port, func(t *testing.T) {
			t.Parallel()
			address := map[string]string{"smtp": s.smtp, "pop3": s.pop3, "pop3s": s.pop3s}[c.port]
			// With a plus sign a script runs though the port is not the usual one.
			scripts := "+" + strings.Join(append(c.scripts, tlsScripts...), ",+")
			out := audit(t, 5*time.Minute, "nmap", "-n", "-Pn", "-sT", "-sV", "--version-intensity", "0", "-p", portOf(t, address),
				"--script", scripts, "--script-args", "smtp.domain="+testDomain+",smtp-open-relay.domain=elsewhere.example,smtp-enum-users.methods={VRFY,EXPN}",
				"127.0.0.1")
			t.Log(out)
			for _, want := range append(c.want, tlsWant...) {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("no %q", want)
				}
			}
			for _, forbidden := range append(c.forbidden, tlsForbidden...) {
				if found := regexp.MustCompile(forbidden).FindString(out); found != "" {
					t.Errorf("%q", found)
				}
			}
		})
	}
}
