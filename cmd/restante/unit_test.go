package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// unitFile is the systemd unit.
const unitFile = "packaging/restante.service"

// TestUnitExposure has systemd judge the unit. What is left of the exposure is that a
// server has a network, and ports below 1024.
func TestUnitExposure(t *testing.T) {
	packageTest(t, "systemd-analyze")
	const most = 1.4
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", unitFile).CombinedOutput()
	found := regexp.MustCompile(`Overall exposure level for restante.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if score, err := strconv.ParseFloat(string(found[1]), 64); err != nil || score > most {
		t.Errorf("the exposure is %s, more than %v:\n%s", found[1], most, out)
	}
}

// TestUnitVerified has systemd read the unit, with a program where it is expected.
func TestUnitVerified(t *testing.T) {
	packageTest(t, "systemd-analyze")
	text, err := os.ReadFile(unitFile)
	must(t, err)
	program, err := exec.LookPath("restante")
	must(t, err)
	file := filepath.Join(t.TempDir(), "restante.service")
	writeFile(t, file, bytes.ReplaceAll(text, []byte("/usr/local/bin/restante"), []byte(program)))
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || bytes.Contains(out, []byte("restante.service")) {
		t.Errorf("%v\n%s", err, out)
	}
}
