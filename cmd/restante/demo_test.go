package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// demo is a running "restante demo" with its own TMPDIR.
type demo struct {
	cmd      *exec.Cmd
	tmp      string
	commands []string // what it printed to paste
	rest     *bufio.Reader
	log      bytes.Buffer
}

// startDemo runs a demo until it has printed all it has to say.
func startDemo(t *testing.T, tmp string) *demo {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	t.Cleanup(cancel)
	d := &demo{cmd: exec.CommandContext(ctx, "restante", "demo"), tmp: tmp}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	d.cmd.Stderr = &d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() }) // it may have ended
	d.rest = bufio.NewReader(out)
	command := ""
	for {
		line, err := d.rest.ReadString('\n')
		if err != nil {
			t.Fatalf("the demo ended: %v\n%s", err, d.log.String())
		}
		if strings.HasPrefix(line, "What happens from here on") {
			return d
		}
		if !isCommand(line) && command == "" {
			continue
		}
		command += line
		if !strings.HasSuffix(line, "\\\n") && !strings.HasSuffix(line, "|\n") {
			d.commands = append(d.commands, command)
			command = ""
		}
	}
}

// isCommand tells the first line of a command from words and settings.
func isCommand(line string) bool {
	fields := strings.Fields(line)
	return strings.HasPrefix(line, "  ") && len(fields) > 0 && slices.Contains([]string{"printf", "curl", "swaks"}, fields[0])
}

// find returns the only printed command with all of these words.
func (d *demo) find(t *testing.T, words ...string) string {
	t.Helper()
	var found []string
	for _, c := range d.commands {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c, w) }) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d commands with %q:\n%s", len(found), words, strings.Join(d.commands, "\n"))
	}
	return found[0]
}

// sh pastes a command into a shell.
func (d *demo) sh(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = t.TempDir()
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s\n%v\n%s\n%s", command, err, out, errOut.String())
	}
	return string(out)
}

// end sends a signal and checks that nothing stays.
func (d *demo) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	var last bytes.Buffer
	if _, err := last.ReadFrom(d.rest); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("%v: %v\n%s", sig, err, d.log.String())
	}
	if !strings.Contains(last.String(), "The demo is over") {
		t.Errorf("the last words are %q", last.String())
	}
	left, err := os.ReadDir(d.tmp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("the demo left %v", left)
	}
}

func TestDemo(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	// A place whose name a shell has to be told with care.
	tmp := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	d := startDemo(t, tmp)
	first := d.sh(t, d.find(t, "curl", "pop3s://", "/1\n"))
	if !strings.Contains(first, "Subject: Your first message\r\n") {
		t.Errorf("the first message is %q", first)
	}
	d.sh(t, d.find(t, "printf", "curl", "--upload-file"))
	sent := 1
	if _, err := exec.LookPath("swaks"); err == nil {
		d.sh(t, d.find(t, "swaks"))
		sent++
	}
	list := d.sh(t, d.find(t, "curl", "pop3s://", "/\n"))
	if got := strings.Count(list, "\n"); got != 1+sent {
		t.Errorf("the list is %q, with %d messages sent", list, sent)
	}
	all := ""
	for n := range 1 + sent { // messages of one second come in any order
		all += d.sh(t, strings.ReplaceAll(d.find(t, "curl", "pop3s://", "/1\n"), "/1\n", fmt.Sprintf("/%d\n", n+1)))
	}
	for _, want := range []string{"Return-Path: <me@example.org>\r\n", "Subject: Hello\r\n", "\r\nHello, Restante!\r\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in the messages:\n%s", want, all)
		}
	}
	d.end(t, syscall.SIGINT)
}

// TestDemoPortsTaken: with the ports that it prefers in use, on IPv4 or only on
// IPv6, a demo finds others, and one more finds yet others.
func TestDemoPortsTaken(t *testing.T) {
	for i, address := range []string{"127.0.0.1:2525", "127.0.0.1:2110", "127.0.0.1:2995", "[::1]:2525"} {
		if l, err := net.Listen("tcp", address); err == nil { // else it is taken already
			defer l.Close()
		} else if i < 3 && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	one, two := startDemo(t, t.TempDir()), startDemo(t, t.TempDir())
	seen := map[string]bool{"2525": true, "2110": true, "2995": true}
	port := regexp.MustCompile(`(?:localhost:)(\d+)`)
	for _, d := range []*demo{one, two} {
		mine := map[string]bool{}
		for _, m := range port.FindAllStringSubmatch(strings.Join(d.commands, "\n"), -1) {
			mine[m[1]] = true
		}
		if len(mine) != 2 {
			t.Errorf("the commands have the ports %v", mine)
		}
		for p := range mine {
			if n, err := strconv.Atoi(p); err != nil || seen[p] || n < 1024 {
				t.Errorf("port %s is taken", p)
			}
			seen[p] = true
		}
	}
	if _, err := exec.LookPath("curl"); err == nil {
		one.sh(t, one.find(t, "printf", "curl"))
		two.sh(t, two.find(t, "curl", "pop3s://", "/1\n"))
	}
	one.end(t, syscall.SIGTERM)
	two.end(t, syscall.SIGHUP) // the window was closed
}
