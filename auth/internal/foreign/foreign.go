// Package foreign checks passwords against hashes that other programs made: the
// forms of crypt(5), and those of Dovecot with the name of a scheme in braces.
//
// A hash says itself what it costs to check. Whoever brings one in must not be
// able to occupy the server with it, so the costs are bounded when it is read.
package foreign

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
)

// maxHash bounds the text of a hash, in octets.
const maxHash = 512

// Hash is a hash that passwords can be checked against.
type Hash struct {
	text    string
	matches func(password []byte) bool
}

// String is the hash as Parse takes it.
func (h Hash) String() string { return h.text }

// maxPassword bounds a password, in octets: some of these hashes cost the more the
// longer it is, and it may be a stranger's.
const maxPassword = 128

// Matches tells whether the password is the one that was hashed; one of more than 128
// octets is not. It takes time and memory, within the bounds of Parse: about a second
// and 128 MiB at most.
func (h Hash) Matches(password string) bool {
	octets := []byte(password)
	long := len(octets) > maxPassword
	return h.matches(octets[:min(len(octets), maxPassword)]) && !long
}

// equal compares in constant time.
func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// Parse reads a hash. The error says what is wrong with it, never what it is.
func Parse(s string) (Hash, error) {
	if len(s) > maxHash || strings.ContainsAny(s, "\x00\r\n") {
		return Hash{}, errors.New("it is not one line of at most 512 octets")
	}
	scheme, rest, braced := "", s, false
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		scheme, rest, braced = strings.Cut(inner, "}")
		if !braced {
			return Hash{}, errors.New("its scheme has no closing brace")
		}
	}
	var matches func([]byte) bool
	var err error
	if braced {
		matches, err = parseScheme(strings.ToUpper(scheme), rest)
	} else {
		matches, err = parseCrypt(rest)
	}
	if err != nil {
		return Hash{}, err
	}
	return Hash{s, matches}, nil
}

// parseScheme reads what follows a scheme of Dovecot.
func parseScheme(scheme, rest string) (func([]byte) bool, error) {
	name, encoding, _ := strings.Cut(scheme, ".")
	if prefixes, ok := cryptSchemes[name]; ok {
		if encoding != "" {
			return nil, fmt.Errorf("the scheme %s has no encodings", name)
		}
		return parseCryptOf(name, prefixes, rest)
	}
	if d, ok := digests[name]; ok {
		return d.parse(name, encoding, rest)
	}
	if unsupported[name] {
		return nil, fmt.Errorf("hashes of the scheme {%s} cannot be checked here; set a new password", name)
	}
	return nil, errors.New("the scheme in braces is unknown")
}

// unsupported are schemes that may be named in an error. What else is in braces may be
// a part of a password.
var unsupported = map[string]bool{
	"ARGON2I": true, "PBKDF2": true, "DES-CRYPT": true, "CRAM-MD5": true, "HMAC-MD5": true, "DIGEST-MD5": true,
	"SCRAM-SHA-1": true, "SCRAM-SHA-256": true, "LANMAN": true, "NTLM": true, "OTP": true, "SKEY": true, "RPA": true,
	"PLAIN-MD4": true,
}
