package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// other is, for each setting, another value than the default: as the
// environment has it, as the file has it, and as people see it.
func other() map[string]struct{ text, toml, shown string } {
	return map[string]struct{ text, toml, shown string }{
		"hostname":                          {"Mail.Example.org", `"mail.example.org"`, "mail.example.org"},
		"data_dir":                          {"/srv/mail", `"/srv/mail"`, "/srv/mail"},
		"smtp.listen":                       {"127.0.0.1:2525,[::1]:2525", `["127.0.0.1:2525", "[::1]:2525"]`, "127.0.0.1:2525, [::1]:2525"},
		"smtp.max_message_size":             {"25MB", "25_000_000", "25MB"},
		"smtp.max_recipients":               {"200", "200", "200"},
		"pop3.listen":                       {"localhost:1110", `["localhost:1110"]`, "localhost:1110"},
		"pop3.listen_tls":                   {":1995", `[":1995"]`, ":1995"},
		"pop3.idle_timeout":                 {"90m", `"1h30m"`, "1h30m"},
		"auth.failure_delay":                {"3s", `"3s"`, "3s"},
		"auth.exempt":                       {"192.0.2.0/24, 2001:db8::/32", `["192.0.2.0/24", "2001:db8::/32"]`, "192.0.2.0/24, 2001:db8::/32"},
		"smtp.max_connections":              {"7", `7`, "7"},
		"smtp.max_commands":                 {"77", `77`, "77"},
		"smtp.max_errors":                   {"7", `7`, "7"},
		"smtp.max_refused":                  {"7", `7`, "7"},
		"pop3.max_connections":              {"7", `7`, "7"},
		"pop3.max_commands":                 {"77", `77`, "77"},
		"pop3.max_errors":                   {"7", `7`, "7"},
		"pop3.max_failed_logins":            {"7", `7`, "7"},
		"limits.connections_per_address":    {"7", `7`, "7"},
		"limits.connections_per_network":    {"7", `7`, "7"},
		"limits.new_connections_per_minute": {"7", `7`, "7"},
		"smtp.greeting_pause":               {"7s", `"7s"`, "7s"},
		"smtp.greeting_timeout":             {"7s", `"7s"`, "7s"},
		"smtp.command_timeout":              {"7s", `"7s"`, "7s"},
		"smtp.data_timeout":                 {"7s", `"7s"`, "7s"},
		"smtp.handshake_timeout":            {"7s", `"7s"`, "7s"},
		"pop3.login_timeout":                {"7s", `"7s"`, "7s"},
		"pop3.handshake_timeout":            {"7s", `"7s"`, "7s"},
		"limits.pause":                      {"3s", `"3s"`, "3s"},
		"smtp.message_timeout":              {"7m", `"7m"`, "7m"},
		"smtp.min_rate":                     {"7KiB", `"7KiB"`, "7KiB"},
		"user":                              {"mail", `"mail"`, "mail"},
		"proxy.trusted":                     {"192.0.2.1/32", `["192.0.2.1"]`, "192.0.2.1/32"},
		"sandbox.landlock":                  {"false", "false", "false"},
		"tls.min_version":                   {"1.3", `"1.3"`, "1.3"},
		"tls.acme":                          {"true", "true", "true"},
		"tls.acme_email":                    {"me@example.org", `"me@example.org"`, "me@example.org"},
		"tls.acme_names":                    {"a.example.org, b.example.org", `["a.example.org", "b.example.org"]`, "a.example.org, b.example.org"},
		"tls.acme_http":                     {"127.0.0.1:5002", `["127.0.0.1:5002"]`, "127.0.0.1:5002"},
		"tls.acme_tls":                      {"127.0.0.1:5001", `["127.0.0.1:5001"]`, "127.0.0.1:5001"},
		"tls.acme_directory":                {"https://ca.example/dir", `"https://ca.example/dir"`, "https://ca.example/dir"},
		"tls.acme_roots":                    {"/tmp/roots.pem", `"/tmp/roots.pem"`, "/tmp/roots.pem"},
		"smtp.reject_hurried":               {"false", "false", "false"},
		"smtp.reject_own_name":              {"false", "false", "false"},
		"limits.exempt":                     {"192.0.2.0/24,2001:db8::7", `["192.0.2.0/24", "2001:db8::7"]`, "192.0.2.0/24, 2001:db8::7/128"},
		"pop3.login_delay":                  {"60s", `"1m"`, "1m"},
		"auth.allow_plaintext":              {"10.0.0.0/8, ::1", `["10.0.0.0/8", "::1"]`, "10.0.0.0/8, ::1/128"},
		"auth.argon2_memory":                {"64mib", `"64 MiB"`, "64MiB"},
		"auth.argon2_time":                  {"3", "3", "3"},
		"auth.argon2_threads":               {"4", "0x4", "4"},
		"log.level":                         {"DEBUG", `"debug"`, "debug"},
		"log.format":                        {"json", `"json"`, "json"},
		"log.trace":                         {"Alice@Example.org,192.0.2.7", `["alice@example.org", "192.0.2.7"]`, "alice@example.org, 192.0.2.7/32"},
		"metrics.listen":                    {"127.0.0.1:9125", `["127.0.0.1:9125"]`, "127.0.0.1:9125"},
	}
}

