package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched is a server with metrics.
func watched(t *testing.T) (s *testServer, get func(path string) (int, string)) {
	t.Helper()
	s = newServer(t, serverOptions{settings: "[metrics]\nlisten = [\"127.0.0.1:0\"]"})
	address := s.log.one(t, "listening", map[string]any{"protocol": "metrics"})["address"].(string)
	client := &http.Client{Timeout: deadline}
	t.Cleanup(client.CloseIdleConnections)
	return s, func(path string) (int, string) {
		t.Helper()
		r, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
}

// TestMetrics does known things and finds them counted.
func TestMetrics(t *testing.T) {
	s, get := watched(t)
	values := func() map[string]float64 {
		t.Helper()
		_, text := get("/metrics")
		all := make(map[string]float64)
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
				all[name], _ = strconv.ParseFloat(value, 64)
			}
		}
		return all
	}
	for name, n := range values() {
		if strings.HasPrefix(name, "restante_smtp") && n != 0 {
			t.Errorf("at first %s is %v", name, n)
		}
	}
	message := []byte("Subject: x\r\n\r\nbody\r\n")
	for range 3 {
		s.deliver(t, message, "alice@"+testDomain, "bob@"+testDomain)
	}
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	d.want("MAIL FROM:<>", "250")
	d.want("RCPT TO:<nobody@"+testDomain+">", "550 5.1.1")
	d.want("RCPT TO:<nobody@example.net>", "550 5.7.1")
	d.want("RCPT TO:<nobody@example.net>", "550 5.7.1")
	octets := 0
	for _, m := range s.fetchAll(t, "alice") {
		octets += len(m)
	}
	open := s.talk(t, "pop3s").logIn("bob")
	second := s.talk(t, "pop3s")
	second.want("USER bob@"+testDomain, "+OK")
	second.want("PASS "+testPassword, "-ERR [IN-USE]")
	second.want("USER bob@"+testDomain, "+OK")
	second.want("PASS wrong", "-ERR [AUTH]")
	open.want("NOOP", "+OK")

	want := map[string]float64{
		`restante_smtp_messages_accepted_total`:                                   3,
		`restante_smtp_delivery_seconds_count`:                                    3,
		`restante_smtp_refused_total{code="550",status="5.1.1",what="recipient"}`: 1,
		`restante_smtp_refused_total{code="550",status="5.7.1",what="recipient"}`: 2,
		`restante_connections_total{protocol="smtp"}`:                             4,
		`restante_connections_open{protocol="smtp"}`:                              1,
		`restante_connections_open{protocol="pop3"}`:                              2,
		`restante_connections_total{protocol="pop3"}`:                             3,
		`restante_connections_refused_total{protocol="pop3"}`:                     0,
		`restante_pop3_logins_total{outcome="ok"}`:                                2,
		`restante_pop3_logins_total{outcome="failed"}`:                            1,
		`restante_pop3_logins_total{outcome="in_use"}`:                            1,
		`restante_pop3_messages_retrieved_total`:                                  3,
		`restante_pop3_sent_bytes_total`:                                          float64(octets),
		`restante_pop3_messages_removed_total`:                                    3,
	}
	var got map[string]float64
	eventually(t, "connections that ended are counted", func() bool {
		got = values()
		return got[`restante_connections_open{protocol="smtp"}`] == 1 && got[`restante_connections_open{protocol="pop3"}`] == 2
	})
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v (there: %t), want %v", name, v, ok, n)
		}
	}
	if n := got[`restante_smtp_received_bytes_total`]; n < 3*float64(len(message)) {
		t.Errorf("%v octets received", n)
	}
	expiry := false
	for name, n := range got {
		expiry = expiry || strings.HasPrefix(name, "restante_certificate_expiry_timestamp_seconds{") && n > float64(time.Now().Unix())
		if strings.Contains(name, "@") || strings.Contains(name, "127.0.0.1") {
			t.Errorf("an address is in %s", name)
		}
	}
	if !expiry {
		t.Error("no certificate is told of")
	}
	documented(t, got)
}

