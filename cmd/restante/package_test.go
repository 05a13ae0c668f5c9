package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestDebianPackage is the life of a package on a machine: installed, set up,
// upgraded with mail in place, removed, installed again, purged.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	packageTest(t, "dpkg", "dpkg-deb", "make", "go", "useradd", "groupadd", "ldd", "gzip")
	one, two := buildPackages(t)
	m := newMachine(t)

	// As in a container: without a service manager nothing is asked of one.
	m.dpkg("-i", one)
	m.installed("1.0")
	m.ownedByService("var/lib/restante")
	if asked := m.systemctlAsked(); len(asked) > 0 {
		t.Errorf("systemctl was asked %q where systemd does not run", asked)
	}

	must(t, os.MkdirAll(m.path("run/systemd/system"), 0o755))
	m.wants(m.dpkg("-i", one), "now set it up: restante init")
	if asked := m.systemctlAsked(); slices.Contains(asked, "start restante") {
		t.Errorf("a server that is not set up was started: %q", asked)
	}
	m.setUp()
	mail := []byte("Subject: kept\r\n\r\nThis stays.\r\n")
	m.current().deliver(t, mail, "alice@"+testDomain)

	m.upgrade(two)
	m.refusesRestart(two)
	before := snapshot(t, m.path("var/lib/restante/mail"))

	m.dpkg("-r", "restante")
	m.removed(before)
	m.dpkg("-i", one)
	if asked := m.systemctlAsked(); !slices.Contains(asked, "start restante") {
		t.Errorf("a service that is enabled was not started: %q", asked)
	}
	m.ownedByService("var/lib/restante")
	m.wants(m.dpkg("-P", "restante"), "the mail stays in /var/lib/restante", "stays in /etc/restante/restante.toml")
	m.removed(before)

	must(t, os.RemoveAll(m.path("run/systemd")))
	m.dpkg("-i", two)
	// As init leaves it where the user was not there yet.
	data := m.path("var/lib/restante")
	must(t, os.Chown(data, 0, 0))
	m.wants(m.dpkg("-i", two), "/var/lib/restante is root's")
	uid, err := m.uid("restante")
	must(t, errors.Join(err, os.Chown(data, int(uid), int(uid))))
	m.systemctl("start restante")
	all := m.current().fetchAll(t, "alice")
	if len(all) != 1 {
		t.Fatalf("%d messages, not the one", len(all))
	}
	sameOctets(t, withoutTrace(t, all[0]), mail)
}

// buildPackages makes two versions.
func buildPackages(t *testing.T) (one, two string) {
	t.Helper()
	tree := sourceTree(t)
	for _, version := range []string{"1.0", "1.1"} {
		inTree(t, tree, "make deb VERSION="+version)
	}
	found, err := filepath.Glob(filepath.Join(tree, "bin", "restante_1.?_*.deb"))
	if err != nil || len(found) != 2 {
		t.Fatalf("packages %q, %v", found, err)
	}
	return found[0], found[1]
}

// installed looks for everything that a package brings.
func (m *machine) installed(version string) {
	m.t.Helper()
	if got := m.dpkg("-s", "restante"); !strings.Contains(got, "Status: install ok installed\n") || !strings.Contains(got, "\nVersion: "+version+"\n") {
		m.t.Errorf("not installed as version %s:\n%s", version, got)
	}
	if out := m.restante("", "version"); !strings.HasPrefix(out, "restante ") {
		m.t.Errorf("the program says %q", out)
	}
	for name, part := range map[string]string{
		"lib/systemd/system/restante.service":               "\nExecStart=/usr/bin/restante serve\n",
		"usr/share/bash-completion/completions/restante":    "__start_restante",
		"usr/share/zsh/vendor-completions/_restante":        "#compdef restante",
		"usr/share/fish/vendor_completions.d/restante.fish": "complete -c restante",
		"usr/share/doc/restante/copyright":                  "MIT License",
	} {
		if !strings.Contains(readText(m.path(name)), part) {
			m.t.Errorf("%s has no %q", name, part)
		}
	}
	for _, page := range []string{"man1/restante.1.gz", "man1/restante-user-add.1.gz", "man7/restante-install.7.gz"} {
		if out, err := exec.Command("gzip", "-dc", m.path("usr/share/man/"+page)).Output(); err != nil || !strings.Contains(string(out), ".TH ") {
			m.t.Errorf("%s: %v\n%.200s", page, err, out)
		}
	}
	if _, err := os.Stat(m.path("etc/restante")); err == nil && m.current() == nil {
		m.t.Error("the package brings a configuration, which is for init to write")
	}
}

