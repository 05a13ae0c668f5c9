package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// maxInput bounds what is looked at before it is normalised, in octets.
	maxInput = 1024
	// maxLocal is the limit of RFC 5321 section 4.5.3.1.1 for names made here,
	// in octets. Recipients may be longer up to maxAddress: the details that
	// programs add after the separator often are.
	maxLocal = 64
	// maxAddress is a path of 256 octets without its angle brackets
	// (RFC 5321 section 4.5.3.1.3).
	maxAddress = 254
)

// Address is a mail address in canonical form: lower-case, Unicode NFC, the
// local part without quotes, the domain as A-labels. An empty local part
// stands for every other address of the domain (the catch-all); ParseAddress
// does not make one.
type Address struct{ Local, Domain string }

// String is the address as it stands in an envelope: the local part is quoted
// when it is no dot-atom (RFC 5321 section 4.1.2).
func (a Address) String() string {
	if a.Local == "" || isDotAtom(a.Local) {
		return a.Local + "@" + a.Domain
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range a.Local {
		if r == '"' || r == '\\' {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteString(`"@`)
	b.WriteString(a.Domain)
	return b.String()
}

// ParseAddress reads local-part@domain of RFC 5321 section 4.1.2 with the
// UTF-8 of RFC 6531 and brings it to its canonical form. The domain is a name,
// not an address literal; a dot at its end is dropped. The error is an
// *AddressError.
func ParseAddress(s string) (Address, error) {
	local, domain, reason := splitAddress(s)
	if reason == "" {
		var a Address
		if a, reason = canonicalAddress(local, domain); reason == "" {
			return a, nil
		}
	}
	return Address{}, &AddressError{Input: s, Reason: reason}
}

// splitAddress separates the parts and takes the quotes off the local part.
func splitAddress(s string) (local, domain, reason string) {
	if len(s) > maxInput {
		return "", "", "it is too long"
	}
	if strings.HasPrefix(s, `"`) {
		local, rest, reason := unquote(s)
		if reason != "" {
			return "", "", reason
		}
		if !strings.HasPrefix(rest, "@") {
			return "", "", "an @ must follow the quoted part"
		}
		return local, rest[1:], ""
	}
	at := strings.LastIndexByte(s, '@')
	switch {
	case at < 0:
		return "", "", "it has no @"
	case at == 0:
		return "", "", "nothing stands before the @"
	}
	return s[:at], s[at+1:], dotAtomReason(s[:at])
}

// unquote reads the quoted string that s begins with.
func unquote(s string) (content, rest, reason string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], ""
		case c == '\\':
			i++
			if i == len(s) {
				return "", "", "the quoted part has no end"
			}
			if s[i] >= utf8.RuneSelf {
				return "", "", "a backslash stands before a character that it cannot quote"
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", "the quoted part has no end"
}

// canonicalAddress makes an address of an unquoted local part and a domain.
func canonicalAddress(local, domain string) (Address, string) {
	local, reason := canonicalLocal(local)
	if reason != "" {
		return Address{}, reason
	}
	domain, reason = canonicalDomain(domain)
	if reason != "" {
		return Address{}, reason
	}
	a := Address{Local: local, Domain: domain}
	// Quoting adds at most one octet an octet and two.
	if 2*len(local)+len(domain)+3 > maxAddress && len(a.String()) > maxAddress {
		return Address{}, "it is longer than the 254 octets of an address"
	}
	return a, ""
}

// canonicalLocal folds an unquoted local part.
func canonicalLocal(s string) (folded, reason string) {
	switch {
	case s == "":
		return "", "nothing stands before the @"
	case len(s) > maxInput:
		return "", "it is too long"
	case !utf8.ValidString(s):
		return "", "it is not valid UTF-8"
	}
	folded = foldCase(s)
	for _, r := range folded {
		// IsPrint leaves out controls, formatting characters such as the
		// bidirectional ones, spaces other than U+0020, private and
		// unassigned characters.
		if !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return "", "it has a control, invisible or unassigned character"
		}
	}
	return folded, ""
}

// foldCase is the lower-case NFC form of s.
func foldCase(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return norm.NFC.String(strings.Map(foldRune, norm.NFC.String(s)))
}

// foldRune gives runes that differ only by case one lower-case form: that of
// the first upper-case rune among them. So the two lower-case forms of the
// Greek sigma are one letter, as they are in capitals.
func foldRune(r rune) rune {
	upper := rune(-1)
	for o := unicode.SimpleFold(r); ; o = unicode.SimpleFold(o) {
		if unicode.IsUpper(o) && (upper < 0 || o < upper) {
			upper = o
		}
		if o == r {
			break
		}
	}
	if upper < 0 {
		return unicode.ToLower(r)
	}
	return unicode.ToLower(upper)
}

// isDotAtom: dot-string of RFC 5321 section 4.1.2, UTF-8 allowed.
func isDotAtom(s string) bool { return dotAtomReason(s) == "" }

// dotAtomReason says why s is no dot-atom, "" if it is one.
func dotAtomReason(s string) string {
	dot := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.' && dot:
			return "a dot stands first or follows a dot before the @"
		case c != '.' && !isAtext(c):
			return "the character " + excerpt(string(rune(c))) + " must stand in quotes before the @"
		}
		dot = c == '.'
	}
	if dot {
		return "the part before the @ is empty or ends in a dot"
	}
	return ""
}

func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// ParseUser is ParseAddress for the address of a user, whose local part becomes
// the name of a directory on disk.
func ParseUser(s string) (Address, error) {
	a, err := ParseAddress(s)
	if err != nil {
		return a, err
	}
	switch {
	case !isDotAtom(a.Local):
		err = &AddressError{Input: s, Reason: "a user's name needs no quotes; make an alias for such an address"}
	case strings.ContainsRune(a.Local, '/'):
		err = &AddressError{Input: s, Reason: "a user's name has no slash; make an alias for such an address"}
	case len(a.Local) > maxLocal:
		err = &AddressError{Input: s, Reason: "the part before the @ is longer than 64 octets"}
	}
	return a, err
}

// parseAlias reads the address of an alias, which may be @domain.
func parseAlias(s string) (Address, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		domain, reason := canonicalDomain(name)
		if reason != "" {
			return Address{}, &AddressError{Input: s, Reason: reason}
		}
		return Address{Domain: domain}, nil
	}
	a, err := ParseAddress(s)
	if err == nil && len(a.Local) > maxLocal {
		err = &AddressError{Input: s, Reason: "the part before the @ is longer than 64 octets"}
	}
	return a, err
}
