package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"restante/auth"
)

// maxPasswordLine bounds what is read of standard input for a password, in octets.
const maxPasswordLine = 4096

// passwordFlags are the ways to give a password. It is never an argument: those
// are seen by every user of the machine and stay in the shell's history.
type passwordFlags struct {
	fromStdin, generate, hash bool
}

func (p *passwordFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.fromStdin, "password-stdin", false, "read the password from the first line of standard input")
	cmd.Flags().BoolVar(&p.generate, "generate", false, "make a password and print it, once")
	cmd.Flags().BoolVar(&p.hash, "password-hash", false, "what is asked for or read is not the password but its hash, as \"restante user import\" takes it")
}

// check is for before anything else is done.
func (p *passwordFlags) check(cmd *cobra.Command) error {
	if p.fromStdin && p.generate {
		return usagef(cmd, "--password-stdin and --generate exclude each other")
	}
	if p.hash && p.generate {
		return usagef(cmd, "--password-hash and --generate exclude each other")
	}
	return nil
}

// password gets the secret in the way that the flags say: generated is what to
// print, empty when the password came from outside.
func (a *app) password(ctx context.Context, p passwordFlags, who string) (secret auth.Secret, generated string, err error) {
	switch {
	case p.generate:
		generated = auth.GeneratePassword()
		secret, err = auth.PlainSecret(generated)
	case p.fromStdin:
		var line string
		if line, err = interruptible(ctx, func() (string, error) { return readLine(a.stdin) }); err == nil {
			secret, err = p.secret(line)
		}
	default:
		secret, err = a.promptPassword(ctx, p, who)
	}
	return secret, generated, err
}

// secret is what was typed or read.
func (p passwordFlags) secret(text string) (auth.Secret, error) {
	if p.hash {
		return auth.HashSecret(strings.TrimSpace(text))
	}
	return auth.PlainSecret(text)
}

var errInterrupted = errors.New("interrupted")

// interruptible waits for read, which may be waiting for a person, or for the
// end of ctx; then read is left behind, as the program is about to end.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := read()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, errInterrupted
	}
}

// terminal is standard input when a person sits at it.
func (a *app) terminal() (*os.File, bool) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

func (a *app) promptPassword(ctx context.Context, p passwordFlags, who string) (auth.Secret, error) {
	tty, ok := a.terminal()
	if !ok {
		return auth.Secret{}, errors.New("there is no terminal to ask for the password; use --password-stdin or --generate")
	}
	what := "Password"
	if p.hash {
		what = "Hash of the password"
	}
	first, err := a.readHidden(ctx, tty, what+" for "+who+": ")
	if err != nil {
		return auth.Secret{}, err
	}
	secret, err := p.secret(first)
	if err != nil || p.hash { // a hash is pasted
		return secret, err
	}
	again, err := a.readHidden(ctx, tty, "The same again: ")
	if err != nil {
		return auth.Secret{}, err
	}
	if first != again {
		return auth.Secret{}, errors.New("the two passwords differ; nothing was changed")
	}
	return secret, nil
}

// readHidden reads a line from the terminal, which does not show it, and leaves
// the terminal as it was, also after Ctrl-C.
func (a *app) readHidden(ctx context.Context, tty *os.File, prompt string) (string, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal cannot be used: %w", err)
	}
	fmt.Fprint(a.stderr, prompt)
	line, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(a.stderr)
	switch {
	case errors.Is(err, errInterrupted):
		return "", errors.Join(err, term.Restore(fd, before))
	case err != nil:
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	return string(line), nil
}

// readLine reads the first line without its line end. A line over
// maxPasswordLine octets is an error.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxPasswordLine+1), maxPasswordLine+1).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("standard input cannot be read: %w", err)
	}
	if len(line) > maxPasswordLine {
		return "", fmt.Errorf("the line on standard input is longer than %d octets", maxPasswordLine)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// confirm has a person type word before something is lost. Without a terminal
// only --yes will do.
func (a *app) confirm(ctx context.Context, yes bool, warning, word string) error {
	if yes {
		return nil
	}
	if _, ok := a.terminal(); !ok {
		return fmt.Errorf("%s; nothing was changed: give --yes to do it", warning)
	}
	fmt.Fprintf(a.stderr, "%s.\nType %s to go on: ", warning, word)
	line, err := interruptible(ctx, func() (string, error) { return readLine(a.stdin) })
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != word {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}