// ownedByService expects a directory for nobody but the service.
func (m *machine) ownedByService(name string) {
	m.t.Helper()
	uid, err := m.uid("restante")
	must(m.t, err)
	st, err := os.Stat(m.path(name))
	must(m.t, err)
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != uid || sys.Gid != uid || st.Mode().Perm() != 0o700 || uid == 0 {
		m.t.Errorf("%s: %v of %d:%d, not of %d", name, st.Mode(), sys.Uid, sys.Gid, uid)
	}
}

func (m *machine) wants(said string, parts ...string) {
	m.t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			m.t.Errorf("%q is not in:\n%s", part, said)
		}
	}
}

const machineConfig = `hostname = "localhost"
data_dir = "/var/lib/restante"
[smtp]
listen = ["127.0.0.1:0"]
[pop3]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
[log]
format = "json"
[auth]
argon2_memory = "1MiB"
argon2_time = 1
`

// setUp does what the manual says, and then moves the server to other ports.
func (m *machine) setUp() {
	m.t.Helper()
	config := m.path("etc/restante/restante.toml")
	m.wants(m.restante(testPassword+"\n", "init", "--domain", testDomain, "--hostname", "mail."+testDomain, "--user", "alice", "--password-stdin"),
		"wrote the configuration /etc/restante/restante.toml", "added the user alice@"+testDomain)
	m.ownedByService("var/lib/restante")
	must(m.t, os.WriteFile(config, []byte(machineConfig), 0o644))
	if m.systemctl("enable --now restante") != 0 {
		m.t.Fatal("the service does not start")
	}
}

// upgrade expects that the server of the new package takes the place of the old.
func (m *machine) upgrade(file string) {
	m.t.Helper()
	before := m.pid()
	m.systemctlAsked()
	m.dpkg("-i", file)
	m.installed("1.1")
	want := []string{"daemon-reload", "is-active --quiet restante", "restart restante"}
	if asked := m.systemctlAsked(); !slices.Equal(asked, want) {
		m.t.Errorf("systemctl was asked %q, want %q", asked, want)
	}
	if m.pid() == 0 || m.pid() == before {
		m.t.Fatal("the server was not restarted")
	}
	d := m.current().talk(m.t, "pop3s").logIn("alice")
	d.want("STAT", "+OK 1 ")
	d.want("QUIT", "+OK")
}

// refusesRestart expects that a server runs on when the next could not start,
// and is restarted when it could.
func (m *machine) refusesRestart(file string) {
	m.t.Helper()
	config := m.path("etc/restante/restante.toml")
	before := m.pid()
	d := m.current().talk(m.t, "pop3s").logIn("alice")
	for problem, text := range map[string]string{
		"smtp.lissen":                strings.Replace(machineConfig, "listen", "lissen", 1),
		"none.pem":                   machineConfig + certificateSetting("/etc/none.pem", "/etc/none.key"),
		"there is no data directory": strings.Replace(machineConfig, "/var/lib/restante", "/srv/mail", 1),
	} {
		must(m.t, os.WriteFile(config, []byte(text), 0o644))
		m.wants(m.dpkg("-i", file), "the check of the configuration failed", problem, "the server of before keeps running")
		if m.pid() != before {
			m.t.Fatalf("%s: the server of before does not run", problem)
		}
	}
	if _, err := os.Stat(m.path("srv/mail")); err == nil {
		m.t.Error("a data directory that is not there was made")
	}
	d.want("STAT", "+OK 1 ")
	d.want("QUIT", "+OK")
	must(m.t, os.WriteFile(config, []byte(machineConfig), 0o644))
	m.dpkg("-i", file)
	if m.pid() == 0 || m.pid() == before {
		m.t.Fatal("the server was not restarted")
	}
}

// removed expects that everything is gone but what is the owner's.
func (m *machine) removed(mail []string) {
	m.t.Helper()
	if m.pid() != 0 {
		m.t.Error("the server runs without its program")
	}
	found, err := exec.Command("find", m.path("usr"), m.path("etc/systemd"), "-path", "*restante*").Output()
	if len(found) > 0 {
		m.t.Errorf("left behind, %v:\n%s", err, found)
	}
	if got := snapshot(m.t, m.path("var/lib/restante/mail")); !slices.Equal(got, mail) {
		m.t.Errorf("the mail is\n%s\nand was\n%s", strings.Join(got, "\n"), strings.Join(mail, "\n"))
	}
	for _, name := range []string{"etc/restante/restante.toml", "var/lib/restante/restante.db"} {
		if _, err := os.Stat(m.path(name)); err != nil {
			m.t.Error(fmt.Errorf("it was the owner's: %w", err))
		}
	}
}
