package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManualUsers runs every command of the topic "users", each on a small
// installation of its own: a reader may begin anywhere.
func TestManualUsers(t *testing.T) {
	t.Parallel()
	text, err := manual.ReadFile("manual/users.md")
	if err != nil {
		t.Fatal(err)
	}
	// What is there before; a command that adds one of these comes in its place.
	before := []string{
		"restante domain add example.org",
		"restante user add alice@example.org --generate",
		"restante user add bob@example.org --generate",
		"restante alias add info@example.org alice@example.org bob@example.org",
	}
	commands := 0
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "restante ")
		if !ok || !strings.HasPrefix(line, "  ") {
			continue
		}
		commands++
		t.Run(command, func(t *testing.T) {
			sh := newReader(t)
			for _, step := range before {
				if step == "restante "+command {
					break
				}
				sh(step)
			}
			if command == "domain remove example.org" {
				command += " --yes" // nobody is there to type it
			}
			sh("restante " + command)
		})
	}
	if commands < 15 {
		t.Errorf("only %d commands found", commands)
	}
}

// newReader is somebody at a shell who has just set up the program.
func newReader(t *testing.T) func(command string) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"restante.toml":    "hostname = \"mail.example.org\"\ndata_dir = \"data\"\n",
		"old-mail/one.eml": "Subject: one\n\ntext\n",
		"old-mail/two.eml": "Subject: two\n\ntext\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), []byte(text))
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func(command string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "RESTANTE_CONFIG="+filepath.Join(dir, "restante.toml"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
}
