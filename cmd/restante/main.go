// Restante hosts the mailboxes of a small domain: it receives mail by SMTP,
// keeps it in Maildirs and hands it out by POP3.
//
// This package is the only one that knows all the others. wire.go joins them;
// every other file is a group of commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses of every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitUnread is what a shell tells of a program that SIGPIPE has ended.
	exitUnread = 128 + int(syscall.SIGPIPE)
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks; a second one ends the program as if nobody listened.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: it carries out args and returns the exit status.
// When ctx ends, a server drains and an ordinary command stops.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: os.Environ()}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if unread(err) {
		return exitUnread
	}
	fmt.Fprintf(stderr, "restante: %v\n", err)
	if usage := (usageError{}); errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// goOnUnread has the program outlive those who read what it writes: a write that
// nobody reads fails, and does not end it. It is for commands with more to do than
// to tell; the others end there and then.
func goOnUnread() { signal.Ignore(syscall.SIGPIPE) }

// unread tells whether the command failed because nobody reads what it writes, and for
// nothing else: all that is joined must be that.
func unread(err error) bool {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Path == os.Stdout.Name() && errors.Is(e, syscall.EPIPE)
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !unread(err) })
	case interface{ Unwrap() error }:
		return unread(e.Unwrap())
	}
	return false
}

// usageError is a command line that cannot be carried out as it is written.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef makes a usageError that points to the help of the command.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Errorf("%w\nsee \"%s --help\"", fmt.Errorf(format, args...), cmd.CommandPath())}
}

// arguments checks the number of positional arguments and names what is
// expected, as cobra's own checks do not.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			missing := strings.TrimSuffix(strings.Fields(cmd.Use)[1+len(args)], "...")
			return usagef(cmd, "%s is missing: the command is \"%s\"", missing, cmd.UseLine())
		case most >= 0 && len(args) > most:
			return usagef(cmd, "%q is one argument too many: the command is \"%s\"", args[most], cmd.UseLine())
		}
		return nil
	}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "restante",
		Short: "Host the mailboxes of a small domain on your own machine",
		Long: `Restante receives mail for your domains by SMTP, keeps it in Maildirs and
hands it to ordinary mail programs by POP3.

Try it:      restante demo
Set it up:   restante init --domain example.org --hostname mail.example.org
Run it:      restante serve`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs, // a word that is no command comes to group
		RunE:          group,
	}
	root.PersistentFlags().StringVar(&a.configFlag, "config", "",
		"the configuration `FILE` (default $RESTANTE_CONFIG, else "+defaultConfigFile+")")
	root.PersistentFlags().BoolP("help", "h", false, "explain the command")
	root.Flags().Bool("version", false, "print the version")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate(versionLine())
	root.CompletionOptions.DisableDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"server", "Server:", []*cobra.Command{a.serveCommand(), a.demoCommand(), a.initCommand(), a.configCommand(), a.statusCommand(), a.sessionsCommand(), a.authCommand(), a.certCommand(), a.benchCommand()}},
		{"manage", "Domains, users, mail:", []*cobra.Command{a.domainCommand(), a.userCommand(), a.aliasCommand(), a.mailboxCommand()}},
		{"other", "Other:", []*cobra.Command{a.completionCommand(), a.versionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.manCommand())
	root.SetHelpCommand(a.helpCommand(root))
	root.SetHelpCommandGroupID("other")
	return root
}

// usageTemplate is cobra's, with fewer words.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$all := .Commands}}{{if .Groups}}{{range $group := .Groups}}

{{.Title}}{{range $all}}{{if eq .GroupID $group.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{else}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" explains a command.{{end}}
`

// group is what a command does that only has commands below it: it shows its
// help, and refuses a word that is none of them.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return usagef(cmd, "there is no command \"%s %s\"%s", cmd.CommandPath(), args[0], suggestion(cmd, args[0]))
}

// suggestion asks whether one of the commands below cmd was meant: those that
// word begins, else those that are nearly called so. It is empty when none is.
func suggestion(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	near := cmd.SuggestionsFor(word)
	other := func(name string) bool { return !strings.HasPrefix(name, word) }
	if begun := slices.DeleteFunc(slices.Clone(near), other); len(begun) > 0 {
		near = begun
	}
	for i, name := range near {
		near[i] = fmt.Sprintf("\"%s %s\"", cmd.CommandPath(), name)
	}
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// flagError tells of a mistyped command rather than of the flags after it.
func flagError(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return group(cmd, words)
	}
	return usagef(cmd, "%w", err)
}
