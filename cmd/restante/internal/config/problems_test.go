package config

import (
	"errors"
	"strings"
	"testing"
)

// problems are the lines of an error, without the directory of the file.
func problems(t *testing.T, doc string, o LoadOptions) []string {
	t.Helper()
	file := write(t, doc)
	c, err := Load(file, o)
	if err == nil {
		return nil
	}
	if c != nil {
		t.Error("settings and an error at once")
	}
	return strings.Split(strings.ReplaceAll(err.Error(), file, "FILE"), "\n")
}

func TestProblemsInTheFile(t *testing.T) {
	for _, test := range []struct{ doc, want string }{
		{"[smtp]\nlistne = [\":25\"]", `FILE:2: unknown key "smtp.listne"; did you mean "smtp.listen"?`},
		{"[log]\ntrace = [\"a@\"]", `FILE:2: log.trace has "a@", which is no address of a user`},
		{"[log]\ntrace = [\"true\"]", `FILE:2: log.trace takes users, addresses and networks only`},
		{"[metrics]\nlisten = [\":9125\"]", `FILE:2: metrics.listen has ":9125", which other machines may reach; use 127.0.0.1 or [::1]`},
		{"[metrics]\nlisten = [\"192.0.2.1:9125\"]", `FILE:2: metrics.listen has "192.0.2.1:9125", which other machines may reach; use 127.0.0.1 or [::1]`},
		{"smtp = { listne = [] }", `FILE:1: unknown key "smtp.listne"; did you mean "smtp.listen"?`},
		{"\nHostname = \"a.b\"", `FILE:2: unknown key "Hostname"; did you mean "hostname"?`},
		{"max_recipients = 3", `FILE:1: unknown key "max_recipients"; did you mean "smtp.max_recipients"?`},
		{"\"smtp.listen\" = []", `FILE:1: unknown key "\"smtp.listen\""; did you mean "smtp.listen"?`},
		{"zzzzzzzzzzzz = 1", `FILE:1: unknown key "zzzzzzzzzzzz"`},
		{"[pop]", `FILE:1: unknown section "pop"; did you mean "pop3"?`},
		{"[[smtp]]", `FILE:1: unknown key "smtp"`},
		{"smtp = 3", `FILE:1: unknown key "smtp"`},
		{"hostname = 3", `FILE:1: hostname must be a text in quotes, not a number`},
		{"[smtp.listen]", `FILE:1: smtp.listen must be a list of texts, such as ["a", "b"], not a table`},
		{"smtp.listen = \":25\"", `FILE:1: smtp.listen must be a list of texts, such as ["a", "b"], not a text`},
		{"smtp.listen = [25]", `FILE:1: smtp.listen must be a list of texts, such as ["a", "b"], not a list with something else in it`},
		{"smtp.listen = [\":25\", {}]", `FILE:1: smtp.listen must be a list`},
		{"smtp.max_recipients = 1.5", `FILE:1: smtp.max_recipients must be a whole number, not a number with a fraction`},
		{"smtp.max_recipients = 2020-01-01", `FILE:1: smtp.max_recipients must be a whole number, not a date or time`},
		{"auth.allow_plaintext = \"yes\"", `FILE:1: auth.allow_plaintext must be true or false, or a list`},
		{"log.level = \"info\"\nlog.level = \"warn\"", `FILE:2: key level is already defined`},
		{"data_dir = \"/srv/mail \"", `FILE:1: data_dir must not end with a space: "/srv/mail "`},
		{"data_dir = \"/srv/mail\u00a0\"", `FILE:1: data_dir must not end with a space`},
		{"a = 1\nb = \n", `FILE:2: unexpected character`},
		{"[[tls.certificates]]\ncertificate = \"a\"", `FILE:1: tls.certificates needs key, the name of a file`},
		{"[[tls.certificates]]\nkye = \"a\"\ncertificate = \"b\"\nkey = \"c\"", `FILE:2: unknown key "tls.certificates.kye"; did you mean "tls.certificates.key"?`},
		{"[[tls.certificates]]\nkey = 1\ncertificate = \"b\"", `FILE:2: tls.certificates.key must be a text in quotes, not a number`},
		{"[tls.certificates]", `FILE:1: tls.certificates must be a list of tables`},
		{"tls.certificates = [\"a\"]", `FILE:1: tls.certificates must be a list of tables`},
	} {
		got := problems(t, test.doc, LoadOptions{WithoutHostname: true})
		if len(got) == 0 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("%q: %q\nwant %q", test.doc, got, test.want)
		}
	}
}

