package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// An administrator should know of an expiry when so much time is left, or so little
// of a certificate's whole life. Automatic renewals are done well before.
const (
	expiresSoon = 14 * 24 * time.Hour
	lastPart    = 4
)

// load reads every pair; all of them, or an error for each that is wrong.
func load(pairs []Pair) (*set, error) {
	s := &set{}
	var errs []error
	for _, p := range pairs {
		e, err := loadPair(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.entries = append(s.entries, e)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.index()
	return s, nil
}

func loadPair(p Pair) (entry, error) {
	chain, err := readFile("certificate", p.Certificate)
	if err != nil {
		return entry{}, err
	}
	key, err := readFile("private key", p.Key)
	if err != nil {
		return entry{}, err
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return entry{}, pairError(p, key, err)
	}
	leaf := c.Leaf
	return entry{tls: c, pair: p, info: Info{
		Names:      names(leaf),
		Issuer:     issuer(leaf),
		NotAfter:   leaf.NotAfter,
		SelfSigned: selfSignedLeaf(leaf),
		Source:     p.Certificate,
	}}, nil
}

// issuer is who has signed the certificate, as people call it.
func issuer(leaf *x509.Certificate) string {
	name := leaf.Issuer
	switch {
	case len(name.Organization) > 0 && name.CommonName != "" && name.Organization[0] != name.CommonName:
		return name.Organization[0] + " " + name.CommonName
	case name.CommonName != "":
		return name.CommonName
	case len(name.Organization) > 0:
		return name.Organization[0]
	}
	return name.String()
}

// selfSignedLeaf tells whether the certificate is signed with its own key. It
// need not be that of an authority, as CheckSignatureFrom wants.
func selfSignedLeaf(leaf *x509.Certificate) bool {
	return bytes.Equal(leaf.RawIssuer, leaf.RawSubject) &&
		leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil
}

// readFile reads a file of PEM, with an error for its administrator.
func readFile(what, name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s %s: %w", what, name, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s %s: %w; the server's user must be able to read it", what, name, fs.ErrPermission)
	}
	var path *fs.PathError
	if errors.As(err, &path) { // its text repeats the name
		err = path.Err
	}
	return nil, fmt.Errorf("%s %s: %w", what, name, err)
}

// pairError says what is wrong with two files that could be read, as far as it
// can be told.
func pairError(p Pair, key []byte, err error) error {
	if block, _ := pem.Decode(key); block != nil &&
		(block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "") {
		err = errors.New("the key is encrypted; keep it without a passphrase, readable by the server's user only")
	}
	reason := strings.TrimPrefix(err.Error(), "tls: ")
	return fmt.Errorf("certificate %s with private key %s: %s", p.Certificate, p.Key, reason)
}

// warnings are about a pair that can be used. A certificate out of its time is
// one: mail servers take it, mail programs ask, and to serve nobody is worse.
func warnings(p Pair, leaf *x509.Certificate, now time.Time) []string {
	var w []string
	soon := min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/lastPart)
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		w = append(w, fmt.Sprintf("certificate %s expired on %s; renew it", p.Certificate, leaf.NotAfter.Format(time.DateOnly)))
	case left < soon:
		w = append(w, fmt.Sprintf("certificate %s expires on %s", p.Certificate, leaf.NotAfter.Format(time.DateOnly)))
	case now.Before(leaf.NotBefore):
		w = append(w, fmt.Sprintf("certificate %s is not valid before %s; is the clock right?", p.Certificate, leaf.NotBefore.Format(time.DateTime+" MST")))
	}
	if st, err := os.Stat(p.Key); err == nil && st.Mode().Perm()&0o007 != 0 {
		w = append(w, fmt.Sprintf("private key %s is open to every user of this machine; close it with: chmod o= %s", p.Key, p.Key))
	}
	return w
}
