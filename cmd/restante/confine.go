package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/landlock-lsm/go-landlock/landlock"
	kernel "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"restante/cmd/restante/internal/config"
)

const (
	// leastABI is the first of Landlock's in which a file may be moved from one
	// directory to another, as delivery does.
	leastABI = 2
	// mostABI is the last that is made use of: files, devices and TCP.
	mostABI = 5

	// memoryShare is how much of the memory of its control group the server makes use
	// of before it collects garbage at every turn.
	memoryShare = 0.9
)

// confine gives up what the server does not need once it has started: all files but
// its own, new ports, and connections to others. Nothing of that comes back. Of ports
// and connections Landlock knows those of TCP only, not of UDP and of multipath TCP.
func (s *server) confine(configFile string) error {
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
	rules := []landlock.Rule{
		landlock.RWDirs(s.config.DataDir).WithRefer(),
		landlock.RODirs(s.readable...).IgnoreIfMissing(),
	}
	if s.config.TLS.ACME {
		rules = append(rules, authorityRules(s.config.TLS.ACMEDirectory)...)
	}
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w; see the setting sandbox.landlock", err)
	}
	s.log.Info("landlock in force", "level", min(abi, mostABI), "read", s.readable, "write", s.config.DataDir)
	return nil
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

// authorityRules are for asking the certificate authority with this directory:
// names, its port or that of a proxy, its web server's certificates.
func authorityRules(directory string) []landlock.Rule {
	var files []string
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"} {
		files = append(files, target(name))
	}
	rules := []landlock.Rule{
		landlock.ROFiles(files...).IgnoreIfMissing(),
		landlock.RODirs("/etc/ssl", "/etc/pki", "/usr/share/ca-certificates").IgnoreIfMissing(),
		landlock.ConnectTCP(53), // names, when an answer is too long for UDP
	}
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
	for _, dir := range readable(c, s.configFile) {
		if !slices.Contains(s.readable, dir) {
			s.log.Warn("this directory came into the settings after the start, and cannot be reached before a restart", "directory", dir)
		}
	}
}

// limitMemory has the server collect garbage before the system ends it for its
// memory, and leave no core with passwords in it.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup),
		memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	if err == nil && limit > 0 && limit < 1<<60 {
		log.Info("memory limit of the control group", "octets", limit)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		log.Warn("a crash may leave a core with secrets in it", "error", err)
	}
}
