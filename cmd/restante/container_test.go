package main

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// containerFile is what the last stage of packaging/Containerfile says.
type containerFile struct {
	build      []string   // the RUN lines of the first stage, which builds
	copies     [][]string // arguments of COPY
	user       string
	volume     string
	dir        string
	ports      []string
	env        []string
	entrypoint []string
	command    []string
}

// readContainerFile knows the instructions that are used, and no others: what
// this test would not follow, it must not pass.
func readContainerFile(t *testing.T) *containerFile {
	t.Helper()
	text, err := os.ReadFile("packaging/Containerfile")
	must(t, err)
	f := &containerFile{}
	stage := 0
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		name, args := words[0], words[1:]
		rest := strings.TrimSpace(strings.TrimPrefix(line, name))
		switch key := fmt.Sprintf("%d %s", stage, name); {
		case name == "FROM":
			stage++
			if last := stage == 2; last != (rest == "scratch") {
				t.Fatalf("stage %d is from %s", stage, rest)
			}
		case key == "1 RUN":
			f.build = append(f.build, rest)
		case key == "1 WORKDIR", key == "1 COPY" && rest == ". .": // the source
		case key == "2 COPY":
			f.copies = append(f.copies, args)
		case key == "2 USER":
			f.user = rest
		case key == "2 VOLUME":
			f.volume = rest
		case key == "2 WORKDIR":
			f.dir = rest
		case key == "2 EXPOSE":
			f.ports = args
		case key == "2 ENV":
			f.env = append(f.env, rest)
		case key == "2 ENTRYPOINT":
			must(t, json.Unmarshal([]byte(rest), &f.entrypoint))
		case key == "2 CMD":
			must(t, json.Unmarshal([]byte(rest), &f.command))
		default:
			t.Fatalf("the test does not know what this does in stage %d: %s", stage, line)
		}
	}
	return f
}

// image makes the file system that a container of the file has.
func (f *containerFile) image(t *testing.T) *machine {
	t.Helper()
	tree, built, root := sourceTree(t), t.TempDir(), t.TempDir()
	for _, dir := range []string{root, filepath.Dir(root)} {
		must(t, os.Chmod(dir, 0o755))
	}
	for _, line := range f.build {
		inTree(t, tree, strings.ReplaceAll(line, "/image", built))
	}
	for _, args := range f.copies {
		owner := "0:0"
		for strings.HasPrefix(args[0], "--") {
			if id, ok := strings.CutPrefix(args[0], "--chown="); ok {
				owner = id
			} else if args[0] != "--from=build" {
				t.Fatalf("COPY %s", args[0])
			}
			args = args[1:]
		}
		from, ok := strings.CutPrefix(args[0], "/image/")
		if !ok || len(args) != 2 {
			t.Fatalf("COPY of %q, which nothing makes", args)
		}
		to := filepath.Join(root, args[1])
		must(t, os.MkdirAll(to, 0o755))
		must(t, tool("cp", "-rT", filepath.Join(built, from), to))
		must(t, tool("chown", "-R", owner, to))
	}
	m := &machine{t: t, root: root}
	t.Cleanup(func() { m.stop(syscall.SIGKILL) })
	return m
}

// TestContainer builds what packaging/Containerfile builds, without a container
// engine, and runs the server with nothing else around it.
func TestContainer(t *testing.T) {
	t.Parallel()
	packageTest(t, "make", "go")
	f := readContainerFile(t)
	m := f.image(t)
	uid, err := m.uid(f.user)
	must(t, err)
	st, err := os.Stat(m.path(f.volume))
	must(t, err)
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || uid == 0 || sys.Uid != uid || sys.Gid != uid {
		t.Errorf("%s is of %d:%d, and %s is %d", f.volume, sys.Uid, sys.Gid, f.user, uid)
	}
	if want := []string{"25", "110", "995"}; !slices.Equal(f.ports, want) {
		t.Errorf("ports %q, want %q", f.ports, want)
	}
	static(t, m.path(f.entrypoint[0]))
	for _, part := range []string{"-f cmd/restante/packaging/Containerfile .", "-v restante:" + f.volume + " ", " exec restante " + f.entrypoint[0] + " ", "user " + fmt.Sprint(uid)} {
		if text, err := manual.ReadFile("manual/install.md"); err != nil || !strings.Contains(string(text), part) {
			t.Errorf("the manual does not say %q (%v)", part, err)
		}
	}

	run := func(args ...string) *exec.Cmd {
		cmd := m.command(uid, append(slices.Clone(f.entrypoint), args...)...)
		cmd.Dir = f.dir
		// Only ports of the loopback, and no root to bind low ones.
		cmd.Env = append(slices.Clone(f.env), "RESTANTE_SMTP_LISTEN=127.0.0.1:0", "RESTANTE_POP3_LISTEN=127.0.0.1:0",
			"RESTANTE_POP3_LISTEN_TLS=127.0.0.1:0", "RESTANTE_LOG_FORMAT=json")
		return cmd
	}
	setUp := run("init", "--domain", testDomain, "--hostname", "localhost", "--user", "alice", "--password-stdin")
	setUp.Stdin = strings.NewReader(testPassword + "\n")
	if out, err := setUp.CombinedOutput(); err != nil || !strings.Contains(string(out), "wrote the configuration "+f.volume) {
		t.Fatalf("init: %v\n%s", err, out)
	}
	if m.launch(run(f.command...)) != 0 {
		t.Fatal("the server does not start")
	}
	mail := []byte("Subject: contained\r\n\r\nhere\r\n")
	m.server.deliver(t, mail, "alice@"+testDomain)
	all := m.server.fetchAll(t, "alice")
	if len(all) != 1 {
		t.Fatalf("%d messages, not the one", len(all))
	}
	sameOctets(t, withoutTrace(t, all[0]), mail)
	m.stop(syscall.SIGTERM)
	m.onlyIn(f.volume, "/usr/bin/restante", "/etc/passwd")
}

// static expects a program that needs no other file to start.
func static(t *testing.T, name string) {
	t.Helper()
	program, err := elf.Open(name)
	must(t, err)
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: %v", name, p.Type)
		}
	}
}

// onlyIn expects no files but these, and those in a directory.
func (m *machine) onlyIn(dir string, files ...string) {
	m.t.Helper()
	must(m.t, filepath.WalkDir(m.root, func(name string, d os.DirEntry, err error) error {
		inside := strings.TrimPrefix(name, m.root)
		if err == nil && !d.IsDir() && !strings.HasPrefix(inside, dir+"/") && !slices.Contains(files, inside) {
			m.t.Errorf("nobody needs %s", inside)
		}
		return err
	}))
}
