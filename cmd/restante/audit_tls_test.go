package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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
	kinds, ways := []string{"ECDSA", "RSA"}, map[string][]string{"smtp": {"-t", "smtp"}, "pop3": {"-t", "pop3"}, "pop3s": nil}
	if auditQuickly() {
		kinds = kinds[:1]
		delete(ways, "pop3") // STARTTLS is the same as for SMTP
	}
	for _, kind := range kinds {
		s := auditServer(t, kind, serverOptions{})
		for port, flags := range ways {
			t.Run(kind+" "+port, func(t *testing.T) {
				t.Parallel()
				address := map[string]string{"smtp": s.smtp, "pop3": s.pop3, "pop3s": s.pop3s}[port]
				for _, f := range testTLS(t, s.cert, portOf(t, address), flags...) {
					switch {
					case f.Severity == "OK", f.Severity == "INFO", f.Severity == "DEBUG":
					case f.Severity == "LOW", f.ID == "engine_problem": // of its own openssl, with ciphers that nobody uses
						t.Logf("%s %s: %s", f.Severity, f.ID, f.Finding)
					default: // a warning too: something could not be examined
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
		"--openssl-timeout", "20", "--add-ca", authority, "--jsonfile", file, "--protocols", "--server-defaults"}, flags...)
	examined := []string{"TLS1", "TLS1_2", "TLS1_3", "cert_chain_of_trust"}
	if !auditQuickly() {
		args = append(args, "--standard", "--pfs", "--server-preference", "--vulnerable")
		examined = append(examined, "heartbleed", "ROBOT", "secure_client_renego", "LUCKY13")
	}
	out := audit(t, 20*time.Minute, "testssl", append(args, "localhost:"+port)...)
	t.Log(out)
	raw, err := os.ReadFile(file)
	must(t, err)
	var all []tlsFinding
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatalf("%v:\n%s", err, raw)
	}
	for _, id := range examined {
		if !slices.ContainsFunc(all, func(f tlsFinding) bool { return strings.HasPrefix(f.ID, id) }) {
			t.Errorf("%s was not examined", id)
		}
	}
	return all
}
