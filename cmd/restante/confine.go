package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/landlock-lsm/go-landlock/landlock"
	kernel "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"restante/cmd/restante/internal/config"
)

const (
	// leastABI is the first of Landlock's in which a file may be moved from one
	// directory to another, as delivery does.
	leastABI = 2
	// mostABI is the last that is made use of: files, devices, TCP, signals and abstract
	// sockets.
	mostABI = 6
	// signalsMended is the bit of the errata since which threads of one process may signal
	// one another, as the threads of every program in Go do.
	signalsMended = 1 << 1

	// memoryShare is how much of the memory of its control group the server makes use
	// of before it collects garbage at every turn.
	memoryShare = 0.9
)

// confine gives up what the server does not need once it has started: all files but
// its own, new ports, connections to others, and more rights. Nothing of that comes back.
// Of ports and connections Landlock knows those of TCP only, not of UDP and of multipath
// TCP.
func (s *server) confine(configFile string) error {
	if err := kernel.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		s.log.Warn("a program that the server was made to run could have more rights than the server", "error", err)
	}
	if !s.config.Sandbox.Landlock {
		s.log.Warn("landlock is off: the server may reach every file that its user may")
		return nil
	}
	abi, err := kernel.LandlockGetABIVersion()
	if err != nil || abi < leastABI {
		why := []any{"abi", max(abi, 0)}
		if err != nil {
			why = append(why, "error", err) // EPERM is from a list of system calls, as a service manager has
		}
		s.log.Warn("landlock is not available on this kernel: the server may reach every file that its user may", why...)
		return nil
	}
	preload()
	s.readable = readable(s.config, configFile)
	if s.config.TLS.ACME {
		s.readable = append(s.readable, authorityDirs()...)
	}
	if err := denied(abi).Restrict(s.rules()...); err != nil {
		return fmt.Errorf("landlock: %w; see the setting sandbox.landlock", err)
	}
	s.log.Info("landlock in force", "level", min(abi, mostABI), "read", s.readable, "write", s.config.DataDir)
	return nil
}

// denied is what Landlock has to deny as far as the kernel can.
func denied(abi int) landlock.Config {
	c := landlock.V6
	if strings.HasPrefix(os.Getenv("NOTIFY_SOCKET"), "@") {
		c.Scoped &^= kernel.ScopeAbstractUnixSocket // the service manager is to be told
	}
	errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if abi < mostABI || errno != 0 || errata&signalsMended == 0 {
		c.Scoped &^= kernel.ScopeSignal
	}
	return c.BestEffort()
}

// rules are what stays allowed.
func (s *server) rules() []landlock.Rule {
	all := landlock.V6.HandledAccessFS &^ (kernel.AccessFSExecute | kernel.AccessFSIoctlDev)
	rules := []landlock.Rule{
		landlock.PathAccess(all, s.config.DataDir),
		landlock.PathAccess(kernel.AccessFSReadFile|kernel.AccessFSReadDir, s.readable...).IgnoreIfMissing(),
	}
	if s.config.TLS.ACME {
		rules = append(rules, authorityPorts(s.config.TLS.ACMEDirectory)...)
	}
	for _, p := range s.postponed {
		if a, err := net.ResolveTCPAddr("tcp", p.address); err == nil {
			rules = append(rules, landlock.BindTCP(uint16(a.Port)))
		}
	}
	return rules
}

// preload reads what libraries would read later, when they cannot any more.
func preload() {
	_ = time.Now().Local().Format(time.RFC3339) // the time zone
	_, _ = x509.SystemCertPool()                // without it the system knows no authority
}

// readable are the directories of the configuration and of the certificates, also
// of what links in them lead to: whoever renews certificates puts the next ones
// there.
func readable(c *config.Config, configFile string) []string {
	files := []string{configFile}
	for _, p := range c.TLS.Certificates {
		files = append(files, p.Certificate, p.Key)
	}
	var dirs []string
	for _, file := range files {
		absolute, err := filepath.Abs(file)
		if err != nil {
			continue
		}
		for _, name := range []string{absolute, target(absolute)} {
			if dir := filepath.Dir(name); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	if len(c.Metrics.Listen) > 0 {
		dirs = append(dirs, "/proc/self") // how much memory and time it takes
	}
	return dirs
}

func target(name string) string {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		return to
	}
	return name
}

// authorityDirs have the files for asking an authority: how names are looked up, and
// who signs certificates of web servers. They are directories, since these files are
// replaced while the server runs, as by a network that comes and goes; what manages
// networks has its own below /run, perhaps not yet.
func authorityDirs() []string {
	dirs := []string{"/etc", "/run", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"} {
		if dir := filepath.Dir(target(name)); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// authorityPorts lead to the certificate authority with this directory: to names, to its
// port or that of a proxy.
func authorityPorts(directory string) []landlock.Rule {
	rules := []landlock.Rule{landlock.ConnectTCP(53)} // names, when an answer is too long for UDP
	request, err := http.NewRequest(http.MethodGet, directory, nil)
	if err != nil {
		return rules // not with a checked setting
	}
	reached := []*url.URL{request.URL}
	if proxy, err := http.ProxyFromEnvironment(request); err == nil && proxy != nil {
		reached = append(reached, proxy)
	}
	for _, u := range reached {
		rules = append(rules, landlock.ConnectTCP(portOfURL(u)))
	}
	return rules
}

// portOfURL is the port that a URL leads to.
func portOfURL(u *url.URL) uint16 {
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return uint16(n)
	}
	return map[string]uint16{"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[u.Scheme]
}

// warnOfConfinement tells of certificates that came into the settings after the
// server gave up to reach their directories.
func (s *server) warnOfConfinement(c *config.Config) {
	if s.readable == nil {
		return
	}
	reached := append([]string{s.config.DataDir}, s.readable...)
	for _, dir := range readable(c, s.configFile) {
		if !slices.ContainsFunc(reached, func(above string) bool { return within(dir, above) }) {
			s.log.Warn("this directory came into the settings after the start, and cannot be reached before a restart", "directory", dir)
		}
	}
}

// within tells whether a directory is another one or below it, wherever links lead.
func within(dir, above string) bool {
	path, err := filepath.Rel(target(above), target(dir))
	return err == nil && filepath.IsLocal(path)
}

// limitMemory has the server collect garbage before the system ends it for its memory.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup),
		memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	if err == nil && limit > 0 && limit < 1<<60 {
		log.Info("memory limit of the control group", "octets", limit)
	}
}

// forbidCores has a crash leave no core with passwords in it. A limit is nothing to a
// system that hands cores to a program; it gets none of a process that cannot be dumped,
// whose memory nobody but root may look at, either. A change of user ends that.
func forbidCores(log *slog.Logger) {
	limited := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err := errors.Join(limited, unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)); err != nil {
		log.Warn("a crash may leave a core with secrets in it", "error", err)
	}
}
