package foreign

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
)

// maxDigestSalt bounds a salt, in octets.
const maxDigestSalt = 64

// digest is a scheme that is a plain hash function over the password and
// perhaps a salt, which stands after the sum.
type digest struct {
	hash     func() hash.Hash
	salted   bool
	encoding string // when the scheme names none
}

// digests are the schemes of this kind, without those for single protocols.
var digests = map[string]digest{
	"PLAIN-MD5": {md5.New, false, "HEX"},
	"LDAP-MD5":  {md5.New, false, "B64"},
	"SMD5":      {md5.New, true, "B64"},
	"SHA":       {sha1.New, false, "B64"},
	"SHA1":      {sha1.New, false, "B64"},
	"SSHA":      {sha1.New, true, "B64"},
	"SHA256":    {sha256.New, false, "B64"},
	"SSHA256":   {sha256.New, true, "B64"},
	"SHA512":    {sha512.New, false, "B64"},
	"SSHA512":   {sha512.New, true, "B64"},
}

func (d digest) parse(scheme, encoding, s string) (func([]byte) bool, error) {
	raw, err := d.decode(encoding, s)
	if err != nil {
		return nil, err
	}
	size := d.hash().Size()
	switch salt := len(raw) - size; {
	case !d.salted && salt != 0:
		return nil, fmt.Errorf("a hash of {%s} has %d octets, this one %d", scheme, size, len(raw))
	case d.salted && (salt < 1 || salt > maxDigestSalt):
		return nil, fmt.Errorf("a hash of {%s} has %d octets and a salt of 1 to %d, this one %d in all", scheme, size, maxDigestSalt, len(raw))
	}
	sum, salt := raw[:size], raw[size:]
	return func(password []byte) bool {
		h := d.hash()
		h.Write(password)
		h.Write(salt)
		return equal(h.Sum(nil), sum)
	}, nil
}

func (d digest) decode(encoding, s string) ([]byte, error) {
	if encoding == "" {
		encoding = d.encoding
	}
	switch encoding {
	case "HEX":
		raw, err := hex.DecodeString(s)
		if err != nil {
			return nil, errors.New("it is not hexadecimal")
		}
		return raw, nil
	case "B64", "BASE64":
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, errors.New("it is not Base64")
		}
		return raw, nil
	}
	return nil, errors.New("the encoding after the dot is unknown; there are hex and b64")
}
