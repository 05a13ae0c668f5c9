package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tlsFinding is a line of what testssl.sh has found.
type tlsFinding struct{ ID, Severity, Finding string }

// TestAuditTLS runs testssl.sh on every way to encryption, with either kind of
// certificate. Nothing may be found that is worse than LOW.
func TestAuditTLS(t *testing.T) {
	auditor(t, "testssl", "--version")
	for _, kind := range []string{"ECDSA", "RSA"} {
		s := auditServer(t, kind, serverOptions{})
		for port, flags := range map[string][]string{"smtp": {"-t", "smtp"}, "pop3": {"-t", "pop3"}, "pop3s": nil} {
			t.Run(kind+" "+port, func(t *testing.T) {
				t.Parallel()
				address := map[string]string{"smtp": s.smtp, "pop3": s.pop3, "pop3s": s.pop3s}[port]
				for _, f := range testTLS(t, s.cert, portOf(t, address), flags...) {
					switch f.Severity {
					case "OK", "INFO", "DEBUG":
					case "LOW", "WARN": // a warning is about the machine it runs on
						t.Logf("%s %s: %s", f.Severity, f.ID, f.Finding)
					default:
						t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
					}
				}
			})
		}
		t.Cleanup(func() { s.unharmed(t) })
	}
}

// testTLS asks nobody but the server: neither the DNS nor an authority.
func testTLS(t *testing.T, authority, port string, flags ...string) []tlsFinding {
	t.Helper()
	file := filepath.Join(t.TempDir(), "findings.json")
	args := append([]string{"--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1",
		"--openssl-timeout", "20", "--add-ca", authority, "--jsonfile", file,
		"--protocols", "--standard", "--pfs", "--server-defaults", "--server-preference", "--vulnerable"}, flags...)
	out := audit(t, 20*time.Minute, "testssl", append(args, "localhost:"+port)...)
	t.Log(out)
	raw, err := os.ReadFile(file)
	must(t, err)
	var all []tlsFinding
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatalf("%v:\n%s", err, raw)
	}
	for _, needed := range []string{"TLS1_2", "TLS1_3", "cert_chain_of_trust", "heartbleed", "LUCKY13"} {
		if !strings.Contains(string(raw), `"`+needed) {
			t.Errorf("%s was not examined", needed)
		}
	}
	return all
}
