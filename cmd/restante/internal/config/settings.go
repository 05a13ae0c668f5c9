package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// setting is a row of the table that everything about settings comes from.
type setting struct {
	key      string
	accepts  kind
	ports    bool     // it is a list of addresses to listen on
	fields   []string // the keys of each table, all of them files; only where tables are accepted
	standard []string // the default; none for a setting that has no default
	help     string   // what it means, for someone who knows no mail servers
	set      func(*Config, value) error
	get      func(*Config) []string
}

// settings is the table, in the order of the file.
func settings() []setting {
	return slices.Concat(generalSettings(), smtpSettings(), pop3Settings(), tlsSettings(), authSettings(), limitSettings(), operationSettings())
}

// variable is the environment variable of the setting.
func (s setting) variable() string {
	return "RESTANTE_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// fromText is the value that an environment variable or a flag stands for.
func (s setting) fromText(in string) value {
	if s.accepts&list == 0 {
		return value{items: []string{strings.TrimSpace(in)}}
	}
	var items []string
	for item := range strings.SplitSeq(in, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return value{items: items}
}

// show is the value as people see it, in the form of the environment.
func (s setting) show(c *Config) string {
	return strings.Join(s.get(c), ", ")
}

func keys(table []setting) []string {
	all := make([]string, 0, len(table))
	for _, s := range table {
		all = append(all, s.key)
	}
	return all
}

// present is the list of a text, unless it is empty.
func present(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func setDataDir(c *Config, v value) error {
	if v.items[0] == "" {
		return errEmpty
	}
	dir, err := filepath.Abs(v.path(v.items[0])) // absolute already unless from outside the file
	if err != nil {
		return fmt.Errorf("cannot be found: %w", err)
	}
	// An environment variable could not say it: there, spaces at the ends count for nothing.
	if strings.TrimSpace(dir) != dir {
		return fmt.Errorf("must not end with a space: %q", dir)
	}
	c.DataDir = dir
	return nil
}

// setCertificates takes the tables of the file; no other source has tables.
func setCertificates(c *Config, v value) error {
	c.TLS.Certificates = nil
	for _, r := range v.rows {
		c.TLS.Certificates = append(c.TLS.Certificates, Certificate{
			Certificate: v.path(r.text("certificate")),
			Key:         v.path(r.text("key")),
		})
	}
	return nil
}

func showCertificates(c *Config) []string {
	var files []string
	for _, pair := range c.TLS.Certificates {
		files = append(files, pair.Certificate+" with "+pair.Key)
	}
	return files
}
