package storage

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	const id = "abcdefgh23456789"
	const ours = "1700000000." + id + ".mx.example.org"
	for _, c := range []struct {
		name, id string
		time     uint64
		ours     bool
	}{
		{ours + ",S=10,W=12", ours, 1700000000, true},
		{ours + ",S=10,W=12:2,", ours, 1700000000, true},
		{ours + ",S=10,W=12:2,FS", ours, 1700000000, true},
		{ours + ",S=0,W=0", ours, 1700000000, true},
		{ours + ",S=1,W=2", ours, 1700000000, true},
		{ours + ",S=10,W=9", ours, 1700000000, false},   // shorter on the wire
		{ours + ",S=10,W=21", ours, 1700000000, false},  // more line ends than octets
		{ours + ",S=010,W=12", ours, 1700000000, false}, // not as we write
		{ours + ",S=+10,W=12", ours + ",S=+10", 1700000000, false},
		{ours + ",S=10", ours, 1700000000, false},
		{ours + ",W=12,S=10", ours, 1700000000, false},
		{ours + ",S=10,W=12,X", ours + ",X", 1700000000, false},
		{ours + ",S=99999999999999999999,W=99999999999999999999", ours, 1700000000, false},
		{"1700000000.M1P2.host,S=10,W=12:2,S", "1700000000.M1P2.host", 1700000000, false},
		{"1700000000.ABCDEFGH23456789.host,S=10,W=12", "1700000000.ABCDEFGH23456789.host", 1700000000, false},
		{"1700000000." + id + ".,S=10,W=12", "1700000000." + id + ".", 1700000000, false},
		{"1700000000." + id + ",S=10,W=12", "1700000000." + id, 1700000000, false},
		{"a,S=1,b,W=2,c", "a,b,c", 0, false},
		{"a,S=,W=x", "a,S=,W=x", 0, false},
		{"S=1,S=1", "S=1", 0, false},
		{"a,S=1,W=2,S=3", "a", 0, false},
		{"a,S=1,x,W=2", "a,x", 0, false},
		{"a,S=1x,W=2", "a,S=1x", 0, false},
		{",S=1", "", 0, false},
		{":2,S", "", 0, false},
		{"7.x:1,y", "7.x:1,y", 7, false},
		{"7", "7", 7, false},
		{"7,S=1", "7", 7, false},
		{"0007.x", "0007.x", 7, false},
		{"18446744073709551614.x", "18446744073709551614.x", math.MaxUint64 - 1, false},
		{"18446744073709551616.x", "18446744073709551616.x", math.MaxUint64, false},
		{"99999999999999999999x.x", "99999999999999999999x.x", 0, false},
		{"7:2:2,:2,S", "7:2", 0, false},
		{"-7.x", "-7.x", 0, false},
		{"99999999999999999999999.x", "99999999999999999999999.x", math.MaxUint64, false},
	} {
		got := parseName(c.name)
		if got.id != c.id || got.time != c.time || got.ours != c.ours {
			t.Errorf("%s: id %q, time %d, ours %t; want %q, %d, %t", c.name, got.id, got.time, got.ours, c.id, c.time, c.ours)
		}
	}
}

