package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// empty fails the test if anything is left in dir.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%v was left", left)
	}
}

func TestBench(t *testing.T) {
	dir := t.TempDir()
	out := restante(t, "/dev/null", "", "bench", "--dir", dir, "--duration", "200ms", "--connections", "1,3")
	figure := regexp.MustCompile(`(?m)^((?:write|receive|log in|fetch)[^\n]*?) {2,}(\d+) +([\d,]+) +(\S+)(?: ms)? `)
	var got [][]string
	for _, m := range figure.FindAllStringSubmatch(out, -1) {
		if m[3] == "0" {
			t.Errorf("nothing was done: %s", m[0])
		}
		got = append(got, []string{m[1], m[2]})
	}
	want := [][]string{
		{"write 4 KiB and sync", "1"},
		{"receive 4 KiB", "1"}, {"receive 4 KiB", "3"}, {"receive 1 MiB", "10"},
		{"log in", "10"}, {"log in, TLS", "10"},
		{"fetch 4 KiB", "10"}, {"fetch 4 KiB, pipelined", "10"}, {"fetch 4 KiB, TLS", "10"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the measurements differ (-want +got):\n%s\n%s", d, out)
	}
	for _, sentence := range []string{"Measuring in " + dir + " (", "\nThis machine takes about ", "With 1 sender at a time", "Each figure is of 200ms;"} {
		if !strings.Contains(out, sentence) {
			t.Errorf("no %q in:\n%s", sentence, out)
		}
	}
	empty(t, dir)
}

// TestBenchJSON holds the keys, which scripts rely on.
func TestBenchJSON(t *testing.T) {
	dir := t.TempDir()
	out := restante(t, "/dev/null", "", "bench", "--dir", dir, "--duration", "200ms", "--connections", "2", "--json")
	type one struct {
		Name        string   `json:"name"`
		Connections int      `json:"connections"`
		Octets      int      `json:"octets"`
		Done        int      `json:"done"`
		Seconds     float64  `json:"seconds"`
		PerSecond   float64  `json:"per_second"`
		Median      *float64 `json:"median_ms"`
		P95         *float64 `json:"p95_ms"`
		P99         *float64 `json:"p99_ms"`
		CPU         *float64 `json:"cpu_ms_each"`
	}
	var r struct {
		Version      string  `json:"version"`
		Directory    string  `json:"directory"`
		FileSystem   string  `json:"file_system"`
		Warning      *string `json:"warning"`
		Processors   int     `json:"processors"`
		Duration     float64 `json:"duration_seconds"`
		Measurements []one   `json:"measurements"`
		Memory       int64   `json:"peak_memory_octets"`
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.Version == "" || r.Directory != dir || r.FileSystem == "" || r.Warning == nil || r.Processors < 1 || r.Duration != 0.2 || r.Memory < 1<<20 {
		t.Errorf("the report is of %+v", r)
	}
	type key struct {
		name                string
		connections, octets int
	}
	var got []key
	for _, m := range r.Measurements {
		got = append(got, key{m.Name, m.Connections, m.Octets})
		if m.Done == 0 || m.Seconds <= 0 || m.PerSecond <= 0 || m.CPU == nil {
			t.Errorf("nothing was done: %+v", m)
		}
		if waited := m.Median != nil && *m.Median > 0 && *m.P95 >= *m.Median && *m.P99 >= *m.P95; waited == (m.Name == "pop3_fetch_pipelined") {
			t.Errorf("%s has the wrong times", m.Name)
		}
	}
	want := []key{
		{"disk_sync", 1, 4096}, {"smtp_receive", 2, 4096}, {"smtp_receive", 10, 1048576},
		{"pop3_login", 10, 0}, {"pop3s_login", 10, 0},
		{"pop3_fetch", 10, 4096}, {"pop3_fetch_pipelined", 10, 4096}, {"pop3s_fetch", 10, 4096},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(key{})); d != "" {
		t.Errorf("the measurements differ (-want +got):\n%s", d)
	}
	empty(t, dir)
}

// TestBenchDataDirectory: without --dir it measures below the data directory,
// beside a running server, and leaves what is there alone.
func TestBenchDataDirectory(t *testing.T) {
	s := newServer(t, serverOptions{})
	s.deliver(t, []byte("Subject: x\n\nx\n"), "alice@"+testDomain)
	before := snapshot(t, s.maildir(""))
	out := restante(t, s.config, "", "bench", "--duration", "200ms", "--connections", "1")
	if want := "Measuring in " + s.dir + "/data ("; !strings.HasPrefix(out, want) {
		t.Errorf("no %q in:\n%s", want, out)
	}
	if d := cmp.Diff(before, snapshot(t, s.maildir(""))); d != "" {
		t.Errorf("the mail changed (-before +after):\n%s", d)
	}
	left, err := os.ReadDir(s.dir + "/data")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if strings.Contains(f.Name(), "bench") {
			t.Errorf("%s was left", f.Name())
		}
	}
}

// runningBench is a "restante bench" that has begun its first measurement.
type runningBench struct {
	*exec.Cmd
	out    io.ReadCloser
	errOut bytes.Buffer
}

func startBench(t *testing.T, dir, duration string) *runningBench {
	t.Helper()
	b := &runningBench{Cmd: exec.Command("restante", "bench", "--dir", dir, "--duration", duration)}
	b.Stderr = &b.errOut
	var err error
	if b.out, err = b.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Process.Kill() }) // it should have ended
	in := bufio.NewReader(b.out)
	for line := ""; !strings.Contains(line, "AT ONCE"); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatalf("it ended: %v\n%s", err, b.errOut.String())
		}
	}
	return b
}

