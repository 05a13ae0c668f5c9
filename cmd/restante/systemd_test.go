package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// systemd is a service manager that runs, on a copy of this machine's files.
type systemd struct {
	t   *testing.T
	pid string // of it, here
}

// bootSystemd starts systemd in namespaces of its own, network and processes among
// them. It is gone with the test.
func bootSystemd(t *testing.T) *systemd {
	t.Helper()
	packageTest(t, "/lib/systemd/systemd", "systemctl", "unshare", "nsenter", "ip", "apt-get", "make", "go", "curl")
	cmd := exec.Command("unshare", "--fork", "--kill-child", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "testdata/systemd/boot", t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("systemd:\n%s", &out)
		}
	})
	s := &systemd{t: t}
	until(t, slowly, "systemd runs", func() bool {
		select {
		case <-exited:
			t.Fatalf("it ends:\n%s", &out)
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
		s.pid = strings.TrimSpace(string(children))
		if err != nil || s.pid == "" {
			return false
		}
		state, _ := s.try("systemctl is-system-running")
		return strings.TrimSpace(state) == "running"
	})
	return s
}

// try runs a command line in there, and gives what it prints.
func (s *systemd) try(command string) (string, error) {
	cmd := exec.Command("nsenter", "--target", s.pid, "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--root",
		"env", "--chdir=/root", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", command)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *systemd) sh(command string) string {
	s.t.Helper()
	out, err := s.try(command)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", command, err, out, s.log())
	}
	return out
}

// wants runs a command whose output must have each of the parts.
func (s *systemd) wants(command string, parts ...string) {
	s.t.Helper()
	out := s.sh(command)
	for _, part := range parts {
		if !strings.Contains(out, part) {
			s.t.Errorf("%s: no %q in\n%s%s", command, part, out, s.log())
		}
	}
}

func (s *systemd) log() string {
	log, _ := s.try("journalctl -u restante -o cat --no-pager -n 40")
	return "the log of the service:\n" + log
}

// put copies a file or directory of this machine to the home of root in there.
func (s *systemd) put(name, to string) {
	s.t.Helper()
	there := filepath.Join("/proc", s.pid, "root/root", to)
	must(s.t, errors.Join(os.MkdirAll(filepath.Dir(there), 0o755), tool("cp", "-r", name, there)))
}

// deliver sends mail to port 25, and fetch gets message n by port 995.
func (s *systemd) deliver(subject string) {
	s.t.Helper()
	s.sh(`printf 'Subject: ` + subject + `\r\n\r\nbody\r\n' | curl -sS smtp://127.0.0.1 --mail-from a@client.example --mail-rcpt alice@example.org --upload-file -`)
}

func (s *systemd) fetches(password string, subjects ...string) {
	s.t.Helper()
	for i, subject := range subjects {
		s.wants(fmt.Sprintf("curl -sS --insecure --user alice@example.org:%s pop3s://127.0.0.1/%d", password, i+1), "Subject: "+subject+"\r\n")
	}
}

// TestSystemd does what the topic "install" says, with a service manager and a package
// manager that are no fakes: what the unit forbids is forbidden.
func TestSystemd(t *testing.T) {
	t.Parallel()
	s := bootSystemd(t)
	one, two := buildPackages(t)
	s.put(one, "bin/"+filepath.Base(one))
	password := ""
	commands := 0
	for _, line := range indented(t, "install") {
		command, ok := strings.CutPrefix(line, "sudo ")
		if !ok || strings.HasPrefix(command, "make ") || strings.HasPrefix(command, "useradd ") {
			continue
		}
		commands++
		if strings.HasPrefix(command, "restante user add") {
			command += " --generate" // nobody is there to type a password
		}
		out := s.sh(command)
		if found := regexp.MustCompile(`password +(\S+) `).FindStringSubmatch(out); found != nil && password == "" {
			password = found[1]
		}
	}
	if commands != 10 || password == "" {
		t.Fatalf("%d commands, password %q", commands, password)
	}
	s.deliver("first")
	s.fetches(password, "first")
	s.confined()
	s.limited()

	s.sh("systemctl kill --signal=KILL restante")
	eventually(t, "the server is back", func() bool {
		out, _ := s.try("restante status")
		return strings.Contains(out, "running since")
	})
	s.deliver("second")
	s.put(two, "bin/"+filepath.Base(two))
	s.wants("apt-get install -y ./bin/"+filepath.Base(two)+"; dpkg -s restante", "\nVersion: 1.1\n")
	s.fetches(password, "first", "second")
	s.sh("systemctl stop restante")
	s.wants("systemctl show --property=Result restante", "Result=success")
	s.wants("apt-get purge -y restante; ls /var/lib/restante/mail/example.org", "alice")
	s.withoutPackage(password)
}

// confined looks at what the unit has made of the server.
func (s *systemd) confined() {
	s.t.Helper()
	s.wants("journalctl -u restante -o cat", `msg="landlock in force"`)
	s.wants("cat /proc/$(systemctl show --property=MainPID --value restante)/status",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t0000000000000400\n", "CapEff:\t0000000000000400\n")
	// Who cannot be dumped has files in /proc that are root's.
	s.wants("stat -c %U /proc/$(systemctl show --property=MainPID --value restante)/environ", "root")
	s.wants("ps -o user= -p $(systemctl show --property=MainPID --value restante)", "restante")
	s.wants("find /var/lib/restante ! -user restante -o -perm /077 ! -type l; echo end", "end")
	if odd := s.sh("find /var/lib/restante ! -user restante -o -perm /077 ! -type l"); odd != "" {
		s.t.Errorf("these are not the service's alone:\n%s", odd)
	}
}

// limited gives the service a limit of memory, and a port for metrics, which reads
// /proc, of which the unit shows little.
func (s *systemd) limited() {
	s.t.Helper()
	s.sh(`printf '\n[metrics]\nlisten = ["127.0.0.1:9125"]\n' >/root/m; sed -i '/^\[metrics\]/d' /etc/restante/restante.toml; cat /root/m >>/etc/restante/restante.toml`)
	s.sh("restante config check && systemctl set-property --runtime restante MemoryMax=300M && systemctl restart restante")
	s.wants("journalctl -u restante -o cat", `msg="memory limit of the control group" octets=283115520`)
	s.wants("curl -sS http://127.0.0.1:9125/metrics", "\nprocess_resident_memory_bytes ")
	s.wants("curl -sS http://127.0.0.1:9125/readyz", "ok")
	// As many clients as the system allows may wait for their turn: Send-Q of ss.
	s.wants(`test "$(ss -Hltn sport = 25 | awk '{ print $3 }')" = "$(cat /proc/sys/net/core/somaxconn)" && echo as many`, "as many")
}

// withoutPackage installs the program in the other way of the topic, on the mail that
// is there.
func (s *systemd) withoutPackage(password string) {
	s.t.Helper()
	tree := sourceTree(s.t)
	inTree(s.t, tree, "make build")
	for _, name := range []string{"Makefile", "bin", "cmd/restante/packaging"} {
		s.put(filepath.Join(tree, name), "src/"+name)
	}
	s.sh("cd src && make install && id restante && systemctl daemon-reload && systemctl enable --now restante")
	s.wants("systemctl show --property=ExecStart restante", "/usr/local/bin/restante serve")
	s.deliver("third")
	s.fetches(password, "first", "second", "third")
}