func TestUIDL(t *testing.T) {
	fit := strings.Repeat("x", 70)
	for _, s := range []string{"a", "!~", fit} {
		if got := uidl(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	seen := make(map[string]bool)
	for _, s := range []string{"", fit + "x", fit + "y", "a b", "a\tb", "é", "\x7f", "\xff"} {
		got := uidl(s)
		if got == s || got != uidl(s) || seen[got] {
			t.Errorf("%q became %q: not a hash of its own", s, got)
		}
		seen[got] = true
		checkUIDL(t, got)
	}
}

func checkUIDL(t *testing.T, s string) {
	t.Helper()
	if len(s) < 1 || len(s) > 70 || strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		t.Errorf("%q is no unique-id", s)
	}
}

func TestArrange(t *testing.T) {
	entries := arrange([]entry{
		newEntry("10.b", false, 0),
		newEntry("9.z", false, 0),
		newEntry("10.a:2,S", true, 0),
		newEntry("10.a", false, 0),
		newEntry("10.a:2,RS", true, 0),
		newEntry("10.b-c", false, 0),
		newEntry("nonumber", true, 0),
		newEntry("10.d,S=1", false, 0),
		newEntry("10.d,S=2", false, 0),
		newEntry("10.a.b", false, 0),
	})
	var names []string
	for _, e := range entries {
		names = append(names, e.name)
	}
	want := []string{"nonumber", "9.z", "10.a:2,RS", "10.a.b", "10.b", "10.b-c", "10.d,S=1", "10.d,S=2"}
	if !slices.Equal(names, want) {
		t.Errorf("order %q, want %q", names, want)
	}
	seen := make(map[string]bool)
	for _, e := range entries {
		if seen[e.uidl()] {
			t.Errorf("%s has the unique-id of another message", e.name)
		}
		seen[e.uidl()] = true
		checkUIDL(t, e.uidl())
	}
}

func TestSafeHost(t *testing.T) {
	for in, want := range map[string]string{
		"":                "localhost",
		"mx.example.org":  "mx.example.org",
		"a/b:c,d e\x7f\n": `a\057b\072c\054d\040e\177\012`,
	} {
		if got := safeHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	name := formatName(math.MaxInt64, messageID(0), safeHost(strings.Repeat("é", 300)), math.MaxInt64/2, math.MaxInt64)
	if len(name)+len(":2,DFPRST") > 255 {
		t.Errorf("name of %d octets", len(name))
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"1.0123456789abcdef.h,S=1,W=2", "1.0123456789abcdef.h,S=1,W=2:2,S", "a,S=1,b", ":2,", ",", "1.x:1,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p := parseName(name)
		if base, _, _ := strings.Cut(name, infoMark); p.base != base {
			t.Errorf("%q: base %q, want %q", name, p.base, base)
		}
		e := newEntry(name, false, 0)
		if e.id() != p.id {
			t.Errorf("%q: id %q, want %q", name, e.id(), p.id)
		}
		checkUIDL(t, e.uidl())
		flagged := newEntry(p.base+":2,FS", true, 0)
		if flagged.uidl() != e.uidl() || parseName(flagged.name).time != p.time {
			t.Errorf("%q: unique-id %q, with flags %q", name, e.uidl(), flagged.uidl())
		}
		if sized := parseName(p.base + ",S=12"); !strings.HasSuffix(p.base, ":2") && (sized.id != p.id || sized.time != p.time) {
			t.Errorf("%q: id %q, with a size %q", name, p.id, sized.id)
		}
		if again := parseName(p.id); again.id != p.id && !p.ours {
			t.Errorf("%q: id %q of id %q", name, again.id, p.id)
		}
		if p.ours && (p.octets < p.size || !strings.HasPrefix(p.base, p.id+",S=")) {
			t.Errorf("%q passes for ours: %+v", name, p)
		}
		if strings.Contains(p.base, infoMark) || !strings.HasPrefix(name, p.base) {
			t.Errorf("%q: base %q", name, p.base)
		}
	})
}

// TestOpenPath: where openat2 is not to be had, the steps come to the same.
func TestOpenPath(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"a/b/new", "elsewhere/new"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"a/link": "../elsewhere", "a/b/out": "/etc", "a/b/cur": "new"} {
		if err := os.Symlink(target, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(top, "a/b/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, test := range []struct {
		names []string
		there bool
	}{
		{nil, true},
		{[]string{"a"}, true},
		{[]string{"a", "b", "new"}, true},
		{[]string{"a", "b", "cur"}, false},
		{[]string{"a", "b", "out"}, false},
		{[]string{"a", "b", "file"}, false},
		{[]string{"a", "link"}, false},
		{[]string{"a", "link", "new"}, false},
		{[]string{"a", "c", "new"}, false},
	} {
		for name, open := range map[string]func(*os.File, []string) (*os.File, error){"at once": openAtOnce, "in steps": openInSteps} {
			got, err := open(dir, test.names)
			if (err == nil) != test.there {
				t.Errorf("%v %s: %v", test.names, name, err)
			}
			if err != nil {
				continue
			}
			want, err1 := os.Stat(filepath.Join(append([]string{top}, test.names...)...))
			st, err2 := got.Stat()
			if err1 != nil || err2 != nil || !os.SameFile(want, st) {
				t.Errorf("%v %s: another directory, %v, %v", test.names, name, err1, err2)
			}
			got.Close()
		}
	}
	before := descriptors(t, top)
	for range 20 {
		if f, err := openInSteps(dir, []string{"a", "b", "new"}); err == nil {
			f.Close()
		}
		_, _ = openInSteps(dir, []string{"a", "b", "file"}) // is none
	}
	if after := descriptors(t, top); len(after) != len(before) {
		t.Errorf("open %v, before %v", after, before)
	}
}
