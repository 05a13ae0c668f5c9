package pop3d

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestParseNumber(t *testing.T) {
	for _, test := range []struct {
		text string
		want int
		ok   bool
	}{
		{"0", 0, true},
		{"7", 7, true},
		{"007", 7, true},
		{"9223372036854775807", math.MaxInt, true},
		{"99999999999999999999999999", math.MaxInt, true},
		{"", 0, false},
		{"+1", 0, false},
		{"-1", 0, false},
		{"1x", 0, false},
		{"0x1", 0, false},
		{"1e3", 0, false},
		{"٣", 0, false},
	} {
		got, ok := parseNumber([]byte(test.text))
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%q: %d, %t", test.text, got, ok)
		}
	}
}

func TestCommandArguments(t *testing.T) {
	for _, test := range []struct {
		keyword, rest string
		ok            bool
	}{
		{"STAT", "", true},
		{"STAT", "  ", true},
		{"STAT", "1", false},
		{"LIST", "", true},
		{"LIST", "1", true},
		{"LIST", " 1  ", true},
		{"LIST", "1 2", false},
		{"LIST", "x", false},
		{"RETR", "", false},
		{"RETR", "1", true},
		{"TOP", "1", false},
		{"TOP", "1 0", true},
		{"TOP", "1 -1", false},
		{"TOP", "1 2 3", false},
		{"QUIT", "now", false},
	} {
		if _, ok := commands[transaction][test.keyword].parse([]byte(test.rest)); ok != test.ok {
			t.Errorf("%s %q: %t", test.keyword, test.rest, ok)
		}
	}
}

// Every table is complete: what a command needs is there, and its keyword can
// be typed.
func TestTables(t *testing.T) {
	for state, table := range commands {
		for keyword, c := range table {
			if c.run == nil || c.min > c.max && !c.text || c.max > 2 {
				t.Errorf("state %d: %s: %+v", state, keyword, c)
			}
			if !strings.HasPrefix(c.usage, keyword) || strings.ToUpper(keyword) != keyword || len(keyword) > 4 {
				t.Errorf("state %d: %s: usage %q", state, keyword, c.usage)
			}
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"", " ", "stat", "LIST 1", "Top  1 20 ", "PASS a  b ", "RETR 18446744073709551617", "\x00", "auth plain ="} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		keyword, rest := splitCommand(line)
		if bytes.IndexByte(keyword, ' ') >= 0 || !bytes.EqualFold(keyword, before[:len(keyword)]) {
			t.Fatalf("%q: keyword %q", before, keyword)
		}
		if !bytes.HasSuffix(before, rest) || len(keyword)+len(rest) < len(before)-1 {
			t.Fatalf("%q: rest %q", before, rest)
		}
		for _, table := range commands {
			c, ok := table[string(keyword)]
			if !ok {
				continue
			}
			a, ok := c.parse(rest)
			if !ok {
				continue
			}
			if a.numbers != len(bytes.Fields(rest)) && !c.text || a.numbers < c.min && !c.text || a.numbers > c.max {
				t.Errorf("%q: %d numbers", before, a.numbers)
			}
			if c.text && !bytes.Equal(a.text, rest) {
				t.Errorf("%q: text %q", before, a.text)
			}
			if a.number[0] < 0 || a.number[1] < 0 {
				t.Errorf("%q: numbers %v", before, a.number)
			}
		}
	})
}
