package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"restante/cmd/restante/internal/nearest"
)

// loader fills a Config from its sources, the weakest first.
type loader struct {
	config   *Config
	file     string
	dir      string // relative names of files are relative to it
	table    []setting
	problems []error
	broken   bool // the file is no TOML: what it does not set is unknown
}

func (l *loader) problem(where string, err error) {
	l.problems = append(l.problems, fmt.Errorf("%s: %w", where, err))
}

func (l *loader) find(key string) (setting, bool) {
	i := slices.IndexFunc(l.table, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return l.table[i], true
}

// apply sets one setting, and remembers its origin.
func (l *loader) apply(s setting, v value, where, origin string) {
	l.config.origins[s.key] = origin
	err := v.fits(s.accepts)
	if err == nil {
		err = s.set(l.config, v)
	}
	if err != nil {
		l.problem(where, fmt.Errorf("%s %w", s.key, err))
	}
}

func (l *loader) at(line int) string {
	return fmt.Sprintf("%s:%d", l.file, line)
}

// document takes the settings of a file.
func (l *loader) document(doc []byte) {
	entries, err := parse(doc, l.dir)
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		l.broken = true
		l.problem(l.at(syntax.line), err)
	} else if err != nil {
		l.problem(l.file, err)
	}
	for _, e := range entries {
		s, ok := l.find(e.key)
		switch {
		case !ok && e.header:
			l.header(e)
		case !ok:
			l.problem(l.at(e.line), unknown("key", e.key, keys(l.table)))
		case e.header:
			l.problem(l.at(e.line), fmt.Errorf("%s %w", s.key, value{what: "a table"}.fits(s.accepts)))
		case l.complete(s, e.value.rows):
			l.apply(s, e.value, l.at(e.line), l.at(e.line))
		}
	}
}

// header checks the name of a section.
func (l *loader) header(e entry) {
	var sections []string
	for _, s := range l.table {
		if section, _, ok := strings.Cut(s.key, "."); ok {
			sections = append(sections, section)
		}
	}
	if !slices.Contains(sections, e.key) {
		l.problem(l.at(e.line), unknown("section", e.key, sections))
	}
}

// complete tells whether every table of a setting has all its fields and no
// others, and reports those that have not.
func (l *loader) complete(s setting, rows []row) bool {
	before := len(l.problems)
	var full []string
	for _, field := range s.fields {
		full = append(full, s.key+"."+field)
	}
	for _, r := range rows {
		for _, e := range r.entries {
			if !slices.Contains(s.fields, e.key) {
				l.problem(l.at(e.line), unknown("key", s.key+"."+e.key, full))
			} else if err := e.value.fits(text); err != nil {
				l.problem(l.at(e.line), fmt.Errorf("%s.%s %w", s.key, e.key, err))
			}
		}
		for _, field := range s.fields {
			if !r.has(field) {
				l.problem(l.at(r.line), fmt.Errorf("%s needs %s, the name of a file", s.key, field))
			}
		}
	}
	return len(l.problems) == before
}

// environment takes the settings of the variables that are ours. An empty one
// counts as not set.
func (l *loader) environment(env []string) {
	names := make([]string, 0, len(l.table))
	byName := make(map[string]setting)
	for _, s := range l.table {
		names = append(names, s.variable())
		byName[s.variable()] = s
	}
	for _, assignment := range env {
		name, text, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, "RESTANTE_") || name == configFileVariable || text == "" {
			continue
		}
		s, ok := byName[name]
		if !ok {
			l.problem("environment", unknown("variable", name, names))
			continue
		}
		l.apply(s, s.fromText(text), "environment "+name, "environment "+name)
	}
}

// flags takes the settings of a command line, in a fixed order.
func (l *loader) flags(flags map[string]string) {
	for _, s := range l.table {
		if text, ok := flags[s.key]; ok {
			l.apply(s, s.fromText(text), "flag", "flag")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		if _, ok := l.find(key); !ok {
			l.problem("flag", unknown("key", key, keys(l.table)))
		}
	}
}

// samePorts reports an address that is given twice: it could be opened once only.
func (l *loader) samePorts() {
	first := make(map[string]string)
	for _, s := range l.table {
		if !s.ports {
			continue
		}
		for _, addr := range s.get(l.config) {
			_, port, _ := net.SplitHostPort(addr)
			if at, twice := first[addr]; twice && port != "0" {
				l.problem(l.config.origin(s.key), fmt.Errorf("%s has %s, which %s has already", s.key, addr, at))
			}
			first[addr] = s.key
		}
	}
}

// inOtherSection is the known name that is the same but for the section.
func inOtherSection(name string, known []string) string {
	last := func(key string) string { return strings.ToLower(key[strings.LastIndexByte(key, '.')+1:]) }
	for _, k := range known {
		if last(k) == last(name) {
			return k
		}
	}
	return ""
}

// unknown is the error for a name that means nothing, with the name it may be a
// slip of.
func unknown(what, name string, known []string) error {
	near := inOtherSection(name, known)
	if near == "" {
		near = nearest.Name(name, known, len(name)/2) // half of it may be wrong
	}
	if near != "" {
		return fmt.Errorf("unknown %s %q; did you mean %q?", what, name, near)
	}
	return fmt.Errorf("unknown %s %q", what, name)
}