// write puts a document into a file of its own and returns its name.
func write(t *testing.T, doc string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "restante.toml")
	if err := os.WriteFile(name, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// load loads a document as a file, which must work, without need of a hostname.
func load(t *testing.T, doc string, o LoadOptions) *Config {
	t.Helper()
	o.WithoutHostname = true
	c, err := Load(write(t, doc), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func find(t *testing.T, c *Config, key string) Setting {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Key == key {
			return s
		}
	}
	t.Fatalf("no setting %s", key)
	return Setting{}
}

func TestDefaults(t *testing.T) {
	c := Default()
	for _, s := range settings() {
		v := value{items: s.standard}
		if len(s.standard) > 0 {
			if err := s.set(Default(), v); err != nil {
				t.Errorf("default of %s: %v", s.key, err)
			}
		}
		if got, want := s.show(c), strings.Join(s.standard, ", "); got != want {
			t.Errorf("default of %s is shown as %q, want %q", s.key, got, want)
		}
		if s.help == "" {
			t.Errorf("%s is not explained", s.key)
		}
	}
	for _, s := range c.Settings() {
		if s.Origin != "default" || s.Value != s.Default {
			t.Errorf("untouched setting: %+v", s)
		}
	}
}

// Every field of Config is reached by a setting: with all settings changed, no
// field is as it was.
func TestEveryFieldHasASetting(t *testing.T) {
	doc := ""
	for key, o := range other() {
		doc += key + " = " + o.toml + "\n"
	}
	doc += "[[tls.certificates]]\ncertificate = \"a\"\nkey = \"b\"\n"
	compareFields(t, "Config", reflect.ValueOf(*Default()), reflect.ValueOf(*load(t, doc, LoadOptions{})))
}

func compareFields(t *testing.T, path string, a, b reflect.Value) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name := path + "." + f.Name
		switch {
		case !f.IsExported():
		case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Networks]():
			compareFields(t, name, a.Field(i), b.Field(i))
		case reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			t.Errorf("no setting changes %s", name)
		}
	}
}

func TestSources(t *testing.T) {
	samples := other()
	for _, s := range settings() {
		if s.accepts == tables {
			continue
		}
		o, ok := samples[s.key]
		if !ok {
			t.Errorf("no sample for %s", s.key)
			continue
		}
		doc := s.key + " = " + o.toml
		env := []string{"PATH=/bin", s.variable() + "=" + o.text}
		flags := map[string]string{s.key: o.text}
		file := write(t, doc)
		for _, test := range []struct {
			origin string
			file   string
			o      LoadOptions
		}{
			{file + ":1", file, LoadOptions{}},
			{"environment " + s.variable(), file, LoadOptions{Env: env}},
			{"flag", file, LoadOptions{Env: env, Flags: flags}},
			{"environment " + s.variable(), "none.toml", LoadOptions{Env: env, Optional: true}},
			{"flag", "none.toml", LoadOptions{Flags: flags, Optional: true}},
		} {
			test.o.WithoutHostname = true
			c, err := Load(test.file, test.o)
			if err != nil {
				t.Errorf("%s from %s: %v", s.key, test.origin, err)
				continue
			}
			want := Setting{Key: s.key, Value: o.shown, Default: s.show(Default()), Origin: test.origin, Help: s.help}
			if d := cmp.Diff(want, find(t, c, s.key)); d != "" {
				t.Errorf("%s from %s: %s", s.key, test.origin, d)
			}
		}
	}
}

