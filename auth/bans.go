package auth

import (
	"net/netip"
	"strings"
	"time"
)

// maxThrottled is how many addresses, networks and accounts with failed logins
// are remembered.
const maxThrottled = 50000

// Ban is who has failed to log in lately, and is perhaps refused.
type Ban struct {
	Kind     string    // "address", "network", "account"; "exempt" is an address that is never refused
	Name     string    // 192.0.2.7/32, or the address of an account
	Failures float64   // half of them fade each hour
	Until    time.Time // refused until then; past: not refused
}

// Bans lists who has failed to log in to this process lately, who is refused
// longest first.
func (d *Directory) Bans() []Ban {
	all := []Ban{}
	for _, b := range d.throttle.Bans() {
		all = append(all, Ban(b))
	}
	return all
}

// ClearBans forgets the failures of an address and its network, of a network, or of
// an account, and gives how many entries that were.
func (d *Directory) ClearBans(name string) int {
	defer d.noteFailures()
	name = strings.TrimSpace(name)
	if addr, err := netip.ParseAddr(name); err == nil {
		return d.throttle.ClearClient(addr)
	}
	if prefix, err := netip.ParsePrefix(name); err == nil {
		return d.throttle.ClearName(prefix.Masked().String())
	}
	if a, err := ParseAddress(name); err == nil {
		name = a.String()
	}
	return d.throttle.ClearName(name)
}

// ClearAllBans forgets the failures of everybody.
func (d *Directory) ClearAllBans() int {
	defer d.noteFailures()
	return d.throttle.Clear()
}
