package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestManPages: each command and each topic has a page, there are no others,
// and the programs that show pages find nothing to complain of.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	restante(t, "", "", "man", dir)
	var want []string
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		want = append(want, filepath.Join(dir, "man1", strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		for _, c := range cmd.Commands() {
			if !c.Hidden {
				walk(c)
			}
		}
	}
	root := (&app{}).rootCommand()
	root.InitDefaultHelpCmd()
	walk(root)
	for _, topic := range topics() {
		want = append(want, filepath.Join(dir, "man7", "restante-"+topic+".7"))
	}
	slices.Sort(want)
	got, err := filepath.Glob(filepath.Join(dir, "man?", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pages differ (-want +got):\n%s", cmp.Diff(want, got))
	}
	for _, checker := range [][]string{
		{"man", "-l", "--warnings", "-E", "UTF-8"},
		{"groff", "-ww", "-man", "-Tutf8"},
		{"mandoc", "-Tlint", "-W", "warning"},
	} {
		t.Run(checker[0], func(t *testing.T) { checkPages(t, got, checker[0], checker[1:]...) })
	}
}

// checkPages has a program complain of pages.
func checkPages(t *testing.T, pages []string, name string, args ...string) {
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("TEST_PACKAGES") == "required" && name != "mandoc" { // it and man are two of a kind
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, page := range pages {
		cmd := exec.Command(name, append(slices.Clone(args), page)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if name == "mandoc" {
			cmd.Stdout = &complaints
		}
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("%s of %s: %v\n%s", name, page, err, complaints.String())
		}
	}
}

// TestManPageShows: what is to be typed is shown as it is typed, and what
// stands in columns stays there.
func TestManPageShows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	restante(t, "", "", "man", dir)
	for page, parts := range map[string][]string{
		"man1/restante.1":       {"NAME\n       restante - Host the mailboxes", "SYNOPSIS\n       restante COMMAND\n", "\n       Try it:      restante demo\n"},
		"man1/restante-init.1":  {"restante init --domain DOMAIN --hostname HOST [flags]", "--data-dir DIRECTORY\n", "(default\n              postmaster)"},
		"man1/restante-alias.1": {"restante-alias-add(1)\n"},
		"man7/restante-users.7": {"\nALIASES\n", "alias add @example.org alice@example.org\n", "old-mail/*.eml\n"},
		"man7/restante-design.7": {"\nON DISK, below data_dir\n", "A file is named SECONDS.ID.HOST,S=OCTETS,W=OCTETS, in cur/ with",
			"\n         1. 250 after the data: "},
	} {
		shown := showPage(t, filepath.Join(dir, page))
		for _, part := range parts {
			if !strings.Contains(shown, part) {
				t.Errorf("%s does not show %q:\n%.3000s", page, part, shown)
			}
		}
	}
}

// TestManTopicsWhole: the page of a topic has each of its words.
func TestManTopicsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	restante(t, "", "", "man", dir)
	for _, topic := range topics() {
		text, err := manual.ReadFile("manual/" + topic + ".md")
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "\n")
		shown := strings.Join(strings.Fields(showPage(t, filepath.Join(dir, "man7", "restante-"+topic+".7"))), " ")
		if !strings.Contains(shown, strings.Join(strings.Fields(body), " ")) {
			t.Errorf("the page of %s does not show what the topic says: %s", topic, shown)
		}
	}
}

// showPage is what a reader of a page sees.
func showPage(t *testing.T, page string) string {
	t.Helper()
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("groff", "-man", "-Tutf8", "-P-cbou", page).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestMarkdown: texts become Markdown that means the same.
func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"one\ntwo":                    "one two\n\n",
		"WHAT IT IS\n\nit is":         "# WHAT IT IS\n\nit is\n\n",
		"POP3 is old.":                "POP3 is old.\n\n",
		"do:\n\n  make\n  run\n\nand": "do:\n\n~~~~\n  make\n  run\n~~~~\n\nand\n\n",
		"a:   one\nbb:  two":          "~~~~\na:   one\nbb:  two\n~~~~\n\n",
		"1. *_dmarc* <x> [y] `z` \\&": "1\\. \\*\\_dmarc\\* \\<x> \\[y\\] \\`z\\` \\\\\\&\n\n",
		"- no list":                   "\\- no list\n\n",
	} {
		if got := markdown(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
