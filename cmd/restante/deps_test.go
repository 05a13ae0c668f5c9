package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of this module each package may import, and which
// outside ones nobody else may. A leaf knows no other leaf: only the program
// joins them.
var allowed = map[string][]string{
	"restante/auth":                          {"restante/auth/internal/foreign", "restante/auth/internal/throttle"},
	"restante/auth/internal/foreign":         {},
	"restante/auth/internal/throttle":        {},
	"restante/storage":                       {"restante/storage/internal/journal", "restante/storage/internal/stable"},
	"restante/storage/internal/journal":      {"restante/storage/internal/stable"},
	"restante/storage/internal/stable":       {},
	"restante/smtpd":                         {},
	"restante/pop3d":                         {},
	"restante/cmd/restante/internal/config":  {"restante/cmd/restante/internal/nearest"},
	"restante/cmd/restante/internal/nearest": {},
	"restante/cmd/restante/internal/metrics": {},
	"restante/cmd/restante/internal/certs":   {"restante/cmd/restante/internal/replace"},
	"restante/cmd/restante/internal/control": {},
	"restante/cmd/restante/internal/acme":    {"restante/cmd/restante/internal/replace"},
	"restante/cmd/restante/internal/replace": {},
	"restante/cmd/restante/internal/listen":  {},
	"restante/cmd/restante/internal/loadgen": {},
	"restante/cmd/restante": {
		"restante/auth", "restante/storage", "restante/smtpd", "restante/pop3d",
		"restante/cmd/restante/internal/config", "restante/cmd/restante/internal/certs", "restante/cmd/restante/internal/listen",
		"restante/cmd/restante/internal/loadgen", "restante/cmd/restante/internal/metrics", "restante/cmd/restante/internal/nearest",
		"restante/cmd/restante/internal/control", "restante/cmd/restante/internal/acme",
	},
}

func TestImportsFormAStar(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "restante/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(allowed) {
		t.Errorf("%d packages, the table has %d", len(lines), len(allowed))
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		pkg := fields[0]
		may, known := allowed[pkg]
		if !known {
			t.Errorf("package %s is not in the table", pkg)
			continue
		}
		for _, imported := range fields[1:] {
			if strings.HasPrefix(imported, "restante/") && imported != pkg && !slices.Contains(may, imported) {
				t.Errorf("%s imports %s", pkg, imported)
			}
		}
	}
}

// Libraries that belong to one package only.
var owned = map[string]string{
	"github.com/emersion/go-smtp":             "restante/smtpd",
	"modernc.org/sqlite":                      "restante/auth",
	"golang.org/x/crypto/argon2":              "restante/auth",
	"github.com/spf13/cobra":                  "restante/cmd/restante",
	"github.com/cpuguy83/go-md2man/v2/md2man": "restante/cmd/restante",
}

func TestLibrariesStayWithTheirOwner(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "restante/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		for _, imported := range fields[1:] {
			if owner, ok := owned[imported]; ok {
				seen[imported] = true
				if fields[0] != owner {
					t.Errorf("%s imports %s, which is for %s", fields[0], imported, owner)
				}
			}
		}
	}
	if len(seen) != len(owned) {
		t.Errorf("of the libraries in the table only %v are used", seen)
	}
}
