package smtpd

import "testing"

func TestHarmless(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  hidden,
		"EHLO client.example":               "EHLO client.example",
		"helo [192.0.2.1]":                  "helo [192.0.2.1]",
		"HELO my friend":                    "HELO (hidden)",
		"MAIL FROM:<>":                      "MAIL FROM:<>",
		"mail from: <a@b.example> size=5":   "mail FROM:<a@b.example> size=5",
		"MAIL FROM:<a@b.example> SIZE=5x":   "MAIL FROM:<a@b.example> (hidden)",
		"MAIL FROM:<a@b.example> smtputf8":  "MAIL FROM:<a@b.example> smtputf8",
		"MAIL FROM:<a@b.example> AUTH=x":    "MAIL FROM:<a@b.example> (hidden)",
		"MAIL FROM:<a@b.example> BODY=7BIT": "MAIL FROM:<a@b.example> BODY=7BIT",
		"MAIL FROM:<a@b.example> BODY=x":    "MAIL FROM:<a@b.example> (hidden)",
		"Mail me at the secret place":       "Mail (hidden)",
		"RCPT TO:<a@b.example>":             "RCPT TO:<a@b.example>",
		"RCPT TO:<a@b.example":              "RCPT (hidden)",
		"RCPT TO:<a@b.example> x":           "RCPT TO:<a@b.example> (hidden)",
		"DATA":                              "DATA",
		"Data from the survey":              "Data (hidden)",
		"AUTH PLAIN AGFubmE=":               "AUTH (hidden)",
		"NOOP hunter2":                      "NOOP (hidden)",
		"BDAT 5 LAST":                       "BDAT (hidden)",
		"Dear Bob":                          hidden,
	} {
		if got := harmless(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
