package auth

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 63)
	tests := []struct{ in, want string }{
		{"alice@example.org", "alice@example.org"},
		{"Alice@EXAMPLE.org", "alice@example.org"},
		{"alice@example.org.", "alice@example.org"},
		{"a.b+c/d=e@example.org", "a.b+c/d=e@example.org"},
		{`"alice"@example.org`, "alice@example.org"},
		{`"a\l\ice"@example.org`, "alice@example.org"},
		{`"A b"@example.org`, `"a b"@example.org`},
		{`"a@b"@example.org`, `"a@b"@example.org`},
		{`"a\"b\\c"@example.org`, `"a\"b\\c"@example.org`},
		{`".."@example.org`, `".."@example.org`},
		{`"a b/../x@y"@example.org`, `"a b/../x@y"@example.org`},
		{"MARÍA@example.org", "maría@example.org"},
		{"mari\u0301a@example.org", "maría@example.org"}, // composed
		{"ΟΔΟΣ@example.org", "οδοσ@example.org"},
		{"οδος@example.org", "οδοσ@example.org"}, // the final sigma is a sigma
		{"\u212aelvin@example.org", "kelvin@example.org"},
		{"\u00b5@example.org", "\u03bc@example.org"},  // micro sign, mu
		{"a\u037eb@example.org", `"a;b"@example.org`}, // Greek question mark, in NFC a semicolon
		{"straße@straße.example", "straße@xn--strae-oqa.example"},
		{"用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v"},
		{"x@" + long + ".example", "x@" + long + ".example"},
		{strings.Repeat("a", 65) + "@example.org", strings.Repeat("a", 65) + "@example.org"},
		{strings.Repeat("a", 242) + "@example.org", strings.Repeat("a", 242) + "@example.org"},
	}
	for _, tt := range tests {
		a, err := ParseAddress(tt.in)
		if err != nil || a.String() != tt.want {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", tt.in, a, err, tt.want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"", "@", "alice", "alice@", "@example.org", `""@example.org`,
		"a..b@example.org", ".a@example.org", "a.@example.org", "a b@example.org", "<a@example.org>",
		" alice@example.org", "alice@example.org ", "a,b@example.org", "a@b@example.org",
		`"a@example.org`, `"a"b@example.org`, `"a".b@example.org`, `a."b"@example.org`, `"a\`, `"a\é"@example.org`,
		"a\x00b@example.org", "\"a\x00b\"@example.org", "\"a\rb\"@example.org", "\"a\x7f\"@example.org", "\"a\tb\"@example.org",
		"a\u0085b@example.org",         // C1 control
		"a\u202eb@example.org",         // bidirectional override
		"a\u2066b@example.org",         // bidirectional isolate
		"a\u200db@example.org",         // joiner
		"a\u00a0b@example.org",         // space
		"a\u034fb@example.org",         // invisible mark
		"a\ufe0fb@example.org",         // variation selector
		"a\ue000b@example.org",         // private
		"a\U0003fffdb@example.org",     // unassigned
		"a\xffb@example.org", "a@\xff", // not UTF-8
		"alice@[127.0.0.1]", "alice@127.0.0.1", "alice@example..org",
		strings.Repeat("a", 243) + "@example.org",
		`"` + strings.Repeat(`\\`, 130) + `"@example.org`, // 130 octets, 262 with their quotes
		strings.Repeat("a", 5000) + "@example.org",
	} {
		a, err := ParseAddress(in)
		var detail *AddressError
		if !errors.Is(err, ErrBadAddress) || !errors.As(err, &detail) || a != (Address{}) {
			t.Errorf("ParseAddress(%q) = %q, %v", in, a, err)
		} else if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\r\n\x00\u202e") {
			t.Errorf("ParseAddress(%q): the error shows what it should not: %q", in, err)
		}
	}
}

func TestParseDomain(t *testing.T) {
	label, three := strings.Repeat("a", 63), strings.Repeat(strings.Repeat("b", 63)+".", 3)
	tests := []struct{ in, want string }{ // "": refused
		{"example.org", "example.org"},
		{"EXAMPLE.Org.", "example.org"},
		{"localhost", "localhost"},
		{"3com.example", "3com.example"},
		{"1.2.example", "1.2.example"},
		{"Bücher.example", "xn--bcher-kva.example"},
		{"bu\u0308cher.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"faß.example", "xn--fa-hia.example"}, // non-transitional
		{"例子。广告。", "xn--fsqu00a.xn--4rr70v"},
		{"ｅｘａｍｐｌｅ.org", "example.org"},
		{"ab--c.example", "ab--c.example"},
		{label + ".org", label + ".org"},
		{three + strings.Repeat("b", 61), three + strings.Repeat("b", 61)},

		{"", ""}, {".", ""}, {"..", ""}, {"example.org..", ""}, {".example.org", ""}, {"a..b", ""},
		{"a_b.example", ""}, {"-a.example", ""}, {"a-.example", ""}, {"a b.example", ""}, {"a@b.example", ""},
		{"a/b.example", ""}, {"a\x00.example", ""}, {"..\\x", ""},
		{"127.0.0.1", ""}, {"example.123", ""}, {"[127.0.0.1]", ""}, {"[IPv6:::1]", ""}, {"::1", ""},
		{"xn--.example", ""}, {"xn--a.example", ""}, {"xn--0.example", ""},
		{"a\u202eb.example", ""},
		{"a\u05d0.example", ""}, // breaks the bidi rule
		{"a\u200db.example", ""},
		{"a\xff.example", ""},
		{label + "a.org", ""},
		{three + strings.Repeat("b", 62), ""},
	}
	for _, tt := range tests {
		got, err := ParseDomain(tt.in)
		if got != tt.want || (err != nil) != (tt.want == "") || err != nil && !errors.Is(err, ErrBadAddress) {
			t.Errorf("ParseDomain(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestUserNames(t *testing.T) {
	longest := strings.Repeat("é", 32)
	for in, good := range map[string]bool{
		"alice@example.org":                      true,
		"alice+list@example.org":                 true,
		longest + "@example.org":                 true,
		longest + "e@example.org":                false,
		strings.Repeat("a", 64) + "@example.org": true,
		strings.Repeat("a", 65) + "@example.org": false,
		"a/b@example.org":                        false,
		`"a b"@example.org`:                      false,
		`".."@example.org`:                       false,
		"@example.org":                           false,
	} {
		_, err := ParseUser(in)
		if good != (err == nil) || err != nil && !errors.Is(err, ErrBadAddress) {
			t.Errorf("ParseUser(%q): %v", in, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@c.d`, "Ⓐ@x", "İ@x", "ſ@ß.x", "a\u0345\u0301@x", `"\""@x`, "\"\u037e\"@x", "ǰ@x", "J\u030c@x", "a@xn--bcher-kva.x."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if !errors.Is(err, ErrBadAddress) {
				t.Fatalf("error %v", err)
			}
			return
		}
		text := a.String()
		again, err := ParseAddress(text)
		if err != nil || again != a {
			t.Fatalf("ParseAddress(%q) = %q, again %q, %v", s, text, again, err)
		}
		if a.Local == "" || len(text) > 254 || !utf8.ValidString(text) || !norm.NFC.IsNormalString(text) {
			t.Fatalf("ParseAddress(%q) = %q", s, text)
		}
		for _, r := range text {
			if r < ' ' || r == 0x7f || foldRune(r) != r {
				t.Fatalf("ParseAddress(%q) = %q has %q", s, text, r)
			}
		}
	})
}

