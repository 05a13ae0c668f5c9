package nearest

import "testing"

func TestName(t *testing.T) {
	known := []string{"alice@example.org", "bob@example.org", "info@example.org"}
	for _, c := range []struct {
		name string
		most int
		want string
	}{
		{"alise@example.org", 2, "alice@example.org"},
		{"ALICE@exmple.org", 2, "alice@example.org"},
		{"bob@exampel.org", 2, "bob@example.org"},
		{"carol@example.org", 2, ""},
		{"bob@example.org", 0, "bob@example.org"},
		{"", 2, ""},
	} {
		if got := Name(c.name, known, c.most); got != c.want {
			t.Errorf("%q is near %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ab", 0}, {"kitten", "sitting", 3}, {"abc", "bc", 1}, {"listne", "listen", 2}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance of %q and %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
