package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// indented are the lines of a topic that a reader is to type or to write.
func indented(t *testing.T, topic string) (lines []string) {
	t.Helper()
	text, err := manual.ReadFile("manual/" + topic + ".md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "  ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// shell runs a command as a reader types it, with the names of the manual replaced by
// those that are here.
func shell(t *testing.T, command string, here ...string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", strings.NewReplacer(here...).Replace(command)).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// TestManualClients runs the curl of the topic, and has fetchmail read its lines.
func TestManualClients(t *testing.T) {
	client(t, "curl")
	client(t, "fetchmail")
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: x\r\n\r\nbody\r\n"), "alice@"+testDomain)
	ran := 0
	lines := indented(t, "clients")
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "curl "):
			ran++
			out := shell(t, line, "curl ", "curl --silent --show-error --insecure --connect-to mail.example.org:995:"+s.pop3s+" ",
				"alice@example.org", `"alice@example.org:`+testPassword+`"`)
			if !strings.Contains(out, "1 ") {
				t.Errorf("%s answers %q", line, out)
			}
		case strings.HasPrefix(line, "poll "):
			ran++
			rc := filepath.Join(t.TempDir(), "fetchmailrc")
			if err := os.WriteFile(rc, []byte(line+"\n"+lines[i+1]+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out := shell(t, "fetchmail --configdump --fetchmailrc "+rc)
			for _, want := range []string{`"mail.example.org"`, `"995"`, `"alice@example.org"`, "'sslcertck':TRUE"} {
				if !strings.Contains(strings.ReplaceAll(out, "'alice@example.org'", `"alice@example.org"`), want) {
					t.Logf("fetchmail understands\n%s", out)
					t.Errorf("fetchmail does not see %s", want)
				}
			}
		}
	}
	if ran != 2 {
		t.Errorf("%d commands found, want 2", ran)
	}
}

// TestManualLogs follows a message from its id, and takes the lines that trace.
func TestManualLogs(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: x\r\n\r\nbody\r\n"), "alice@"+testDomain)
	id := s.log.one(t, "message accepted", nil)["id"].(string)
	lines := strings.Join(indented(t, "logs"), "\n")
	_, find, ok := strings.Cut(lines, "\nfind ")
	if !ok {
		t.Fatal("no find in the topic")
	}
	find, _, _ = strings.Cut(find, "\n")
	out := shell(t, "find "+find, "/var/lib/restante/mail", filepath.Join(s.dir, "data", "mail"), "ID", id)
	if files := s.files("alice"); strings.TrimSpace(out) != files[0] {
		t.Errorf("found %q, want %q", out, files)
	}
	_, trace, ok := strings.Cut(lines, "\n[log]\n")
	if !ok {
		t.Fatal("no settings in the topic")
	}
	config := filepath.Join(s.dir, "trace.toml")
	text := "hostname = \"localhost\"\ndata_dir = \"data\"\n[log]\n" + strings.Join(strings.SplitN(trace, "\n", 3)[:2], "\n") + "\n"
	writeFile(t, config, []byte(text))
	if out := restante(t, config, "", "config", "show"); !strings.Contains(out, "192.0.2.7") {
		t.Errorf("what is traced is not shown:\n%s", out)
	}
}

// TestManualMetrics asks as the topic says.
func TestManualMetrics(t *testing.T) {
	client(t, "curl")
	s, _ := watched(t)
	address := s.log.one(t, "listening", map[string]any{"protocol": "metrics"})["address"].(string)
	ran := 0
	for _, line := range indented(t, "metrics") {
		if strings.HasPrefix(line, "curl ") {
			ran++
			if out := shell(t, line, "curl ", "curl --silent --show-error --fail ", "127.0.0.1:9125", address); out == "" {
				t.Errorf("%s says nothing", line)
			}
		}
	}
	if ran == 0 {
		t.Error("no command found")
	}
}

// TestManualSecurity runs the commands of the topic beside a server to which an
// attacker has come from the address in them.
func TestManualSecurity(t *testing.T) {
	s := newServer(t, serverOptions{settings: allowPlaintext + "\n[proxy]\ntrusted = [\"127.0.0.1\"]\n"})
	from := func(client string) *caller {
		d := s.dial(t, "pop3")
		d.write("PROXY TCP4 " + client + " 203.0.113.1 4096 110\r\n")
		d.want("", "+OK")
		return d
	}
	attacker := from("192.0.2.7")
	attacker.want("USER alice@"+testDomain, "+OK")
	attacker.want("PASS guess", "-ERR [AUTH]")
	ran := 0
	for _, line := range indented(t, "security") {
		if strings.HasPrefix(line, "restante ") {
			ran++
			shell(t, line, "restante ", "restante --config "+s.config+" ")
		}
	}
	if ran != 11 {
		t.Errorf("%d commands found", ran)
	}
	attacker.ended()

	_, acme, ok := strings.Cut(strings.Join(indented(t, "security"), "\n"), "\n[tls]\n")
	if !ok {
		t.Fatal("no settings in the topic")
	}
	config := filepath.Join(s.dir, "acme.toml")
	text := "hostname = \"mail.example.org\"\n[tls]\n" + strings.Join(strings.SplitN(acme, "\n", 3)[:2], "\n") + "\n"
	writeFile(t, config, []byte(text))
	if out := restante(t, config, "", "config", "show"); !strings.Contains(out, "tls.acme = true") {
		t.Errorf("the settings are not taken:\n%s", out)
	}
}