func TestPrecedence(t *testing.T) {
	o := LoadOptions{}
	for _, step := range []struct {
		set  func()
		want int
	}{
		{func() {}, 101},
		{func() { o.Env = []string{"RESTANTE_SMTP_MAX_RECIPIENTS="} }, 101}, // empty: not set
		{func() { o.Env = []string{"RESTANTE_SMTP_MAX_RECIPIENTS=102", "RESTANTE_CONFIG=x"} }, 102},
		{func() { o.Flags = map[string]string{"smtp.max_recipients": "103"} }, 103},
	} {
		step.set()
		if got := load(t, "[smtp]\nmax_recipients = 101", o).SMTP.MaxRecipients; got != step.want {
			t.Errorf("got %d, want %d", got, step.want)
		}
	}
}

func TestTemplate(t *testing.T) {
	const host, dir = "mail.example.org", `/srv/"mail" \ü`
	want := Default()
	want.Hostname, want.DataDir = host, dir
	compare := func(doc string) {
		t.Helper()
		c, err := Load(write(t, doc), LoadOptions{})
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		equal := cmp.Comparer(func(a, b Networks) bool { return a.String() == b.String() })
		same := cmp.Comparer(func(a, b Trace) bool { return a.String() == b.String() })
		if d := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Config{}, "TLS"), equal, same); d != "" {
			t.Error(d)
		}
	}
	doc := string(Template(host, dir))
	compare(doc)

	// The defaults that it shows are the defaults, and none is left out.
	active := uncomment(doc)
	c, err := Load(write(t, active), LoadOptions{})
	if err != nil {
		t.Fatalf("%v\n%s", err, active)
	}
	for _, s := range c.Settings() {
		if s.Origin == "default" {
			t.Errorf("%s is not in the template", s.Key)
		}
	}
	if len(c.TLS.Certificates) != 1 {
		t.Errorf("certificates in the template: %v", c.TLS.Certificates)
	}
	compare(active)
	for line := range strings.Lines(doc) {
		if strings.HasPrefix(line, "#") && len(line) > 2*templateWidth {
			t.Errorf("long line: %s", line)
		}
	}
}

// uncomment gives effect to the defaults that a template shows.
func uncomment(doc string) string {
	var b strings.Builder
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "# ") {
			line = strings.TrimPrefix(line, "#")
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestCertificates(t *testing.T) {
	for name, doc := range map[string]string{
		"tables": "[[tls.certificates]]\ncertificate = \"a.pem\"\nkey = \"/k/a.pem\"\n[log]\nlevel = \"info\"\n[[tls.certificates]]\nkey = \"k.pem\"\ncertificate = \"sub/b.pem\"\n",
		"inline": "tls.certificates = [{certificate = \"a.pem\", key = \"/k/a.pem\"},\n {certificate = \"sub/b.pem\", key = \"k.pem\"}]\n",
	} {
		file := write(t, doc)
		c, err := Load(file, LoadOptions{WithoutHostname: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		dir := filepath.Dir(file)
		want := []Certificate{
			{filepath.Join(dir, "a.pem"), "/k/a.pem"},
			{filepath.Join(dir, "sub/b.pem"), filepath.Join(dir, "k.pem")},
		}
		if d := cmp.Diff(want, c.TLS.Certificates); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if got := find(t, c, "tls.certificates"); got.Origin != file+":1" {
			t.Errorf("%s: origin %s", name, got.Origin)
		}
	}
	if c := load(t, "tls.certificates = []", LoadOptions{}); len(c.TLS.Certificates) != 0 {
		t.Errorf("an empty list gave %v", c.TLS.Certificates)
	}
}

func TestDataDirIsAbsolute(t *testing.T) {
	file := write(t, `data_dir = "mail"`)
	c, err := Load(file, LoadOptions{WithoutHostname: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(file), "mail"); c.DataDir != want {
		t.Errorf("from the file: %s, want %s", c.DataDir, want)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c = load(t, "", LoadOptions{Env: []string{"RESTANTE_DATA_DIR=mail"}})
	if want := filepath.Join(here, "mail"); c.DataDir != want {
		t.Errorf("from the environment: %s, want %s", c.DataDir, want)
	}
}

func TestMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(missing, LoadOptions{WithoutHostname: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if _, err := Load(missing, LoadOptions{Optional: true, WithoutHostname: true}); err != nil {
		t.Errorf("optional: %v", err)
	}
	if _, err := Load(t.TempDir(), LoadOptions{Optional: true, WithoutHostname: true}); err == nil {
		t.Error("a directory was taken for a file")
	}
}
