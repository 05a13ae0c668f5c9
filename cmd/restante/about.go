package main

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed manual/*.md
var manual embed.FS

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.stdout, versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("restante %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// version is what the Go tool knew of the source when it built the program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v
}

// helpCommand is cobra's help, which also knows the topics of the manual.
func (a *app) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND|TOPIC]",
		Short: "Explain a command or a topic: " + strings.Join(topics(), ", "),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return root.Help()
			}
			if found, rest, err := root.Find(args); err == nil && found != root && len(rest) == 0 {
				return found.Help()
			}
			if len(args) == 1 {
				if text, err := manual.ReadFile("manual/" + path.Base(args[0]) + ".md"); err == nil {
					_, err = a.stdout.Write(text)
					return err
				}
			}
			return usageError{fmt.Errorf("there is no command and no topic %q%s\nthe topics are %s; \"restante help\" shows the commands",
				strings.Join(args, " "), suggestion(root, args[0]), strings.Join(topics(), ", "))}
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			names := topics()
			for _, c := range root.Commands() {
				names = append(names, c.Name())
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func (a *app) completionCommand() *cobra.Command {
	shells := map[string]func(root *cobra.Command) error{
		"bash": func(root *cobra.Command) error { return root.GenBashCompletionV2(a.stdout, true) },
		"zsh":  func(root *cobra.Command) error { return root.GenZshCompletion(a.stdout) },
		"fish": func(root *cobra.Command) error { return root.GenFishCompletion(a.stdout, true) },
	}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what makes bash, zsh or fish complete the commands",
		Long: `Print a script that makes a shell complete the commands and flags of restante.
Put it where the shell looks for such scripts, and start a new shell:

  restante completion bash | sudo tee /etc/bash_completion.d/restante >/dev/null
  restante completion zsh  | sudo tee /usr/local/share/zsh/site-functions/_restante >/dev/null
  restante completion fish > ~/.config/fish/completions/restante.fish

In bash it needs the package bash-completion.`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := shells[args[0]]
			if !ok {
				return usagef(cmd, "there is no completion for %q; it is made for bash, zsh and fish", args[0])
			}
			return write(cmd.Root())
		},
	}
}

func topics() []string {
	files, err := fs.Glob(manual, "manual/*.md")
	if err != nil {
		return nil
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), ".md")
	}
	return files
}
