package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// unheard runs a command whose output nobody reads, and returns how it ended and
// what it said about that.
func unheard(t *testing.T, env []string, args ...string) (*os.ProcessState, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "restante", args...)
	cmd.Env = append(os.Environ(), env...)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState, errOut.String()
}

// TestPipeClosed: a command that only tells ends as others do when nobody listens,
// and says nothing of it.
func TestPipeClosed(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	for _, args := range []string{"domain list", "domain list --json", "config show", "help performance", "version"} {
		state, errOut := unheard(t, nil, append([]string{"--config", s.config}, strings.Fields(args)...)...)
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGPIPE || errOut != "" {
			t.Errorf("%s: %v, %q", args, state, errOut)
		}
	}
}

// TestPipeClosedDemo: nothing stays of a demo whose instructions nobody reads.
func TestPipeClosedDemo(t *testing.T) {
	tmp := t.TempDir()
	if state, errOut := unheard(t, []string{"TMPDIR=" + tmp}, "demo"); state.ExitCode() != exitUnread || strings.Contains(errOut, "restante:") {
		t.Errorf("%v, %q", state, errOut)
	}
	empty(t, tmp)
}

// TestPipeClosedServer: a server goes on when nobody reads its log any more.
func TestPipeClosedServer(t *testing.T) {
	s := newServer(t, serverOptions{})
	if err := s.stderr.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.deliver(t, []byte("Subject: x\n\nx\n"), "alice@"+testDomain)
	}
	if files := s.files("alice"); len(files) != 3 {
		t.Errorf("the mailbox has %q", files)
	}
	if status := s.stop(syscall.SIGTERM); status != exitOK {
		t.Errorf("%v", s.cmd.ProcessState)
	}
}

// TestUnread: only a command that failed for nothing but that nobody reads is silent.
func TestUnread(t *testing.T) {
	gone := fmt.Errorf("telling: %w", &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EPIPE})
	other := errors.New("the directory is not removed")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{gone, true}, {usageError{gone}, true}, {errors.Join(nil, gone), true}, {errors.Join(gone, gone), true},
		{errors.Join(gone, other), false}, {fmt.Errorf("bench: %w", errors.Join(gone, other)), false}, {errors.Join(gone, errors.Join(gone, other)), false},
		{other, false}, {syscall.EPIPE, false}, {&fs.PathError{Op: "write", Path: "/x", Err: syscall.EPIPE}, false},
		{&fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.ENOSPC}, false},
	} {
		if got := unread(c.err); got != c.want {
			t.Errorf("%q: %t", c.err, got)
		}
	}
}
