// Package certs holds the TLS certificates of the server: those the
// configuration names, or a self-signed one that it makes and keeps.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Pair names the PEM files of a certificate, its chain after it, and of its key.
type Pair struct {
	Certificate, Key string
}

// Info describes a certificate in use.
type Info struct {
	Names      []string // domain names and IP addresses it is valid for
	Issuer     string
	NotAfter   time.Time
	SelfSigned bool
	Source     string   // the certificate's file
	Warnings   []string // what works but should be mended; each names its file
}

// String is the certificate in one line, without its warnings.
func (i Info) String() string {
	kind := ""
	if i.SelfSigned {
		kind = ", self-signed"
	}
	return fmt.Sprintf("%s (%s%s, valid until %s)", i.Source, strings.Join(i.Names, " "), kind, i.NotAfter.Format(time.DateOnly))
}

// Manager chooses the certificate of each TLS connection. It is safe for
// concurrent use.
type Manager struct {
	self    selfSigned
	fetched string // file of certificate and key that comes later; "": none does
	version uint16 // of TLS, the least
	current atomic.Pointer[set]

	reloading sync.Mutex // held by who changes what follows
	pairs     []Pair     // as configured
	tried     []stamp    // the files that were read last, whether or not they could be used
	found     []stamp    // the files at the last Refresh
}

// set is the certificates of one moment.
type set struct {
	entries []entry // the first is for clients that name no known host
	byName  map[string]*tls.Certificate
}

// entry is a certificate ready for use.
type entry struct {
	tls  tls.Certificate
	pair Pair
	info Info // without its warnings
}

// Check reads the files as Open would and describes them. It writes nothing:
// a self-signed certificate that is not there yet is not described. The error names
// every file that cannot be used, and why.
func Check(o Options) ([]Info, error) {
	m := &Manager{self: newSelfSigned(o.SelfSignedDir, o.Hostname, o.ExtraNames), fetched: o.Fetched}
	files := m.files(o.Pairs)
	if self := m.self.pair(); len(files) == 0 && o.SelfSignedDir != "" && exist(self) {
		files = []Pair{self}
	}
	s, err := load(files)
	if err != nil {
		return nil, err
	}
	return s.infos(), nil
}

func exist(p Pair) bool {
	for _, file := range []string{p.Certificate, p.Key} {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	return true
}

// Options are for Open.
type Options struct {
	Pairs         []Pair
	SelfSignedDir string
	Hostname      string
	ExtraNames    []string
	// Fetched is a file of a certificate, its chain and its key, that is used after the
	// pairs as soon as it is there. "": none.
	Fetched    string
	MinVersion uint16 // of TLS; 0 is 1.2
}

// Open reads the pairs. Without pairs, and nothing fetched, it uses the self-signed
// certificate in SelfSignedDir, which it makes when there is none, or when the one there
// is for other names or expires soon. It is for Hostname, and for ExtraNames: domain
// names and IP addresses. The error names the file and the reason.
func Open(o Options) (*Manager, error) {
	m := &Manager{self: newSelfSigned(o.SelfSignedDir, o.Hostname, o.ExtraNames), fetched: o.Fetched, version: max(o.MinVersion, tls.VersionTLS12)}
	if err := m.Reload(o.Pairs); err != nil {
		return nil, err
	}
	return m, nil
}

// Reload reads the pairs, or the self-signed certificate when there are none,
// for connections to come. On an error the certificates stay as they were.
func (m *Manager) Reload(pairs []Pair) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	return m.read(pairs)
}

// Reread is Reload with the pairs of the last one.
func (m *Manager) Reread() error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	return m.read(m.pairs)
}

// read is Reload with the lock held.
func (m *Manager) read(pairs []Pair) error {
	now, files := time.Now(), m.files(pairs)
	if len(files) == 0 {
		if err := m.self.ensure(now); err != nil {
			return err
		}
		files = []Pair{m.self.pair()}
	}
	found := stamps(files) // before they are read: a later change is one
	s, err := load(files)
	if err != nil {
		return err
	}
	m.current.Store(s)
	m.pairs, m.tried = pairs, found
	return nil
}

// files are those to read: the pairs, and what was fetched if it can be used. None:
// the self-signed certificate is to be used.
func (m *Manager) files(pairs []Pair) []Pair {
	if m.fetched == "" {
		return pairs
	}
	own := Pair{m.fetched, m.fetched}
	if _, err := loadPair(own); err != nil {
		return pairs // another one is going to be fetched
	}
	return append(pairs[:len(pairs):len(pairs)], own)
}

// Config returns the settings of TLS servers: the least version of the options, with a
// certificate for the host name that the client asks for, else the first. It
// follows a Reload. The caller must not change it.
func (m *Manager) Config() *tls.Config {
	return &tls.Config{
		MinVersion: m.version,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return m.current.Load().choose(hello.ServerName), nil
		},
	}
}

// Describe tells what certificates are in use, the default first.
func (m *Manager) Describe() []Info {
	return m.current.Load().infos()
}

// choose finds the certificate for a name: the name itself, its wildcard, or
// the default. Many mail servers send no name.
func (s *set) choose(name string) *tls.Certificate {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if c, ok := s.byName[name]; ok {
		return c
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if c, ok := s.byName["*."+parent]; ok {
			return c
		}
	}
	return &s.entries[0].tls
}

func (s *set) infos() []Info {
	infos := make([]Info, 0, len(s.entries))
	for _, e := range s.entries {
		e.info.Warnings = warnings(e.pair, e.tls.Leaf, time.Now())
		infos = append(infos, e.info)
	}
	return infos
}

// index files the certificates by name; of two for one name the first is used.
func (s *set) index() {
	s.byName = make(map[string]*tls.Certificate)
	for i := range s.entries {
		for _, name := range s.entries[i].tls.Leaf.DNSNames {
			name = strings.ToLower(name)
			if _, taken := s.byName[name]; !taken {
				s.byName[name] = &s.entries[i].tls
			}
		}
	}
}

// names are what a certificate is valid for.
func names(leaf *x509.Certificate) []string {
	all := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 && leaf.Subject.CommonName != "" {
		all = append(all, leaf.Subject.CommonName)
	}
	return all
}
