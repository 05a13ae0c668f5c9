package storage

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	idLength      = 16  // characters of a message id
	maxHostLength = 150 // leaves room for the rest of a name of 255 octets
	maxUIDL       = 70  // RFC 1939, section 7
	infoMark      = ":2,"
)

// fileName is what the name of a file in new/ or cur/ says.
type fileName struct {
	base   string // without ":2," and flags: the same for the life of the message
	id     string // base without ",S=n" and ",W=n"
	time   uint64 // the number before the first dot; 0 without one
	ours   bool   // the name is of the form that formatName makes
	size   int64  // octets on disk, if ours
	octets int64  // octets on the wire, if ours
}

// formatName is the name of a delivered message: unique by its id, ordered by
// its time in Unix seconds, with the sizes that save a look into the file.
func formatName(seconds int64, id, host string, size, octets int64) string {
	return fmt.Sprintf("%d.%s.%s,S=%d,W=%d", seconds, id, host, size, octets)
}

// parseName takes any name apart, whoever made it.
func parseName(name string) fileName {
	f := fileName{base: baseName(name)}
	if !f.parseOurs() {
		f.id = withoutSizes(f.base)
	}
	f.time = leadingNumber(f.id)
	return f
}

// baseName cuts off the flags, which change in the life of a message.
func baseName(name string) string {
	base, _, _ := strings.Cut(name, infoMark)
	return base
}

// parseOurs reads the fields of a name of our own form, exactly as formatName
// writes them. Sizes in any other name are some other program's and not trusted.
func (f *fileName) parseOurs() bool {
	seconds, rest, ok := strings.Cut(f.base, ".")
	if !ok || len(rest) <= idLength || !validID(rest[:idLength]) || rest[idLength] != '.' {
		return false
	}
	host, sizes, ok := strings.Cut(rest[idLength+1:], ",S=")
	if !ok || host == "" || strings.ContainsAny(host, ",:") {
		return false
	}
	s, w, ok := strings.Cut(sizes, ",W=")
	if !ok {
		return false
	}
	size, ok1 := parseCount(s)
	octets, ok2 := parseCount(w)
	_, ok3 := parseCount(seconds)
	if !ok1 || !ok2 || !ok3 || octets < size || octets-size > size {
		return false
	}
	f.ours, f.size, f.octets = true, size, octets
	f.id = f.base[:len(f.base)-len(sizes)-len(",S=")]
	return true
}

// parseCount reads a number without sign or leading zeros.
func parseCount(s string) (int64, bool) {
	if s == "" || s[0] == '+' || s[0] == '-' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// validID reports whether id is a message id: 16 characters a-z and 0-9.
func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// leadingNumber is the number before the first dot, by which a maildrop is
// ordered; one too large counts as the largest.
func leadingNumber(name string) uint64 {
	number, _, _ := strings.Cut(name, ".")
	if number == "" || strings.Trim(number, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}

// withoutSizes drops the fields ",S=n" and ",W=n", which some programs add or
// mend later.
func withoutSizes(base string) string {
	if !strings.Contains(base, ",S=") && !strings.Contains(base, ",W=") {
		return base
	}
	fields := strings.Split(base, ",")
	rest := slices.DeleteFunc(fields[1:], func(f string) bool {
		return len(f) > 2 && (f[:2] == "S=" || f[:2] == "W=") && strings.Trim(f[2:], "0123456789") == ""
	})
	return strings.Join(fields[:1+len(rest)], ",")
}

// uidl is s where RFC 1939 allows it as a unique-id, else a hash of it.
func uidl(s string) string {
	unfit := func(r rune) bool { return r < 0x21 || r > 0x7E }
	if s == "" || len(s) > maxUIDL || strings.ContainsFunc(s, unfit) {
		return hashedUIDL(s)
	}
	return s
}

func hashedUIDL(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))
}

// safeHost makes a host name fit for file names, in the Maildir manner: an octet
// that has a meaning there, or is not visible ASCII, becomes \ooo.
func safeHost(host string) string {
	var b strings.Builder
	for _, c := range []byte(host) {
		if c <= ' ' || c > '~' || strings.IndexByte("/:,", c) >= 0 {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	s := b.String()
	if s == "" {
		return "localhost"
	}
	return s[:min(len(s), maxHostLength)]
}

// entry is a message found in a mailbox. It and its name are all the memory a
// message costs in a session: about 170 octets.
type entry struct {
	name   string
	id     string // part of name, mostly
	time   uint64
	size   int64 // octets on disk
	octets int64 // octets on the wire
	ours   bool  // sizes come from the name
	seen   bool  // in cur/, else in new/
	clash  bool  // another message has the same id
	gone   bool  // vanished in this session
}

func newEntry(name string, seen bool) entry {
	f := parseName(name)
	return entry{name: name, id: f.id, time: f.time, size: f.size, octets: f.octets, ours: f.ours, seen: seen}
}

// uidl is the same as long as the message lives. Of messages whose ids differ
// only in the sizes, each goes by its whole base name.
func (e *entry) uidl() string {
	if e.clash {
		return hashedUIDL(baseName(e.name))
	}
	return uidl(e.id)
}

// arrange puts entries in maildrop order. A base name found twice is one
// message: a reader moved or copied it; what is in cur/ then counts.
func arrange(entries []entry) []entry {
	slices.SortFunc(entries, func(a, b entry) int {
		if c := cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id)); c != 0 {
			return c
		}
		if c := cmp.Compare(baseName(a.name), baseName(b.name)); c != 0 {
			return c
		}
		if a.seen != b.seen {
			if a.seen {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	entries = slices.CompactFunc(entries, func(a, b entry) bool {
		return a.id == b.id && baseName(a.name) == baseName(b.name)
	})
	for i := 1; i < len(entries); i++ {
		if a, b := &entries[i-1], &entries[i]; a.time == b.time && a.id == b.id {
			a.clash, b.clash = true, true
		}
	}
	return entries
}
