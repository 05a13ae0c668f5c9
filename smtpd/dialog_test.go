package smtpd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDialogs plays the files of testdata/dialogs against a server. A line is
//
//	! key value   a setting of the server (made before all else)
//	C: text       sent with CRLF
//	C" text       sent as a Go string says, nothing added
//	S: text       the next line of a reply; a * at the end stands for anything
//	close         the server closes the connection
//	tls           the client's handshake
//	M: text       as C", somewhere in what the store was given
//	none          the store has nothing
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(text), "\n---\n") {
			name := strings.TrimSuffix(filepath.Base(file), ".txt") + "/" + strconv.Itoa(i+1)
			t.Run(name, func(t *testing.T) { play(t, part) })
		}
	}
}

func play(t *testing.T, text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	config := testConfig()
	for _, line := range lines {
		if strings.HasPrefix(line, "! ") {
			set(t, &config, strings.Fields(line)[1:])
		}
	}
	r := newRig(t, config)
	c := r.dial(t)
	for _, line := range lines {
		t.Log(line)
		step(t, r, c, line)
	}
}

func set(t *testing.T, c *Config, field []string) {
	n := 0
	if len(field) > 1 {
		var err error
		if n, err = strconv.Atoi(field[1]); err != nil {
			t.Fatal(err)
		}
	}
	switch field[0] {
	case "max_message_size":
		c.MaxMessageSize = int64(n)
	case "max_recipients":
		c.MaxRecipients = n
	case "max_errors":
		c.MaxErrors = n
	case "max_refused":
		c.MaxRefused = n
	case "reject_hurried":
		c.RejectHurried = true
	case "tls":
		c.TLS = certificate()
	default:
		t.Fatalf("unknown setting %q", field[0])
	}
}

func step(t *testing.T, r *rig, c *client, line string) {
	t.Helper()
	key, rest, _ := strings.Cut(line, " ")
	switch key {
	case "C:":
		c.send(rest + "\r\n")
	case `C"`:
		s, err := strconv.Unquote(`"` + rest + `"`)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		c.send(s)
	case "S:":
		c.expect(rest)
	case "tls":
		c.secure()
	case "close":
		if got := c.line(); got != "" {
			t.Fatalf("got %q, want the end", got)
		}
	case "M:":
		var all strings.Builder
		for _, d := range r.store.deliveries() {
			all.WriteString(d.message)
		}
		want, err := strconv.Unquote(`"` + rest + `"`)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(all.String(), want) {
			t.Fatalf("%q is not in what was delivered: %q", want, all.String())
		}
	case "none":
		if d := r.store.deliveries(); len(d) > 0 {
			t.Fatalf("delivered: %q", d)
		}
	case "#", "!", "":
	default:
		t.Fatalf("unknown line %q", line)
	}
}