func TestProblemsOfValues(t *testing.T) {
	for _, test := range []struct{ key, text, want string }{
		{"hostname", " ", "must not be empty"},
		{"hostname", "mail", "must be a full domain name"},
		{"hostname", "mail.example.org.", "must be a domain name"},
		{"hostname", "-a.example.org", "must be a domain name"},
		{"hostname", "mäil.example.org", "must be a domain name"},
		{"hostname", "192.0.2.1", "not the address"},
		{"hostname", strings.Repeat("a", 64) + ".org", "must be a domain name"},
		{"hostname", strings.Repeat("a.", 126) + "org", "is longer than 253"},
		{"data_dir", " ", "must not be empty"},
		{"smtp.listen", "25", "write host:port"},
		{"smtp.listen", "::1:25", "write host:port"},
		{"smtp.listen", ":65536", "is no port"},
		{"smtp.listen", ":smtp", "is no port"},
		{"smtp.listen", ":+25", "is no port"},
		{"smtp.listen", "under_score.example:25", "no host name"},
		{"smtp.listen", ":25,:25", "has already"},
		{"pop3.listen", ":25", "which smtp.listen has already"},
		{"smtp.max_message_size", "65535", "must be from 64KiB to 2GiB"},
		{"smtp.max_message_size", "2147483649", "must be from 64KiB to 2GiB"},
		{"smtp.max_message_size", "1.5GiB", "must be a size"},
		{"smtp.max_message_size", "5TiB", "must be a size"},
		{"smtp.max_message_size", "5K", "unknown unit"},
		{"smtp.max_message_size", "9223372036854775807GiB", "too large"},
		{"smtp.max_recipients", "99", "from 100 to 10000"},
		{"smtp.max_recipients", "ten", "from 100 to 10000"},
		{"pop3.idle_timeout", "9m59s", "must be from 10m to 24h"},
		{"pop3.idle_timeout", "10", "must be a time"},
		{"limits.pause", "5001ms", "must be from 0s to 5s"},
		{"limits.exempt", "true", "which is no network"},
		{"proxy.trusted", "true", "which is no network"},
		{"auth.allow_plaintext", "maybe", "which is no network"},
		{"auth.allow_plaintext", "true, ::1", "which is no network"},
		{"auth.allow_plaintext", "10.0.0.1/8", `is "10.0.0.0/8"`},
		{"auth.argon2_memory", "1023KiB", "must be from 1MiB"},
		{"auth.argon2_time", "0", "from 1 to 64"},
		{"auth.argon2_threads", "65", "from 1 to 64"},
		{"log.level", "loud", "must be debug, info, warn or error"},
		{"log.format", "xml", "must be text or json"},
	} {
		got := problems(t, "", LoadOptions{Flags: map[string]string{test.key: test.text}, WithoutHostname: true})
		if len(got) != 1 || !strings.HasPrefix(got[0], "flag: "+test.key+" ") || !strings.Contains(got[0], test.want) {
			t.Errorf("%s %q: %q, want %q", test.key, test.text, got, test.want)
		}
	}
}

func TestProblemsElsewhere(t *testing.T) {
	for _, test := range []struct {
		o    LoadOptions
		want string
	}{
		{LoadOptions{Env: []string{"RESTANTE_SMTP_LISTNE=x"}}, `environment: unknown variable "RESTANTE_SMTP_LISTNE"; did you mean "RESTANTE_SMTP_LISTEN"?`},
		{LoadOptions{Env: []string{"RESTANTE_POP3_IDLE_TIMEOUT=x"}}, `environment RESTANTE_POP3_IDLE_TIMEOUT: pop3.idle_timeout must be a time`},
		{LoadOptions{Env: []string{"RESTANTE_TLS_CERTIFICATES=x"}}, `environment RESTANTE_TLS_CERTIFICATES: tls.certificates can be set in the configuration file only`},
		{LoadOptions{Flags: map[string]string{"tls.certificates": "x"}}, `flag: tls.certificates can be set in the configuration file only`},
		{LoadOptions{Flags: map[string]string{"datadir": "x"}}, `flag: unknown key "datadir"; did you mean "data_dir"?`},
	} {
		test.o.WithoutHostname = true
		if got := problems(t, "", test.o); len(got) != 1 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestHostnameIsNeeded(t *testing.T) {
	file := write(t, "")
	if _, err := Load(file, LoadOptions{}); !errors.Is(err, errNoHostname) {
		t.Errorf("got %v", err)
	}
	// One that is wrong is not missing as well.
	if got := problems(t, `hostname = "mail"`, LoadOptions{}); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	doc := "hostname = 3\n[smtp]\nlisten = 4\nfoo = 5\n[[tls.certificates]]\n[log]\nlevel = \"x\"\n"
	got := problems(t, doc, LoadOptions{Env: []string{"RESTANTE_X=1"}, Flags: map[string]string{"y": ""}})
	places := []string{"FILE:1:", "FILE:3:", "FILE:4:", "FILE:5:", "FILE:5:", "FILE:7:", "environment:", "flag:"}
	if len(got) != len(places) {
		t.Fatalf("%d problems, want %d: %q", len(got), len(places), got)
	}
	for _, place := range places {
		if !strings.Contains(strings.Join(got, "\n"), place) {
			t.Errorf("nothing about %s: %q", place, got)
		}
	}
}

func TestNothingToServe(t *testing.T) {
	file := write(t, "hostname = \"mail.example.org\"\n[smtp]\nlisten = []\n[pop3]\nlisten = []\nlisten_tls = []\n")
	if _, err := Load(file, LoadOptions{}); !errors.Is(err, errNoPorts) {
		t.Errorf("no port at all: %v", err)
	}
}

// TestSameInLists: only what is listened on can be had once only.
func TestSameInLists(t *testing.T) {
	load(t, "proxy.trusted = [\"192.0.2.7\"]\nlimits.exempt = [\"192.0.2.7\"]\nlog.trace = [\"192.0.2.7\", \"192.0.2.7\"]\n", LoadOptions{})
	load(t, "smtp.listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n", LoadOptions{})
}
