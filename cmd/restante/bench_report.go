package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"restante/cmd/restante/internal/loadgen"
)

// suspiciousSync is the median of a sync below which the disk either keeps its
// cache through a power cut or does not tell the truth.
const suspiciousSync = 50 * time.Microsecond

// benchReport is the outcome of "restante bench", as its JSON has it.
type benchReport struct {
	Version         string        `json:"version"`
	Directory       string        `json:"directory"`
	FileSystem      string        `json:"file_system"`
	Warning         string        `json:"warning"` // empty when there is none
	Processors      int           `json:"processors"`
	DurationSeconds float64       `json:"duration_seconds"`
	Measurements    []measurement `json:"measurements"`
	PeakMemory      int64         `json:"peak_memory_octets"` // of server and clients
}

// measurement is one line of the report. Times are in milliseconds; those of
// waiting are null where no single answer was waited for.
type measurement struct {
	Name        string   `json:"name"`
	Connections int      `json:"connections"`
	Octets      int      `json:"octets"`
	Done        int      `json:"done"`
	Seconds     float64  `json:"seconds"`
	PerSecond   float64  `json:"per_second"`
	Median      *float64 `json:"median_ms"`
	P95         *float64 `json:"p95_ms"`
	P99         *float64 `json:"p99_ms"`
	CPU         float64  `json:"cpu_ms_each"` // of server and client

	what string
}

func newBenchReport(dir, fileSystem, warning string, duration time.Duration) *benchReport {
	return &benchReport{
		Version:         version(),
		Directory:       dir,
		FileSystem:      fileSystem,
		Warning:         warning,
		Processors:      runtime.GOMAXPROCS(0),
		DurationSeconds: duration.Seconds(),
	}
}

func newMeasurement(s benchStep, r loadgen.Result) measurement {
	within := func(share float64) *float64 {
		d, ok := r.Wait(share)
		if !ok {
			return nil
		}
		ms := milliseconds(d)
		return &ms
	}
	return measurement{
		Name: s.name, Connections: s.clients, Octets: s.octets, Done: r.Done,
		Seconds: r.Elapsed.Seconds(), PerSecond: r.Rate(),
		Median: within(0.5), P95: within(0.95), P99: within(0.99),
		CPU: milliseconds(r.CPUEach()), what: s.what,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// finish adds what is known only after all measurements.
func (r *benchReport) finish() error {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return fmt.Errorf("reading the memory of this process: %w", err)
	}
	r.PeakMemory = int64(u.Maxrss) * 1024
	disk := r.Measurements[0].Median
	if r.Warning == "" && disk != nil && *disk < milliseconds(suspiciousSync) {
		r.Warning = "the disk is very fast: either its cache survives a power cut, or it says too early that data is safe; see \"restante help performance\""
	}
	return nil
}

// benchRow has what was done, how often, and how long its answers took.
const benchRow = "%-24s %8s %9s %11s %11s %11s %11s\n"

func (r *benchReport) writeHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Measuring in %s (%s), with %s. All of it is removed at the end.\n\n"+benchRow,
		r.Directory, r.FileSystem, plural(r.Processors, "processor"),
		"", "AT ONCE", "A SECOND", "MEDIAN", "95%", "99%", "CPU EACH")
	return err
}

func (m measurement) writeRow(w io.Writer) error {
	_, err := fmt.Fprintf(w, benchRow, m.what, grouped(m.Connections), grouped(int(math.Round(m.PerSecond))),
		inMS(m.Median), inMS(m.P95), inMS(m.P99), inMS(&m.CPU))
	return err
}

// writeSummary says in plain words what the figures mean.
func (r *benchReport) writeSummary(w io.Writer) error {
	of := func(name string, octets int) []measurement {
		return slices.DeleteFunc(slices.Clone(r.Measurements), func(m measurement) bool {
			return m.Name != name || m.Octets != octets
		})
	}
	small := of(benchReceive, smallMessage)
	best := slices.MaxFunc(small, func(a, b measurement) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
	calm := slices.MinFunc(small, func(a, b measurement) int { return cmp.Compare(a.Connections, b.Connections) })
	login, fetch := of(benchLoginTLS, 0)[0], of(benchFetchTLS, smallMessage)[0]
	text := fmt.Sprintf(`
This machine takes about %s messages of 4 KiB a second (%s a day), from
%s at a time. With %s at a time, a message is safe on
the disk about %s ms after its last octet was sent.

Mail programs can log in over TLS about %s times a second, and fetch about
%s messages of 4 KiB a second.

A message received takes %s ms of processor time, and all this took at most
%s of memory. Both include the clients, which ran in the same process,
on the same %s: a server alone can do more. Each figure is of %v;
what the machine can hold all day shows better with --duration 1m.
`,
		about(best.PerSecond), about(best.PerSecond*24*60*60), plural(best.Connections, "sender"),
		plural(calm.Connections, "sender"), aboutMS(calm.Median),
		about(login.PerSecond), about(fetch.PerSecond),
		aboutMS(&best.CPU), octets(r.PeakMemory), plural(r.Processors, "processor"),
		time.Duration(r.DurationSeconds*float64(time.Second)))
	if r.Warning != "" {
		text += "\nWarning: " + r.Warning + ".\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// inMS writes milliseconds with three digits that count, "-" when there are none.
func inMS(ms *float64) string {
	if ms == nil {
		return "-"
	}
	decimals := 0
	switch {
	case *ms < 1:
		decimals = 3
	case *ms < 10:
		decimals = 2
	case *ms < 100:
		decimals = 1
	}
	return strconv.FormatFloat(*ms, 'f', decimals, 64) + " ms"
}

func aboutMS(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return about(*ms)
}

// about writes a number with two digits that count.
func about(f float64) string {
	if f >= 10 {
		unit := math.Pow(10, math.Floor(math.Log10(f))-1)
		f = math.Round(f/unit) * unit
	}
	switch {
	case f >= 1e10:
		return grouped(int(math.Round(f/1e9))) + " billion"
	case f >= 1e7:
		return grouped(int(math.Round(f/1e6))) + " million"
	case f < 10:
		return strconv.FormatFloat(f, 'g', 2, 64)
	}
	return grouped(int(math.Round(f)))
}

// grouped writes a whole number with a comma at each thousand.
func grouped(n int) string {
	s := strconv.Itoa(n)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
