package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"restante/cmd/restante/internal/replace"
)

// Files of the self-signed certificate in its directory.
const (
	CertificateFile = "cert.pem"
	KeyFile         = "key.pem"
)

const (
	selfSignedYears = 10
	renewBefore     = 30 * 24 * time.Hour
	// selfSignedBy marks a certificate as made here. Others are never replaced.
	selfSignedBy = "Restante self-signed certificate"
)

// selfSigned is the certificate for a server that was given none. Mail servers
// that deliver to it encrypt without checking it; people must accept it once.
type selfSigned struct {
	dir   string
	names []string // domain names
	ips   []net.IP
}

func newSelfSigned(dir, hostname string, extra []string) selfSigned {
	s := selfSigned{dir: dir}
	for _, name := range append([]string{hostname}, extra...) {
		if ip := net.ParseIP(name); ip != nil {
			s.ips = append(s.ips, ip)
		} else if name != "" && !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
	}
	return s
}

func (s selfSigned) pair() Pair {
	return Pair{filepath.Join(s.dir, CertificateFile), filepath.Join(s.dir, KeyFile)}
}

// ensure makes the certificate unless a good one is there.
func (s selfSigned) ensure(now time.Time) error {
	p := s.pair()
	chain, err := os.ReadFile(p.Certificate)
	if errors.Is(err, fs.ErrNotExist) {
		return s.create(now)
	}
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}
	leaf, err := ours(chain)
	if err != nil {
		return fmt.Errorf("certificate %s: %w; move it away, or name it under [[tls.certificates]] in the configuration", p.Certificate, err)
	}
	key, err := os.ReadFile(p.Key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key of the self-signed certificate: %w", err)
	}
	// The files are replaced one after the other: a crash between leaves two
	// that do not fit.
	if _, err := tls.X509KeyPair(chain, key); err == nil && s.good(leaf, now) {
		return nil
	}
	return s.create(now)
}

var errForeign = errors.New("not made by this program")

// ours parses a certificate that create made.
func ours(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, errForeign
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || leaf.Subject.CommonName != selfSignedBy {
		return nil, errForeign
	}
	return leaf, nil
}

// good tells whether a certificate of ours has the right names and time left.
func (s selfSigned) good(leaf *x509.Certificate, now time.Time) bool {
	return slices.Equal(leaf.DNSNames, s.names) &&
		slices.EqualFunc(leaf.IPAddresses, s.ips, net.IP.Equal) &&
		leaf.NotAfter.Sub(now) > renewBefore && !now.Before(leaf.NotBefore)
}

// create makes a key and its certificate, and keeps both.
func (s selfSigned) create(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a self-signed certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("making a self-signed certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: selfSignedBy},
		DNSNames:              s.names,
		IPAddresses:           s.ips,
		NotBefore:             now.Add(-24 * time.Hour), // for clients whose clock is late
		NotAfter:              now.AddDate(selfSignedYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("making a self-signed certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("making a self-signed certificate: %w", err)
	}
	return s.keep(cert, private)
}

// keep writes the key, then its certificate: when there is a certificate, there
// has been a key.
func (s selfSigned) keep(cert, private []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("directory of the self-signed certificate: %w", err)
	}
	p := s.pair()
	if err := replace.File(p.Key, block("PRIVATE KEY", private)); err != nil {
		return fmt.Errorf("writing the key of the self-signed certificate: %w", err)
	}
	if err := replace.File(p.Certificate, block("CERTIFICATE", cert)); err != nil {
		return fmt.Errorf("writing the self-signed certificate: %w", err)
	}
	return nil
}

func block(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}
