package smtpd

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on addresses, in octets. RFC 5321 section 4.5.3.1 allows 64 for a
// local part but asks not to insist: the reverse-paths of mailing lists and
// forwarders are longer.
const (
	maxLocal  = 256
	maxDomain = 255
	maxLabel  = 63

	maxAddress = 2*maxLocal + len(`""@`) + maxDomain // as it is written, all quoted
)

// An address is a mailbox of a path: the local part without its quotes, the
// domain as the client spelled it (an address literal with its brackets).
// Both empty: the null reverse-path. Domain empty: the bare <postmaster>.
type address struct{ local, domain string }

// String writes the address as it stands in a header, quoted where needed.
func (a address) String() string {
	local := a.local
	if !isDotAtom(local) && local != "" {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	if a.domain == "" {
		return local
	}
	return local + "@" + a.domain
}

// ascii reports whether the address can do without SMTPUTF8.
func (a address) ascii() bool { return isASCII(a.local) && isASCII(a.domain) }

// parsePath reads a path (RFC 5321 section 4.1.2) and gives what follows it,
// which is empty or begins with a space. Source routes are dropped, as is
// said there. More is taken than the grammar has: missing angle brackets,
// dots anywhere in a local part (phones had such addresses; String quotes
// them), underscores in domains, UTF-8 (RFC 6531). Control characters and
// octets that are not UTF-8 never pass.
func parsePath(s string) (a address, rest string, ok bool) {
	if !isText(s) {
		return a, "", false
	}
	s, bracket := strings.CutPrefix(s, "<")
	if bracket && strings.HasPrefix(s, ">") {
		return a, s[1:], endsWord(s[1:])
	}
	if bracket && strings.HasPrefix(s, "@") {
		if s, ok = skipRoute(s); !ok {
			return a, "", false
		}
	}
	if a.local, s, ok = scanLocal(s); !ok {
		return a, "", false
	}
	if after, found := strings.CutPrefix(s, "@"); found {
		if a.domain, s, ok = scanDomain(after); !ok {
			return a, "", false
		}
	} else if !strings.EqualFold(a.local, "postmaster") {
		return a, "", false
	}
	if bracket {
		if s, ok = strings.CutPrefix(s, ">"); !ok {
			return a, "", false
		}
	}
	return a, s, endsWord(s)
}

func endsWord(s string) bool { return s == "" || s[0] == ' ' }

// skipRoute passes over "@one,@two:" at the beginning of a path.
func skipRoute(s string) (rest string, ok bool) {
	for {
		if s, ok = strings.CutPrefix(s, "@"); !ok {
			return "", false
		}
		if _, s, ok = scanDomain(s); !ok || s == "" {
			return "", false
		}
		switch s[0] {
		case ':':
			return s[1:], true
		case ',':
			s = s[1:]
		default:
			return "", false
		}
	}
}

// scanLocal reads a local part and takes its quotes away.
func scanLocal(s string) (local, rest string, ok bool) {
	if quoted, found := strings.CutPrefix(s, `"`); found {
		local, rest, ok = scanQuoted(quoted)
	} else {
		n := 0
		for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
			n++
		}
		local, rest, ok = s[:n], s[n:], true
	}
	return local, rest, ok && local != "" && len(local) <= maxLocal
}

// scanQuoted reads the rest of a quoted string. Its octets are text already.
func scanQuoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// scanDomain reads a domain or an address literal. It judges the spelling no
// further than headers and logs need: labels, lengths and harmless octets.
func scanDomain(s string) (domain, rest string, ok bool) {
	if strings.HasPrefix(s, "[") {
		n := strings.IndexByte(s, ']') + 1
		_, ok = parseLiteral(s[:n])
		return s[:n], s[n:], ok
	}
	n := 0
	for n < len(s) && isDomainOctet(s[n]) {
		n++
	}
	domain = s[:n]
	if domain == "" || len(domain) > maxDomain {
		return "", "", false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabel && isASCII(label) {
			return "", "", false
		}
	}
	return domain, s[n:], true
}

// parseLiteral gives the address of "[192.0.2.1]" or "[IPv6:2001:db8::1]".
// The tag may be missing: many programs forget it.
func parseLiteral(s string) (netip.Addr, bool) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	if tag := "IPv6:"; len(s) > len(tag) && strings.EqualFold(s[:len(tag)], tag) {
		s = s[len(tag):]
	}
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil && ip.Zone() == ""
}

// literal writes an IP address as RFC 5321 section 4.1.3 says.
func literal(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// isHello reports whether s may be the argument of HELO or EHLO: a domain in
// ASCII (one dot at its end is forgiven) or an address literal.
func isHello(s string) bool {
	_, rest, ok := scanDomain(strings.TrimSuffix(s, "."))
	return ok && rest == "" && isASCII(s)
}

// isText reports whether s is UTF-8 without control characters, and without those
// that end a line or turn its direction: in a header field some readers obey them.
func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, isObeyed) < 0
}

func isObeyed(r rune) bool {
	return unicode.IsControl(r) || r > unicode.MaxLatin1 && unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isAtext is atext of RFC 5322 with the UTF-8 of RFC 6532.
func isAtext(c byte) bool {
	return isAlnum(c) || c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDomainOctet(c byte) bool {
	return isAlnum(c) || c >= utf8.RuneSelf || c == '-' || c == '_' || c == '.'
}

func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAtext(atom[i]) {
				return false
			}
		}
	}
	return true
}

// An envelope is one transaction: the reverse-path and the recipients that
// were accepted, each address and each mailbox once.
type envelope struct {
	open       bool // MAIL was accepted
	utf8       bool // with the SMTPUTF8 parameter
	from       address
	recipients []string // canonical addresses
	mailboxes  []string
	seen       map[entry]bool
	size       int64 // as announced, octets; 0 if it was not
}

// An entry is something that an envelope has once.
type entry struct {
	mailbox bool // or else a recipient
	name    string
}

// fresh are the mailboxes of a recipient that the envelope does not have yet.
func (e *envelope) fresh(r Recipient) (mailboxes []string) {
	for _, name := range r.Mailboxes {
		if !e.seen[entry{true, name}] {
			mailboxes = append(mailboxes, name)
		}
	}
	return mailboxes
}

// add takes in an accepted recipient.
func (e *envelope) add(r Recipient) {
	if e.seen == nil {
		e.seen = make(map[entry]bool)
	}
	if address := (entry{name: r.Address}); !e.seen[address] {
		e.seen[address] = true
		e.recipients = append(e.recipients, r.Address)
	}
	for _, name := range r.Mailboxes {
		if mailbox := (entry{true, name}); !e.seen[mailbox] {
			e.seen[mailbox] = true
			e.mailboxes = append(e.mailboxes, name)
		}
	}
}

// only gives the address of the sole recipient; "" if there are several, who
// must not learn of one another from the headers.
func (e *envelope) only() string {
	if len(e.recipients) != 1 {
		return ""
	}
	return e.recipients[0]
}
