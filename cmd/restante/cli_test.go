package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommands runs the scripts of testdata/script. In them $RESTANTE_CONFIG is
// $WORK/restante.toml, and there is more than testscript has:
//
//	status N PROGRAM ARGS    the program ends with exit status N
//	json FILE WANT           FILE is the JSON of WANT, where "*" is any value that is not empty
//	[!] terminal FILE PROGRAM ARGS
//	                         the program on a terminal of its own, with the person of FILE before it;
//	                         stdout is then what the person saw
//	[root]                   the tests run as root
//	[serviceuser]            there is a user restante
func TestCommands(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setUpScript,
		Condition:           scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   scriptStatus,
			"json":     scriptJSON,
			"terminal": scriptTerminal,
		},
	})
}

func setUpScript(e *testscript.Env) error {
	e.Setenv("RESTANTE_CONFIG", filepath.Join(e.WorkDir, "restante.toml"))
	if os.Geteuid() != 0 {
		return nil
	}
	// The scripts act as other users too, who must be able to come here.
	program, err := exec.LookPath("restante")
	if err != nil {
		return err
	}
	for _, dir := range []string{e.WorkDir, filepath.Dir(program)} {
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func scriptCondition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "serviceuser":
		_, err := user.Lookup(serviceUser)
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %s", name)
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM ARGS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: json FILE WANT")
	}
	var got, want any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &got))
	ts.Check(json.Unmarshal([]byte(strings.ReplaceAll(ts.ReadFile(args[1]), "$WORK", ts.Getenv("WORK"))), &want))
	anything := cmp.FilterValues(func(a, b any) bool { return a == "*" || b == "*" },
		cmp.Comparer(func(a, b any) bool { return a != nil && b != nil && a != "" && b != "" }))
	if d := cmp.Diff(want, got, anything); d != "" {
		ts.Fatalf("the JSON differs (-want +got):\n%s", d)
	}
}

func scriptTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] terminal FILE PROGRAM ARGS")
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "RESTANTE_CONFIG="+ts.Getenv("RESTANTE_CONFIG"))
	term, err := startOnTerminal(cmd)
	ts.Check(err)
	ts.Defer(term.close)
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if err := term.step(strings.TrimSuffix(line, "\n")); err != nil {
			ts.Fatalf("%v; the terminal shows:\n%s", err, term.shown())
		}
	}
	err = term.wait()
	fmt.Fprint(ts.Stdout(), term.shown())
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		ts.Check(err)
	}
	if (err != nil) != neg {
		ts.Fatalf("%v: %v; the terminal shows:\n%s", args[1:], cmd.ProcessState, term.shown())
	}
}
