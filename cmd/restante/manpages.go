package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is for whoever makes a package, and hidden from everybody else.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages into man1 and man7 of a directory",
		Hidden: true,
		Args:   arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := a.manDate()
			if err != nil {
				return err
			}
			m := manWriter{dir: args[0], date: date}
			if err := m.commands(cmd.Root()); err != nil {
				return err
			}
			return m.topics()
		},
	}
}

// manDate is the date on the pages: that of $SOURCE_DATE_EPOCH, else of the
// source that the program was built of, so that the same source makes the same
// pages; else today.
func (a *app) manDate() (string, error) {
	when := time.Now()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				when = t
			}
		}
	}
	if epoch := a.getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH is no number of seconds: %w", err)
		}
		when = time.Unix(seconds, 0)
	}
	return when.UTC().Format(time.DateOnly), nil
}

// manWriter writes manual pages below dir. A page is Markdown until the end:
// md2man knows how roff is written.
type manWriter struct{ dir, date string }

// commands writes the page of a command and of all below it, in section 1.
func (m manWriter) commands(cmd *cobra.Command) error {
	usage := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		usage = cmd.CommandPath() + " COMMAND"
	}
	var b strings.Builder
	b.WriteString("# SYNOPSIS\n\n**" + escaped(usage) + "**\n\n# DESCRIPTION\n\n")
	b.WriteString(markdown(cmp.Or(cmd.Long, cmd.Short+".")))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("# COMMANDS\n\n")
	}
	for _, c := range cmd.Commands() {
		if c.Hidden {
			continue
		}
		b.WriteString(manRef(manName(c), 1) + "\n: " + escaped(c.Short) + "\n\n")
		if err := m.commands(c); err != nil {
			return err
		}
	}
	manFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
	manFlags(&b, "OPTIONS OF EVERY COMMAND", cmd.InheritedFlags())
	if cmd.HasExample() {
		b.WriteString("# EXAMPLES\n\n" + literal(cmd.Example))
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, manRef(manName(cmd.Parent()), 1))
	} else {
		for _, topic := range topics() {
			also = append(also, manRef("restante-"+topic, 7))
		}
	}
	b.WriteString("# SEE ALSO\n\n" + strings.Join(also, ", ") + "\n")
	return m.write(manName(cmd), 1, cmd.Short, b.String())
}

// topics writes a page for each topic of the manual, in section 7.
func (m manWriter) topics() error {
	for _, topic := range topics() {
		text, err := manual.ReadFile("manual/" + topic + ".md")
		if err != nil {
			return err
		}
		title, body, _ := strings.Cut(string(text), "\n")
		_, title, ok := strings.Cut(title, ": ")
		if !ok {
			return fmt.Errorf("the topic %s does not begin with its name, a colon and what it is about", topic)
		}
		page := "# DESCRIPTION\n\n" + markdown(body) + "# SEE ALSO\n\n" + manRef("restante", 1) + "\n"
		if err := m.write("restante-"+topic, 7, title, page); err != nil {
			return err
		}
	}
	return nil
}

func (m manWriter) write(name string, section int, about, page string) error {
	dir := filepath.Join(m.dir, fmt.Sprintf("man%d", section))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("there is no place for the manual pages: %w", err)
	}
	head := fmt.Sprintf("%% %q %q %q %q %q\n# NAME\n\n%s - %s\n\n",
		strings.ToUpper(name), strconv.Itoa(section), m.date, "restante "+version(), "Restante", name, escaped(about))
	file := filepath.Join(dir, fmt.Sprintf("%s.%d", name, section))
	if err := os.WriteFile(file, copyable(md2man.Render([]byte(head+page))), 0o644); err != nil {
		return fmt.Errorf("a manual page cannot be written: %w", err)
	}
	return nil
}

// copyable has every hyphen shown as the one of the keyboard, and breaks no word:
// what is shown is there to be typed. Empty lines go where they would add to the
// space between paragraphs.
func copyable(roff []byte) []byte {
	lines := bytes.SplitAfter(roff, []byte("\n"))
	example := false
	for i, line := range lines {
		switch text := string(bytes.TrimSuffix(line, []byte("\n"))); {
		case strings.HasPrefix(text, ".TH "):
			lines[i] = slices.Concat(line, []byte(".nr HY 0\n.nh\n.ad l\n"))
		case text == ".EX" || text == ".EE":
			example = text == ".EX"
		case text == "" && !example:
			lines[i] = nil
		case !strings.HasPrefix(text, "."):
			line = bytes.ReplaceAll(line, []byte(`\-`), []byte("-"))
			lines[i] = bytes.ReplaceAll(line, []byte("-"), []byte(`\-`))
		}
	}
	return bytes.Join(lines, nil)
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func manRef(name string, section int) string { return fmt.Sprintf("**%s**(%d)", name, section) }

// manFlags writes the flags that are shown, each with what it means.
func manFlags(b *strings.Builder, heading string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	b.WriteString("# " + heading + "\n\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString("**--" + f.Name + "**")
		if f.Shorthand != "" {
			b.WriteString(", **-" + f.Shorthand + "**")
		}
		if value != "" {
			b.WriteString(" *" + escaped(value) + "*")
		}
		switch f.DefValue {
		case "", "0", "0s", "false", "[]": // what nobody would expect to be otherwise
		default:
			usage += " (default " + f.DefValue + ")"
		}
		b.WriteString("\n: " + escaped(usage) + "\n\n")
	})
}

// markdown is a text of the help or of the manual as Markdown. Such a text has
// paragraphs; a paragraph that is indented or has columns stays as it is, and a
// line of its own that begins in capitals is a heading.
func markdown(text string) string {
	var b strings.Builder
	heading := regexp.MustCompile(`^[A-Z]{2,}[^\n]*[^\n.:]$`)
	columns := regexp.MustCompile(`(?m)^\s|\S {2,}\S`)
	for _, p := range regexp.MustCompile(`\n(?: *\n)+`).Split(strings.Trim(text, "\n"), -1) {
		p = strings.TrimRight(p, "\n ")
		switch {
		case heading.MatchString(p):
			b.WriteString("# " + escaped(p) + "\n\n")
		case columns.MatchString(p):
			b.WriteString(literal(p))
		case p != "":
			b.WriteString(escaped(strings.Join(strings.Fields(p), " ")) + "\n\n")
		}
	}
	return b.String()
}

// literal is a text that stays as it is.
func literal(text string) string { return "~~~~\n" + text + "\n~~~~\n\n" }

// escaped takes the meaning of Markdown from a line of text.
func escaped(line string) string {
	line = regexp.MustCompile("[\\\\`*_\\[\\]<&]").ReplaceAllString(line, `\$0`)
	line = regexp.MustCompile(`^[-+#>:]`).ReplaceAllString(line, `\$0`)
	return regexp.MustCompile(`^(\d+)\. `).ReplaceAllString(line, `$1\. `)
}
