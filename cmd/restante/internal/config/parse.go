package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is a set of kinds of values.
type kind uint8

const (
	text kind = 1 << iota
	number
	flag
	list
	tables
)

// what people call the kinds, in the order of their bits.
func (k kind) String() string {
	var names []string
	for i, name := range []string{
		`a text in quotes`, "a whole number", "true or false", `a list of texts, such as ["a", "b"]`, "a list of tables, each under its own name in [[ ]]",
	} {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", or ")
}

// value is what a source gives for a setting. That of an environment variable or
// a flag has no kind: its text is all there is.
type value struct {
	kind  kind
	what  string   // the kind, in an error
	items []string // one, except for a list
	rows  []row
	dir   string // relative names of files are relative to it; empty: to where the process runs
}

// row is one table of a list of tables.
type row struct {
	line    int
	entries []entry
}

// entry is a key of the file with its value, or the header of a section.
type entry struct {
	key    string
	line   int
	header bool
	value  value
}

// fits checks that a setting may have a value of this kind.
func (v value) fits(accepts kind) error {
	if accepts == tables && v.kind == 0 && v.what == "" {
		return errors.New("can be set in the configuration file only")
	}
	if v.kind&accepts == 0 && v.what != "" {
		return fmt.Errorf("must be %s, not %s", accepts, v.what)
	}
	return nil
}

// path makes the name of a file absolute, unless it came from outside the file.
func (v value) path(name string) string {
	if filepath.IsAbs(name) || v.dir == "" {
		return name
	}
	return filepath.Join(v.dir, name)
}

func (r row) has(key string) bool { return r.text(key) != "" }

func (r row) text(key string) string {
	for _, e := range r.entries {
		if e.key == key && len(e.value.items) == 1 {
			return e.value.items[0]
		}
	}
	return ""
}

// syntaxError is a file that is no TOML.
type syntaxError struct {
	line int
	text string
}

func (e *syntaxError) Error() string { return e.text }

// parse reads a file, in its order. Tables of one list are one entry. dir is the
// directory of the file.
func parse(doc []byte, dir string) ([]entry, error) {
	// The whole grammar, keys given twice included. The walk below is for what
	// this does not tell: the line of each key.
	if err := toml.Unmarshal(doc, new(map[string]any)); err != nil {
		var at *toml.DecodeError
		if !errors.As(err, &at) {
			return nil, err
		}
		line, _ := at.Position()
		return nil, &syntaxError{line, strings.TrimPrefix(at.Error(), "toml: ")}
	}
	p := parser{dir: dir}
	p.Reset(doc)
	for p.NextExpression() {
		p.expression(p.Expression())
	}
	return p.entries, p.Error()
}

type parser struct {
	unstable.Parser
	dir     string
	section string // what keys are relative to
	inRow   bool   // the section is a table of a list, the last row
	entries []entry
}

func (p *parser) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table:
		p.section, p.inRow = p.key(n), false
		p.entries = append(p.entries, entry{key: p.section, line: p.line(n), header: true})
	case unstable.ArrayTable:
		p.section, p.inRow = p.key(n), true
		p.addRow(p.section, row{line: p.line(n)})
	case unstable.KeyValue:
		found := p.keyValue("", n)
		if p.inRow {
			rows := p.entries[len(p.entries)-1].value.rows
			last := &rows[len(rows)-1]
			last.entries = append(last.entries, found...)
			return
		}
		for _, e := range found {
			e.key = join(p.section, e.key)
			p.entries = append(p.entries, e)
		}
	}
}

// addRow adds a table to the list with the key, which becomes the last entry.
func (p *parser) addRow(key string, r row) {
	e := entry{key: key, line: r.line, value: value{kind: tables, what: tables.String(), dir: p.dir}}
	for i, old := range p.entries {
		if old.key == key && old.value.kind == tables {
			e = old
			p.entries = append(p.entries[:i], p.entries[i+1:]...)
			break
		}
	}
	e.value.rows = append(e.value.rows, r)
	p.entries = append(p.entries, e)
}

// keyValue returns a key with its value, or those of an inline table.
func (p *parser) keyValue(prefix string, n *unstable.Node) []entry {
	key := join(prefix, p.key(n))
	if v := n.Value(); v.Kind != unstable.InlineTable {
		return []entry{{key: key, line: p.line(n), value: p.value(v, p.line(n))}}
	}
	return p.inlineTable(key, n.Value())
}

func (p *parser) inlineTable(prefix string, n *unstable.Node) []entry {
	var all []entry
	for it := n.Children(); it.Next(); {
		all = append(all, p.keyValue(prefix, it.Node())...)
	}
	return all
}

func (p *parser) value(n *unstable.Node, line int) value {
	v := value{dir: p.dir, items: []string{string(n.Data)}}
	switch n.Kind {
	case unstable.String:
		v.kind, v.what = text, "a text"
	case unstable.Integer:
		v.kind, v.what = number, "a number"
		if i, err := strconv.ParseInt(v.items[0], 0, 64); err == nil { // 0x10, 1_000: as others write it
			v.items[0] = strconv.FormatInt(i, 10)
		}
	case unstable.Bool:
		v.kind, v.what = flag, "true or false"
	case unstable.Array:
		return p.array(n, line)
	case unstable.Float:
		v.what = "a number with a fraction"
	default:
		v.what = "a date or time"
	}
	return v
}

// array is a list of texts, or of inline tables.
func (p *parser) array(n *unstable.Node, line int) value {
	v := value{dir: p.dir, kind: list | tables, what: "a list"}
	for it := n.Children(); it.Next(); {
		switch item := it.Node(); item.Kind {
		case unstable.String:
			v.kind &= list
			v.items = append(v.items, string(item.Data))
		case unstable.InlineTable:
			v.kind &= tables
			v.rows = append(v.rows, row{line: line, entries: p.inlineTable("", item)})
		default:
			v.kind = 0
		}
	}
	if v.kind == 0 {
		v.what = "a list with something else in it"
	}
	return v
}

// key is the dotted key of a header or key-value.
func (p *parser) key(n *unstable.Node) string {
	var parts []string
	for it := n.Key(); it.Next(); {
		part := string(it.Node().Data)
		if strings.Contains(part, ".") { // a dot inside quotes separates nothing
			part = strconv.Quote(part)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ".")
}

func (p *parser) line(n *unstable.Node) int {
	it := n.Key()
	it.Next()
	return p.Shape(it.Node().Raw).Start.Line
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