// ends waits for the end.
func (b *runningBench) ends(t *testing.T, status int, errOut string) {
	t.Helper()
	_ = b.Wait() // its status is read from ProcessState
	if code := b.ProcessState.ExitCode(); code != status || b.errOut.String() != errOut {
		t.Errorf("%v, %q", b.ProcessState, b.errOut.String())
	}
}

// TestBenchInterrupted: at whatever signal it ends, and removes what it made.
func TestBenchInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := startBench(t, dir, "20s")
			if err := b.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(b.out); err != nil || len(rest) > 0 {
				t.Errorf("after the signal: %q, %v", rest, err)
			}
			b.ends(t, exitFailed, "restante: interrupted\n")
			empty(t, dir)
		})
	}
	t.Run("the reader leaves", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		b := startBench(t, dir, "50ms")
		if err := b.out.Close(); err != nil {
			t.Fatal(err)
		}
		b.ends(t, exitUnread, "")
		empty(t, dir)
	})
}

// TestBenchFault: a server that cannot take mail ends it, with the cause, and its
// log is not shown.
func TestBenchFault(t *testing.T) {
	dir := t.TempDir()
	b := startBench(t, dir, "500ms")
	drafts, err := filepath.Glob(filepath.Join(dir, "*", "mail", ".tmp"))
	if err != nil || len(drafts) != 1 {
		t.Fatalf("%q, %v", drafts, err)
	}
	if err := os.Remove(drafts[0]); err != nil { // every message needs it
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, b.out); err != nil {
		t.Fatal(err)
	}
	_ = b.Wait() // its status is read from ProcessState
	want := regexp.MustCompile(`^restante: receive 4 KiB: message: the server answered "451 [^\n]+"\n` +
		`the server had a fault: message refused: [^\n]+/mail/\.tmp/\w+: no such file or directory\n$`)
	if code, said := b.ProcessState.ExitCode(), b.errOut.String(); code != exitFailed || !want.MatchString(said) {
		t.Errorf("exit status %d, %s", code, said)
	}
	empty(t, dir)
}

func TestBenchSpace(t *testing.T) {
	dir := t.TempDir()
	if err := checkSpace(dir, 0, 0); err != nil {
		t.Error(err)
	}
	err := checkSpace(dir, 1<<60, 0)
	if err == nil || !strings.Contains(err.Error(), "not enough space in "+dir+": the measurements need 1024.0 PiB, and ") {
		t.Errorf("the error is %v", err)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for _, test := range []struct {
		got, want string
	}{
		{grouped(0), "0"}, {grouped(999), "999"}, {grouped(1000), "1,000"}, {grouped(1234567), "1,234,567"},
		{about(0), "0"}, {about(0.0617), "0.062"}, {about(2.04), "2"}, {about(9.96), "10"}, {about(16.4), "16"},
		{about(2712), "2,700"}, {about(234_300_000), "230 million"}, {about(9_960_000), "10 million"}, {about(99_400_000_000), "99 billion"},
		{inMS(nil), "-"}, {inMS(new(0.1304)), "0.130 ms"}, {inMS(new(2.044)), "2.04 ms"}, {inMS(new(16.61)), "16.6 ms"}, {inMS(new(181.2)), "181 ms"},
	} {
		if test.got != test.want {
			t.Errorf("%q, not %q", test.got, test.want)
		}
	}
}
