package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

var errEmpty = errors.New("must not be empty")

// Size is a number of octets.
type Size int64

const (
	kibi Size = 1 << 10
	mebi Size = 1 << 20
	gibi Size = 1 << 30
)

// sizeUnits are the units of sizes, the largest first.
func sizeUnits() []struct {
	name   string
	octets Size
} {
	return []struct {
		name   string
		octets Size
	}{{"GiB", gibi}, {"GB", 1e9}, {"MiB", mebi}, {"MB", 1e6}, {"KiB", kibi}, {"KB", 1e3}, {"B", 1}}
}

// ParseSize reads a whole number of octets with an optional unit: KB, MB and GB
// count in 1000, KiB, MiB and GiB in 1024. Capitals make no difference.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "BGIKMbgikm ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || digits != strings.TrimLeft(digits, "+-") {
		return 0, fmt.Errorf(`must be a size such as "50MiB", not %q`, s)
	}
	unit := strings.TrimSpace(s[len(digits):])
	if unit == "" {
		unit = "B"
	}
	for _, u := range sizeUnits() {
		if !strings.EqualFold(unit, u.name) {
			continue
		}
		if n > math.MaxInt64/int64(u.octets) {
			return 0, fmt.Errorf("is too large: %q", s)
		}
		return Size(n) * u.octets, nil
	}
	return 0, fmt.Errorf("has the unknown unit %q; use KB, MB, GB (1000) or KiB, MiB, GiB (1024)", unit)
}

// String is the size in the largest unit that it is a whole number of.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s >= u.octets && s%u.octets == 0 {
			return strconv.FormatInt(int64(s/u.octets), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// The functions below make the set function of a setting from a parser of one
// text and the field it is kept in.

func scalar[T any](field func(*Config) *T, parse func(string) (T, error)) func(*Config, value) error {
	return func(c *Config, v value) error {
		if v.items[0] == "" {
			return errEmpty
		}
		parsed, err := parse(v.items[0])
		if err != nil {
			return err
		}
		*field(c) = parsed
		return nil
	}
}

func size(field func(*Config) *Size, least, most Size) func(*Config, value) error {
	return scalar(field, func(s string) (Size, error) {
		n, err := ParseSize(s)
		if err == nil && (n < least || n > most) {
			err = fmt.Errorf("must be from %s to %s, not %s", least, most, s)
		}
		return n, err
	})
}

func integer(field func(*Config) *int, least, most int) func(*Config, value) error {
	return scalar(field, func(s string) (int, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || int(n) < least || int(n) > most {
			return 0, fmt.Errorf("must be a whole number from %d to %d, not %s", least, most, s)
		}
		return int(n), nil
	})
}

func duration(field func(*Config) *time.Duration, least, most time.Duration) func(*Config, value) error {
	return scalar(field, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf(`must be a time such as "10m" or "1h30m", not %q`, s)
		}
		if d < least || d > most {
			return 0, fmt.Errorf("must be from %s to %s, not %s", showDuration(least), showDuration(most), s)
		}
		return d, nil
	})
}

// showDuration leaves out the units that are nought.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func addresses(field func(*Config) *[]string) func(*Config, value) error {
	return func(c *Config, v value) error {
		for _, addr := range v.items {
			if err := checkAddress(addr); err != nil {
				return err
			}
		}
		*field(c) = v.items
		return nil
	}
}

// loopback takes only addresses that other machines cannot reach.
func loopback(set func(*Config, value) error) func(*Config, value) error {
	return func(c *Config, v value) error {
		if err := set(c, v); err != nil {
			return err
		}
		for _, addr := range v.items {
			host, _, _ := net.SplitHostPort(addr)
			if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
				return fmt.Errorf("has %q, which other machines may reach; use 127.0.0.1 or [::1]", addr)
			}
		}
		return nil
	}
}

// checkAddress checks an address to listen on.
func checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf(`has %q; write host:port, :port for every address of this machine, or [host]:port for IPv6`, addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("has %q, where %q is no port (a number up to 65535)", addr, port)
	}
	if _, err := netip.ParseAddr(host); host == "" || err == nil {
		return nil
	}
	if _, err := parseHostname(host); err != nil {
		return fmt.Errorf("has %q, where %q is no address and no host name", addr, host)
	}
	return nil
}

// hostnames takes a list of host names.
func hostnames(field func(*Config) *[]string) func(*Config, value) error {
	return func(c *Config, v value) error {
		var names []string
		for _, item := range v.items {
			name, err := parseHostname(item)
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		*field(c) = names
		return nil
	}
}

// optional leaves what an empty text is for as it was.
func optional(set func(*Config, value) error) func(*Config, value) error {
	return func(c *Config, v value) error {
		if v.items[0] == "" {
			return nil
		}
		return set(c, v)
	}
}

// setFile takes the name of a file, from the directory of the configuration.
func setFile(field func(*Config) *string) func(*Config, value) error {
	return func(c *Config, v value) error {
		if v.items[0] == "" {
			return errEmpty
		}
		file, err := filepath.Abs(v.path(v.items[0]))
		if err != nil {
			return fmt.Errorf("cannot be found: %w", err)
		}
		*field(c) = file
		return nil
	}
}

func parseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("must be a URL that begins with https://, not %q", s)
	}
	return s, nil
}

// parseEmail checks only what would break the request; the authority knows better.
func parseEmail(s string) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || strings.ContainsAny(s, " \t\r\n,?<>") {
		return "", fmt.Errorf("must be an e-mail address, not %q", s)
	}
	return s, nil
}

func parseTLSVersion(s string) (uint16, error) {
	switch s {
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("must be \"1.2\" or \"1.3\", not %q", s)
}

func showTLSVersion(v uint16) string { return strings.TrimPrefix(tls.VersionName(v), "TLS ") }

// parseHostname checks a fully qualified domain name (RFC 1123 section 2.1), or
// localhost, for trials.
func parseHostname(s string) (string, error) {
	name := strings.ToLower(s)
	labels := strings.Split(name, ".")
	switch {
	case name == "localhost":
		return name, nil
	case len(labels) == 1:
		return "", fmt.Errorf(`must be a full domain name such as "mail.example.org", not %q`, s)
	case len(name) > 253:
		return "", fmt.Errorf("is longer than 253 characters: %q", s)
	}
	for _, label := range labels {
		if !isLabel(label) {
			return "", fmt.Errorf("must be a domain name of letters a to z, digits and hyphens, not %q", s)
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", fmt.Errorf("must be a domain name, not the address %q", s)
	}
	return name, nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func parseUser(s string) (string, error) {
	if strings.ContainsAny(s, " :/\t\r\n") {
		return "", fmt.Errorf("must be the name of a user of this machine, not %q", s)
	}
	return s, nil
}

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, fmt.Errorf("must be true or false, not %q", s)
	}
	return s == "true", nil
}

func parseLevel(s string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("must be debug, info, warn or error, not %q", s)
}

func parseFormat(s string) (string, error) {
	if s != "text" && s != "json" {
		return "", fmt.Errorf("must be text or json, not %q", s)
	}
	return s, nil
}
