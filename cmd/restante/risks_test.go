package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"restante/cmd/restante/internal/config"
)

// TestRisks: each setting that is dangerous is told by itself, in words that name it.
// What is usual is no risk.
func TestRisks(t *testing.T) {
	const signed = "[[tls.certificates]]\ncertificate = \"signed.crt\"\nkey = \"signed.key\"\n"
	for _, c := range []struct{ what, settings, risk string }{
		{"the defaults, with a certificate", signed, ""},
		{"plaintext on the loopback", "auth.allow_plaintext = [\"127.0.0.0/8\", \"::1\"]\n" + signed, ""},
		{"plaintext", "auth.allow_plaintext = true\n" + signed, "auth.allow_plaintext: passwords may cross the network"},
		{"plaintext at home", "auth.allow_plaintext = [\"192.168.0.0/16\"]\n" + signed, "auth.allow_plaintext: passwords may cross the network where others can read them, from 192.168.0.0/16"},
		{"plaintext of more than this machine", "auth.allow_plaintext = [\"126.0.0.0/7\"]\n" + signed, "auth.allow_plaintext"},
		{"no port for TLS", "pop3.listen_tls = []\n" + signed, "pop3.listen_tls: there is no port that is encrypted from the start"},
		{"no certificate", "", "tls: the certificate is self-signed"},
		{"by an authority", "tls.acme = true\n", ""},
		{"connections of an address", "limits.connections_per_address = 0\n" + signed, "limits.connections_per_address"},
		{"connections of a network", "limits.connections_per_network = 0\n" + signed, "limits.connections_per_network"},
		{"connections a minute", "limits.new_connections_per_minute = 0\n" + signed, "limits.new_connections_per_minute"},
		{"all exempt from limits", "limits.exempt = [\"0.0.0.0/0\"]\n" + signed, "limits.exempt: the limits of addresses and networks hold for nobody"},
		{"a relay exempt from limits", "limits.exempt = [\"192.0.2.0/24\"]\n" + signed, ""},
		{"pause", "limits.pause = \"0s\"\n" + signed, "limits.pause"},
		{"rate", "smtp.min_rate = 0\n" + signed, "smtp.min_rate"},
		{"delay", "auth.failure_delay = \"0s\"\n" + signed, "auth.failure_delay"},
		{"exempt", "auth.exempt = [\"192.0.2.0/24\"]\n" + signed, "auth.exempt: addresses that are not of this machine may guess passwords without end: 192.0.2.0/24"},
		{"all exempt", "auth.exempt = true\n" + signed, "auth.exempt"},
		{"none exempt", "auth.exempt = false\n" + signed, ""},
		{"cheap hashes", "auth.argon2_memory = \"1MiB\"\n" + signed, "auth.argon2_memory"},
		{"proxies", "proxy.trusted = [\"0.0.0.0/0\"]\n" + signed, "proxy.trusted"},
		{"proxies of IPv6", "proxy.trusted = [\"192.0.2.1\", \"::/0\"]\n" + signed, "proxy.trusted"},
		{"one proxy", "proxy.trusted = [\"192.0.2.1\"]\n" + signed, ""},
		{"no sandbox", "sandbox.landlock = false\n" + signed, "sandbox.landlock"},
		{"root", "user = \"root\"\n" + signed, "user: a fault in the server could reach everything on this machine"},
		{"trace", "log.trace = [\"alice@example.org\"]\nlog.level = \"debug\"\n" + signed, "log.trace: dialogs with alice@example.org are in the log"},
		{"trace of no effect", "log.trace = [\"alice@example.org\"]\n" + signed, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := signedDir(t)
			found := checkRisks(t, dir, c.settings)
			switch {
			case c.risk == "" && len(found) > 0, c.risk != "" && len(found) != 1:
				t.Errorf("risks %q, want %q", found, c.risk)
			case c.risk != "" && !strings.HasPrefix(found[0], c.risk):
				t.Errorf("risk %q, want %q", found[0], c.risk)
			}
		})
	}
}

// signedDir has a data directory and a pair that no authority, but another key has signed.
func signedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	makeSigned(t, dir, "signed")
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkRisks is what "config check" tells of risks, with warnings of certificates.
func checkRisks(t *testing.T, dir, settings string) (found []string) {
	t.Helper()
	file := writeFile(t, filepath.Join(dir, "restante.toml"), fmt.Appendf(nil, "hostname = \"mail.example.org\"\ndata_dir = \"data\"\n%s", settings))
	out := restante(t, file, "", "config", "check")
	for line := range strings.Lines(out) {
		for _, kind := range []string{"risk ", "warning "} {
			if rest, ok := strings.CutPrefix(line, kind); ok {
				found = append(found, strings.TrimSpace(rest))
			}
		}
	}
	return found
}

// TestRisksOfFiles: modes that let others in are told with the command that closes them.
func TestRisksOfFiles(t *testing.T) {
	const signed = "[[tls.certificates]]\ncertificate = \"signed.crt\"\nkey = \"signed.key\"\n"
	for _, c := range []struct {
		file string
		mode os.FileMode
		risk string
	}{
		{"data", 0o700, ""},
		{"data", 0o750, "chmod go-rwx"},
		{"data", 0o701, "chmod go-rwx"},
		{"data", 0o777, "chmod go-rwx"},
		{"restante.toml", 0o644, ""}, // there are no secrets in it
		{"restante.toml", 0o664, "chmod go-w"},
		{"restante.toml", 0o602, "chmod go-w"},
		{"signed.key", 0o640, ""}, // of a group for certificates
		{"signed.key", 0o644, "open to every user of this machine; close it with: chmod o= "},
		{"signed.key", 0o602, "chmod o= "},
		{"signed.crt", 0o644, ""},
	} {
		t.Run(fmt.Sprintf("%s %04o", c.file, c.mode), func(t *testing.T) {
			dir := signedDir(t)
			file := filepath.Join(dir, c.file)
			if found := checkRisks(t, dir, signed); len(found) > 0 {
				t.Fatalf("before: %q", found)
			}
			if err := os.Chmod(file, c.mode); err != nil {
				t.Fatal(err)
			}
			out := restante(t, filepath.Join(dir, "restante.toml"), "", "config", "check")
			if told := strings.Contains(out, "chmod"); told != (c.risk != "") || !strings.Contains(out, c.risk) || told && !strings.Contains(out, file) {
				t.Errorf("want %q:\n%s", c.risk, out)
			}
		})
	}
}

// TestRisksInForce: a configuration is checked as it would be used, and none is checked
// that cannot be.
func TestRisksInForce(t *testing.T) {
	dir := signedDir(t)
	c := config.Default()
	c.Hostname, c.DataDir = "localhost", filepath.Join(dir, "data")
	if found := risks(c, nil, "nonexistent"); len(found) > 0 {
		t.Errorf("the defaults on localhost: %q", found)
	}
	file := writeFile(t, filepath.Join(dir, "restante.toml"), []byte("hostname = \"mail.example.org\"\ndata_dir = \"data\"\n[limits]\nconnections_per_adress = 0\n"))
	_, stderr, code := restanteStatus(t, file, "", "config", "check")
	if code != exitFailed || !strings.Contains(stderr, "connections_per_address") {
		t.Errorf("a setting that is misspelt: %d, %s", code, stderr)
	}
}
