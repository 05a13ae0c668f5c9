package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Trace says whose dialogs are logged: those of users, and of clients in networks.
type Trace struct {
	users    []string // lower-case
	networks Networks
}

// ParseTrace reads users (alice@example.org), addresses and networks.
func ParseTrace(items []string) (Trace, error) {
	var t Trace
	var networks []string
	for _, item := range items {
		local, domain, user := strings.Cut(item, "@")
		switch {
		case !user:
			networks = append(networks, item)
		case local == "" || domain == "" || strings.ContainsAny(item, " \t<>,"):
			return t, fmt.Errorf("has %q, which is no address of a user", item)
		default:
			t.users = append(t.users, strings.ToLower(item))
		}
	}
	if slices.Contains(networks, "true") || slices.Contains(networks, "false") {
		return t, fmt.Errorf("takes users, addresses and networks only")
	}
	var err error
	t.networks, err = ParseNetworks(networks)
	return t, err
}

// Empty reports that nothing is traced.
func (t Trace) Empty() bool { return len(t.users) == 0 && len(t.networks.prefixes) == 0 }

// By tells whether a dialog with a client, or about a user as the client writes the
// name, is traced. Names that canonical makes the same are the same. A name without a
// domain is that of any user who has it.
func (t Trace) By(canonical func(string) string) func(client netip.Addr, user string) bool {
	names := make(map[string]bool)
	for _, user := range t.users {
		name := canonical(user)
		local, _, _ := strings.Cut(name, "@")
		names[name], names[local] = true, true
	}
	return func(client netip.Addr, user string) bool {
		return user != "" && names[canonical(user)] || client.IsValid() && t.networks.Allows(client)
	}
}

// String is the setting as people see it.
func (t Trace) String() string { return strings.Join(t.items(), ", ") }

func (t Trace) items() []string {
	items := slices.Clone(t.users)
	if len(t.networks.prefixes) > 0 {
		items = append(items, t.networks.items()...)
	}
	return items
}
