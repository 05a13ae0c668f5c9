package config

import (
	"net/netip"
	"testing"
)

func TestSize(t *testing.T) {
	for _, test := range []struct {
		in    string
		want  Size
		shown string
	}{
		{"0", 0, "0"}, {"1", 1, "1B"}, {"1000", 1000, "1KB"}, {"1024", 1024, "1KiB"}, {"1KB", 1000, "1KB"},
		{"10 kib", 10240, "10KiB"}, {"1000KB", 1e6, "1MB"}, {"1024KiB", mebi, "1MiB"}, {"2GB", 2e9, "2GB"}, {"2GiB", 2 * gibi, "2GiB"},
		{"999B", 999, "999B"},
	} {
		got, err := ParseSize(test.in)
		if err != nil || got != test.want || got.String() != test.shown {
			t.Errorf("%q: %d %s %v, want %d %s", test.in, got, got, err, test.want, test.shown)
		}
	}
	for _, bad := range []string{"", "B", "-1", "+1", "1.5MB", "1 0", "0x10", "1MBMB", "1e3", "٣"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q was taken as %d", bad, got)
		}
	}
}

func TestNetworks(t *testing.T) {
	for _, test := range []struct {
		items   []string
		in, out []string
	}{
		{nil, nil, []string{"127.0.0.1", "::1"}},
		{[]string{"false"}, nil, []string{"127.0.0.1", "::1"}},
		{[]string{"true"}, []string{"127.0.0.1", "2001:db8::1", "::ffff:1.2.3.4", "fe80::1%eth0"}, nil},
		{[]string{"127.0.0.0/8"}, []string{"127.0.0.1", "::ffff:127.9.9.9"}, []string{"128.0.0.0", "::1"}},
		{[]string{"::ffff:192.0.2.1", "fe80::/10"}, []string{"192.0.2.1", "fe80::1%eth0"}, []string{"192.0.2.2", "fec0::"}},
		{[]string{"0.0.0.0/0"}, []string{"8.8.8.8"}, []string{"::1"}},
	} {
		n, err := ParseNetworks(test.items)
		if err != nil {
			t.Errorf("%q: %v", test.items, err)
			continue
		}
		for _, addr := range test.in {
			if !n.Allows(netip.MustParseAddr(addr)) {
				t.Errorf("%q does not allow %s", test.items, addr)
			}
		}
		for _, addr := range test.out {
			if n.Allows(netip.MustParseAddr(addr)) {
				t.Errorf("%q allows %s", test.items, addr)
			}
		}
		if n.Allows(netip.Addr{}) && !n.all {
			t.Errorf("%q allows no address", test.items)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(Template("mail.example.org", "/var/lib/restante")))
	f.Add(uncomment(string(Template("mail.example.org", "/var/lib/restante"))))
	f.Add("data_dir = \"/srv/mail \"")
	f.Add("smtp = { listen = [\":25\"], a.b = {} }\n[[tls.certificates]]\nkey = 1\n[[x.y]]\n[x.z]\na = [[{b = []}]]")
	f.Fuzz(func(t *testing.T, doc string) {
		c := Default()
		l := loader{config: c, file: "f", dir: "/d", table: settings()}
		l.document([]byte(doc))
		if len(l.problems) > 0 {
			return
		}
		// What was taken without a problem can be said again in other words.
		again := loader{config: Default(), file: "f", table: settings()}
		for _, s := range settings() {
			if s.accepts != tables && len(s.get(c)) > 0 {
				again.apply(s, s.fromText(s.show(c)), "again", "again")
				if s.show(again.config) != s.show(c) {
					t.Errorf("%s: %q became %q", s.key, s.show(c), s.show(again.config))
				}
			}
		}
		for _, p := range again.problems {
			t.Error(p)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"50MiB", "1 KB", "0", "9223372036854775807", "9GiBB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSize(in)
		if err != nil {
			return
		}
		if again, err := ParseSize(s.String()); s < 0 || err != nil || again != s {
			t.Errorf("%q: %d, then %d %v", in, s, again, err)
		}
	})
}
