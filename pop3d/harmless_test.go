package pop3d

import "testing"

func TestHarmless(t *testing.T) {
	for line, want := range map[string]string{
		"":                        hidden,
		"user anna":               "user anna",
		"USER  anna  bert":        "USER anna (hidden)",
		"PASS":                    "PASS",
		"PASS x":                  "PASS (hidden)",
		"AUTH":                    "AUTH",
		"AUTH cram-md5":           "AUTH cram-md5",
		"AUTH PLAIN =":            "AUTH PLAIN (hidden)",
		"AUTH PLAIN PLAIN":        "AUTH PLAIN (hidden)",
		"AUTH AGFubmE=":           "AUTH (hidden)",
		"AUTH\tAGFubmE=":          hidden,
		"AUTH PLAIN\tAGFubmE=":    "AUTH PLAIN (hidden)",
		"RETR 1":                  "RETR 1",
		"TOP 1 0":                 "TOP 1 0",
		"TOP 1 x 0":               "TOP 1 (hidden)",
		"QUIT x":                  "QUIT (hidden)",
		"QUIT ":                   "QUIT",
		"LANG en":                 "LANG en",
		"LANG pw":                 "LANG (hidden)",
		"NONSENSE":                hidden,
		"AGFubmE= RETR":           hidden,
		"RETR 1\x002":             "RETR (hidden)",
		"AUTH SCRAM-SHA-256 abcd": "AUTH SCRAM-SHA-256 (hidden)",
	} {
		if got := harmless(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
