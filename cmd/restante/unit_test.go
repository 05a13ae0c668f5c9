package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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

// TestUnitSandbox runs the server as the unit would have systemd run it, as far as
// that can be had without systemd: another user, one capability, no new privileges,
// the system calls of the unit and no others, and of /proc what belongs to the user.
// It serves the real ports, in a network of the test's own.
func TestUnitSandbox(t *testing.T) {
	packageTest(t, "systemd-analyze", "setpriv", "ip", "mount")
	const ownProc = "mount -t proc -o subset=pid,hidepid=invisible proc /proc"
	if err := tool("unshare", "--mount", "sh", "-c", ownProc); err != nil {
		t.Skip(err)
	}
	filter := filepath.Join(t.TempDir(), "filter")
	writeFile(t, filter, encodeFilter(onlyCalls(t, unitCalls(t))))
	ownNetwork(t)
	s := prepareServer(t, serverOptions{})
	restante(t, s.config, testPassword+"\n", "user", "add", "alice@"+testDomain, "--password-stdin")
	const nobody = "65534"
	for _, dir := range []string{filepath.Dir(s.dir), s.dir, filepath.Dir(filter)} { // for everybody to pass
		must(t, os.Chmod(dir, 0o755))
	}
	bin := publicPrograms(t, "restante", "filtered")
	must(t, errors.Join(tool("chown", "-R", nobody+":"+nobody, s.dir), os.Chmod(filter, 0o644), os.Chmod(filepath.Dir(filepath.Dir(filter)), 0o755)))
	s.start(serverOptions{
		env: []string{"RESTANTE_SMTP_LISTEN=127.0.0.1:25", "RESTANTE_POP3_LISTEN=127.0.0.1:110", "RESTANTE_POP3_LISTEN_TLS=127.0.0.1:995", "RESTANTE_METRICS_LISTEN=127.0.0.1:9125", "PATH=" + bin + ":" + os.Getenv("PATH")},
		under: []string{"unshare", "--mount", "sh", "-c", ownProc + ` && exec "$@"`, "sh",
			"setpriv", "--reuid=" + nobody, "--regid=" + nobody, "--clear-groups", "--inh-caps=-all,+net_bind_service",
			"--ambient-caps=-all,+net_bind_service", "--bounding-set=-all,+net_bind_service", "--no-new-privs", "filtered", filter},
	})
	mail := []byte("Subject: through the sandbox\r\n\r\nbody\r\n")
	s.deliver(t, mail, "alice@"+testDomain)
	if all := s.fetchAll(t, "alice"); len(all) != 1 {
		t.Errorf("%d messages", len(all))
	} else {
		sameOctets(t, withoutTrace(t, all[0]), mail)
	}
	s.log.one(t, "landlock in force", nil)
	if metrics := getRaw(t, "127.0.0.1:9125", "/metrics"); !strings.Contains(metrics, "\nprocess_resident_memory_bytes ") {
		t.Errorf("the server cannot tell of its memory:\n%s", metrics)
	}
	// As many as the system allows may wait for their turn: see Send-Q.
	if out, err := exec.Command("ss", "-Hltn", "sport", "=", "25").Output(); err != nil || strings.Fields(string(out))[2] != systemQueue(t) {
		t.Errorf("not %s clients may wait for SMTP: %v, %s", systemQueue(t), err, out)
	}
	confinedBy(t, s.cmd.Process.Pid, map[string]string{
		"Uid": strings.Repeat(nobody+"\t", 3) + nobody, "NoNewPrivs": "1", "Seccomp": "2",
		"CapBnd": "0000000000000400", "CapEff": "0000000000000400", "CapAmb": "0000000000000400",
	})
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// getRaw asks by HTTP from the network of this thread.
func getRaw(t *testing.T, address, path string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	must(t, err)
	defer c.Close()
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
	must(t, errors.Join(err, c.SetReadDeadline(time.Now().Add(deadline))))
	all, err := io.ReadAll(c)
	must(t, err)
	return string(all)
}

func systemQueue(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("cat", "/proc/sys/net/core/somaxconn").Output() // of this network
	must(t, err)
	return strings.TrimSpace(string(out))
}

// publicPrograms copies programs of this test to where everybody may run them.
func publicPrograms(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
	for _, name := range names {
		program, err := exec.LookPath(name)
		must(t, errors.Join(err, tool("cp", "-L", program, filepath.Join(dir, name))))
	}
	return dir
}

// confinedBy compares lines of the status of a process.
func confinedBy(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for key, value := range want {
		if !strings.Contains(string(status), "\n"+key+":\t"+value+"\n") {
			t.Errorf("no %s %q in the status of the server:\n%s", key, value, status)
		}
	}
}

// ownNetwork gives this test, and what it starts, a network that has nothing but
// loopback. The thread that is in it ends with the test.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		t.Skipf("no network of its own can be had: %v", err)
	}
	must(t, tool("ip", "link", "set", "lo", "up"))
}

// unitCalls are the system calls that the unit allows, by name.
func unitCalls(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	must(t, err)
	allowed := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		names, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		names, not := strings.CutPrefix(names, "~")
		if len(allowed) == 0 {
			names += " @default" // always allowed
		}
		for name := range strings.FieldsSeq(names) {
			for _, call := range callsOf(t, name) {
				allowed[call] = !not
			}
		}
	}
	return allowed
}

// callsOf are the system calls of a group, or the one that is named.
func callsOf(t *testing.T, name string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", name).Output()
	must(t, err)
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			calls = append(calls, callsOf(t, line)...)
		}
	}
	return calls
}

// onlyCalls is a seccomp filter that lets these system calls pass; others fail with
// EPERM, as SystemCallErrorNumber= says.
func onlyCalls(t *testing.T, allowed map[string]bool) []unix.SockFilter {
	t.Helper()
	numbers := callNumbers(t)
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for name, ok := range allowed {
		if number, known := numbers[name]; ok && known {
			filter = append(filter,
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jt: 0, Jf: 1},
				unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
		}
	}
	if len(filter) < 200 {
		t.Fatalf("only %d instructions", len(filter))
	}
	return append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}

// callNumbers reads them from the headers of the C library.
func callNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	found, err := filepath.Glob("/usr/include/*/asm/unistd_64.h")
	if err != nil || len(found) == 0 {
		t.Skipf("no headers with the numbers of system calls: %v", err)
	}
	f, err := os.Open(found[0])
	must(t, err)
	defer f.Close()
	numbers := make(map[string]uint32)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var name string
		var number uint32
		if n, _ := fmt.Sscanf(lines.Text(), "#define __NR_%s %d", &name, &number); n == 2 {
			numbers[name] = number
		}
	}
	return numbers
}

func encodeFilter(filter []unix.SockFilter) []byte {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(filter)*size))
}

// filtered is a program: it gives itself the seccomp filter of a file, and becomes
// the program that is named after it.
func filtered() {
	err := errors.New("a filter and a command are needed")
	if len(os.Args) > 2 {
		err = filterAndRun(os.Args[1], os.Args[2:])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func filterAndRun(file string, command []string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is for the thread that becomes the program
	n := len(raw) / int(unsafe.Sizeof(unix.SockFilter{}))
	filter := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return syscall.Exec(program, command, os.Environ())
}
