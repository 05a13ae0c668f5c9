package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// crashDiskSize is ample room for the load of a round and what earlier ones left: a
// full disk would be a reason to refuse mail. The file is sparse.
const crashDiskSize = 1 << 30

// crashRounds is how many crashes a test makes: CRASH_ROUNDS, or 10.
func crashRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CRASH_ROUNDS")
	if text == "" {
		return 10
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CRASH_ROUNDS is %q, not a number of rounds", text)
	}
	return n
}

// TestPowerCut: what was answered 250 outlives a power cut, whole and once, and
// what a QUIT removed does not come back.
func TestPowerCut(t *testing.T) {
	c := newCrash(t, "restante", newLoopDisk(t, crashDiskSize))
	c.run(crashRounds(t))
	c.report(t)
}

// TestPowerCutNoticesMissingSync shows that the checks of TestPowerCut can fail:
// a server that syncs nothing loses mail, and they say so.
func TestPowerCutNoticesMissingSync(t *testing.T) {
	disk := newLoopDisk(t, crashDiskSize)
	program := filepath.Join(t.TempDir(), "restante")
	build := exec.Command("go", "build", "-tags", "unsynced", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	c := newCrash(t, program, disk)
	c.run(10)
	if c.ledger.count(lost, partial) == 0 {
		t.Errorf("no loss in %d rounds: %v %v", c.rounds, c.ledger.findings, c.ledger.troubles)
	}
}

// TestKill: the same promises when the server is killed.
func TestKill(t *testing.T) {
	c := newCrash(t, "restante", nil)
	c.run(crashRounds(t))
	c.report(t)
}