// TestMetricsStop: with metrics too a server that is told to stop ends well, while
// somebody keeps a connection to ask again.
func TestMetricsStop(t *testing.T) {
	s, get := watched(t)
	if code, text := get("/readyz"); code != http.StatusOK {
		t.Fatalf("readyz: %d %s", code, text)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the exit status is %d", code)
	}
	s.log.one(t, "stopped", nil)
}

// documented: each metric is in the manual, and nothing else.
func documented(t *testing.T, got map[string]float64) {
	t.Helper()
	text, err := manual.ReadFile("manual/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	inManual := make(map[string]bool)
	for _, name := range regexp.MustCompile(`restante_[a-z0-9_]+`).FindAllString(string(text), -1) {
		inManual[name] = true
	}
	there := make(map[string]bool)
	for name := range got {
		if name, _, _ = strings.Cut(name, "{"); strings.HasPrefix(name, "restante_") {
			there[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
		}
	}
	for name := range there {
		if !inManual[name] {
			t.Errorf("%s is not in the manual", name)
		}
	}
	for name := range inManual {
		if !there[name] {
			t.Errorf("the manual has %s, the server not", name)
		}
	}
}

// TestRefusedSenders: what is refused at MAIL is counted and logged like the rest.
func TestRefusedSenders(t *testing.T) {
	s, get := watched(t)
	d := s.talk(t, "smtp")
	d.want("EHLO client.example", "250")
	d.want("MAIL FROM:<a@client.example> SIZE=4000000000", "552 5.3.4")
	d.want("MAIL FROM:<ä@client.example>", "553 5.6.7")
	d.want("MAIL FROM:<a@client.example>", "250")
	_, text := get("/metrics")
	for _, want := range []string{
		`restante_smtp_refused_total{code="552",status="5.3.4",what="message"} 1`,
		`restante_smtp_refused_total{code="553",status="5.6.7",what="message"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	s.log.one(t, "message refused", map[string]any{"from": "a@client.example", "size": 4e9})
	s.log.one(t, "message refused", map[string]any{"from": "ä@client.example"})
}

// TestMetricsLimit: a program that only opens connections takes a few.
func TestMetricsLimit(t *testing.T) {
	s := newServer(t, serverOptions{settings: "[metrics]\nlisten = [\"127.0.0.1:0\"]"})
	address := s.log.one(t, "listening", map[string]any{"protocol": "metrics"})["address"].(string)
	for range maxMetricsConnections + 1 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	s.log.one(t, "refused a connection", map[string]any{"reason": "too many connections"})
}

// TestReady takes away what each delivery needs: the directory of drafts, the journal.
func TestReady(t *testing.T) {
	for _, needed := range []string{"mail/.tmp", "journal"} {
		s, get := watched(t)
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, text := get(path); code != 200 || text != "ok\n" {
				t.Errorf("%s: %d %q", path, code, text)
			}
		}
		data := filepath.Join(s.maildir("alice"), "..", "..", "..")
		if err := os.RemoveAll(filepath.Join(data, needed)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server is not ready without "+needed, func() bool {
			code, text := get("/readyz")
			return code == 503 && text == "not ready, see the log\n"
		})
		if code, _ := get("/healthz"); code != 200 {
			t.Errorf("not healthy: %d", code)
		}
		s.log.one(t, "not ready", nil)
		if code, _ := get("/other"); code != 404 {
			t.Errorf("another path: %d", code)
		}
	}
}

// TestMetricsOff: nothing listens unless it is asked for, and never for others.
func TestMetricsOff(t *testing.T) {
	s := newServer(t, serverOptions{})
	for _, l := range s.log.find("listening", nil) {
		if l["protocol"] == "metrics" {
			t.Errorf("metrics at %v", l["address"])
		}
	}
}
