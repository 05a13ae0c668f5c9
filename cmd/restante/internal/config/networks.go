package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Networks is a set of addresses. The zero value is empty.
type Networks struct {
	all      bool
	prefixes []netip.Prefix
}

// ParseNetworks reads networks ("192.0.2.0/24", "2001:db8::/32") and addresses,
// or the one item "true" for every address or "false" for none.
func ParseNetworks(items []string) (Networks, error) {
	if len(items) == 1 && (items[0] == "true" || items[0] == "false") {
		return Networks{all: items[0] == "true"}, nil
	}
	return parsePrefixes(items)
}

func parsePrefixes(items []string) (Networks, error) {
	var n Networks
	for _, item := range items {
		p, err := parseNetwork(item)
		if err != nil {
			return Networks{}, err
		}
		n.prefixes = append(n.prefixes, p)
	}
	return n, nil
}

func parseNetwork(item string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(item); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(item)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf(`has %q, which is no network such as "192.168.1.0/24" and no address`, item)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has %q; the network of that address is %q", item, p.Masked())
	}
	return p, nil
}

// Allows tells whether the address is in the set. An IPv4 address in the form of
// IPv6 is that IPv4 address; a zone makes no difference.
func (n Networks) Allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range n.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return n.all
}

// String is the set in the form that an environment variable takes.
func (n Networks) String() string { return strings.Join(n.items(), ", ") }

func (n Networks) items() []string {
	if len(n.prefixes) == 0 {
		return []string{strconv.FormatBool(n.all)}
	}
	return n.list()
}

// All tells whether every address is in the set, of either family.
func (n Networks) All() bool {
	for _, p := range n.prefixes {
		if p.Bits() == 0 {
			return true
		}
	}
	return n.all
}

// Beyond tells whether an address that is not of this machine is in the set.
func (n Networks) Beyond() bool {
	for _, p := range n.prefixes {
		if !p.Addr().IsLoopback() || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 128 {
			return true
		}
	}
	return n.all
}

// Empty tells whether no address is in the set.
func (n Networks) Empty() bool { return !n.all && len(n.prefixes) == 0 }

func (n Networks) list() []string {
	var items []string
	for _, p := range n.prefixes {
		items = append(items, p.String())
	}
	return items
}

// networks takes a list of addresses and networks.
func networks(field func(*Config) *Networks) func(*Config, value) error {
	return func(c *Config, v value) (err error) {
		*field(c), err = parsePrefixes(v.items)
		return err
	}
}
