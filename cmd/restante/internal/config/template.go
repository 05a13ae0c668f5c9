package config

import (
	"encoding/json"
	"fmt"
	"strings"
)

const templateHead = `# The configuration of Restante, a mail server for small domains.
# Lines that begin with "# " explain. Lines such as "#listen = ..." show a default;
# remove their # to change it. Then run "restante config check".
`

// templateWidth is where lines of comment are broken.
const templateWidth = 78

// Template is a configuration file that explains every setting, with these two
// set and the others at their defaults.
func Template(hostname, dataDir string) []byte {
	chosen := map[string]string{"hostname": hostname, "data_dir": dataDir}
	var b strings.Builder
	b.WriteString(templateHead)
	section := ""
	for _, s := range settings() {
		in, name, nested := strings.Cut(s.key, ".")
		if !nested {
			in, name = "", s.key
		}
		if in != section {
			section = in
			fmt.Fprintf(&b, "\n[%s]\n", section)
		} else {
			b.WriteByte('\n')
		}
		comment(&b, s.help)
		if v, ok := chosen[s.key]; ok {
			fmt.Fprintf(&b, "%s = %s\n", name, quoted(v))
			continue
		}
		example(&b, s, name)
	}
	return []byte(b.String())
}

// example writes the default of a setting, without effect.
func example(b *strings.Builder, s setting, name string) {
	if s.accepts == tables {
		fmt.Fprintf(b, "#[[%s]]\n", s.key)
		for _, field := range s.fields {
			fmt.Fprintf(b, "#%s = %s\n", field, quoted(field+".pem"))
		}
		return
	}
	fmt.Fprintf(b, "#%s = %s\n", name, literal(s))
}

// literal is the default as TOML.
func literal(s setting) string {
	switch {
	case s.accepts == number, s.accepts&flag != 0 && (s.standard[0] == "true" || s.standard[0] == "false"):
		return s.standard[0]
	case s.accepts&list != 0:
		items := make([]string, 0, len(s.standard))
		for _, item := range s.standard {
			items = append(items, quoted(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return quoted(s.standard[0])
}

// quoted is a text as TOML: what JSON escapes, TOML escapes in the same way.
func quoted(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// comment writes words as lines of comment.
func comment(b *strings.Builder, words string) {
	line := "#"
	for _, word := range strings.Fields(words) {
		if len(line)+1+len(word) > templateWidth {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
