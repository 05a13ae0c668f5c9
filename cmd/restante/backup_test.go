package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// manualCommands are the indented lines of a topic, in order.
func manualCommands(t *testing.T, topic string) (commands []string) {
	t.Helper()
	text, err := manual.ReadFile("manual/" + topic + ".md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if command, ok := strings.CutPrefix(line, "     "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// TestBackup gives the commands of the topic "backup": a copy is made while mail comes
// and goes, and another server is started on what is restored.
func TestBackup(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		if os.Getenv("TEST_CLIENTS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := newServer(t, serverOptions{})
	backup, restored := t.TempDir(), filepath.Join(t.TempDir(), "data")
	var accepted []string
	for i := range 50 {
		subject := fmt.Sprintf("Subject: before %d\r\n", i)
		s.deliver(t, []byte(subject+"\r\nbody\r\n"), "alice@"+testDomain)
		accepted = append(accepted, subject)
	}
	stop := make(chan struct{})
	var meanwhile sync.WaitGroup
	meanwhile.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.deliver(t, []byte("Subject: meanwhile\r\n\r\n"), "bob@"+testDomain, "alice@"+testDomain)
				s.fetchAll(t, "bob")
			}
		}
	})
	commands := manualCommands(t, "backup")
	at := 0
	for ; !strings.HasPrefix(commands[at], "mkdir"); at++ {
		runManual(t, commands[at], s.config, filepath.Join(s.dir, "data"), backup)
	}
	close(stop)
	meanwhile.Wait()
	s.stop(syscall.SIGTERM)
	// The configuration names the new place.
	text, err := os.ReadFile(filepath.Join(backup, "restante.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s.config = filepath.Join(t.TempDir(), "restante.toml")
	writeFile(t, filepath.Join(backup, "restante.toml"), bytes.ReplaceAll(text, []byte(filepath.Join(s.dir, "data")), []byte(restored)))
	for ; at < len(commands); at++ {
		runManual(t, commands[at], s.config, restored, backup)
	}
	s.dir = filepath.Dir(restored)
	s.start(serverOptions{})
	got := bytes.Join(s.fetchAll(t, "alice"), nil)
	for _, subject := range accepted {
		if n := bytes.Count(got, []byte(subject)); n != 1 {
			t.Errorf("%q was restored %d times", subject, n)
		}
	}
	s.fetchAll(t, "bob") // who can log in
}

// runManual runs a command of the manual with the places of a test. systemctl and
// chown are not the test's to give.
func runManual(t *testing.T, command, config, data, backup string) {
	t.Helper()
	if strings.HasPrefix(command, "systemctl") || strings.HasPrefix(command, "chown") {
		return
	}
	places := strings.NewReplacer("/var/lib/restante", data, "/etc/restante/restante.toml", config, "/backup", backup)
	cmd := exec.Command("sh", "-c", places.Replace(command))
	cmd.Env = append(os.Environ(), "RESTANTE_CONFIG="+config)
	out, err := cmd.CombinedOutput()
	if err != nil && !(strings.HasPrefix(command, "tar -C /var/lib/restante -cf") && cmd.ProcessState.ExitCode() == 1) {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}