func FuzzParseDomain(f *testing.F) {
	for _, s := range []string{"a", "a.b.", "xn--bcher-kva.x", "Bücher.x", "。", "א.x", "xn--a-ecp.ru", "1.2.3.4", "☃.x", "a\u00adb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseDomain(s)
		if err != nil {
			return
		}
		if again, err := ParseDomain(name); err != nil || again != name {
			t.Fatalf("ParseDomain(%q) = %q, again %q, %v", s, name, again, err)
		}
		if upper, err := ParseDomain(strings.ToUpper(name) + "."); err != nil || upper != name {
			t.Fatalf("ParseDomain(%q) = %q, in capitals %q, %v", s, name, upper, err)
		}
		if len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.Contains("."+name+".", "..") {
			t.Fatalf("ParseDomain(%q) = %q", s, name)
		}
	})
}

// Each rune and its other cases are one name, and folding is done at once.
func TestFoldEveryRune(t *testing.T) {
	for r := rune(0); r <= 0x1ffff; r++ { // beyond are no cases
		if !unicode.IsGraphic(r) || unicode.In(r, unicode.Han, unicode.Hangul) {
			continue
		}
		folded := foldRune(r)
		if again := foldRune(folded); again != folded {
			t.Errorf("%U folds to %U, that to %U", r, folded, again)
		}
		for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
			if foldRune(o) != folded {
				t.Errorf("%U folds to %U, but %U to %U", r, folded, o, foldRune(o))
			}
		}
		if s := foldCase(string(r) + "\u0301"); foldCase(s) != s {
			t.Errorf("%U with an accent folds to %+q, that to %+q", r, s, foldCase(s))
		}
	}
}
