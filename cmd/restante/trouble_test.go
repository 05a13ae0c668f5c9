package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestManualTrouble: each text that the topic explains is in the program.
func TestManualTrouble(t *testing.T) {
	text, err := manual.ReadFile("manual/trouble.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for line := range strings.Lines(string(text)) {
		said, ok := strings.CutPrefix(line, `  "`)
		if !ok {
			continue
		}
		texts++
		said, _, _ = strings.Cut(said, `"`)
		said = strings.TrimSpace(strings.TrimSuffix(said, "..."))
		if !strings.Contains(source.String(), said) {
			t.Errorf("the program never says %q", said)
		}
	}
	if texts < 25 {
		t.Errorf("only %d texts found", texts)
	}
}
