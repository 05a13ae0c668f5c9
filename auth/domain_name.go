package auth

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// domains maps a name as people type it (capitals, wide forms, other full
// stops) the way lookups do, UTS 46 non-transitional, so that the letters that
// IDNA2008 added stay themselves; then holds it to the rules for making a name:
// only letters, digits and hyphens in ASCII, hyphens in their places, joiners
// only in their contexts, the bidi rule. Lengths are checked here, because the
// package refuses the dot at the end of a name together with them.
var domains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule())

// ParseDomain reads a domain name and returns its canonical form: lower-case
// A-labels (RFC 5890) without the dot of the root. Address literals and names
// that look like an IPv4 address are refused. The error is an *AddressError.
func ParseDomain(s string) (string, error) {
	name, reason := canonicalDomain(s)
	if reason != "" {
		return "", &AddressError{Input: s, Reason: reason}
	}
	return name, nil
}

func canonicalDomain(s string) (name, reason string) {
	switch {
	case s == "":
		return "", "the domain is missing"
	case len(s) > maxInput:
		return "", "the domain is too long"
	case !utf8.ValidString(s):
		return "", "the domain is not valid UTF-8"
	case s[0] == '[':
		return "", "an address in brackets is not a domain"
	}
	name = strings.ToLower(s)
	if !isASCII(s) || strings.Contains(name, "xn--") {
		var err error
		if name, err = domains.ToASCII(s); err != nil {
			return "", "the domain is not a valid internationalised name"
		}
	}
	name = strings.TrimSuffix(name, ".")
	return name, hostReason(name)
}

// hostReason says why name is no host name (RFC 1123 section 2.1), "" if it is
// one. It is in lower case already.
func hostReason(name string) string {
	if len(name) > 253 {
		return "the domain is longer than 253 octets"
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "the domain has an empty part"
		case len(label) > 63:
			return "a part of the domain is longer than 63 octets"
		case label[0] == '-' || label[len(label)-1] == '-':
			return "a part of the domain begins or ends with a hyphen"
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return "the domain has the character " + excerpt(label[i:i+1])
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "the domain ends in a number, as an IP address does"
	}
	return ""
}
