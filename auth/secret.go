package auth

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxPassword bounds a password, in octets as given.
const maxPassword = 1024

// Secret is what a user is to log in with: a password not hashed yet, or a
// hash. It prints as nothing that helps anyone. The zero value is refused.
type Secret struct{ password, hash string }

// PlainSecret takes a password: 1 to 1024 octets of UTF-8 without NUL, CR and
// LF. The error is an ErrBadSecret.
func PlainSecret(password string) (Secret, error) {
	prepared, reason := preparePassword(password)
	if reason != "" {
		return Secret{}, failuref(ErrBadSecret, "the password cannot be used: %s", reason)
	}
	return Secret{password: prepared}, nil
}

// HashSecret takes an argon2id hash in PHC string format, or one of another system,
// which is replaced at the first login: $1$, $5$, $6$, $2a$, $2b$, $2y$ and $y$ of
// crypt(5), and the schemes in braces of Dovecot, such as {SSHA512}. The costs are
// bounded, since each login pays them. {PLAIN} and a password is a PlainSecret. The
// error is an ErrBadSecret.
func HashSecret(hash string) (Secret, error) {
	if password, ok := plainScheme(hash); ok {
		return PlainSecret(password)
	}
	c, err := parseCredential(hash)
	if err == nil {
		err = c.importable()
	}
	if err != nil {
		return Secret{}, failuref(ErrBadSecret, "the hash cannot be used: %v", err)
	}
	return Secret{hash: c.String()}, nil
}

// plainScheme is the password after a name that says that it is one.
func plainScheme(s string) (password string, ok bool) {
	for _, scheme := range []string{"{PLAIN}", "{CLEARTEXT}", "{CLEAR}"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return s[len(scheme):], true
		}
	}
	return "", false
}

// String hides the secret from what prints it by mistake.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "(secret)" }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// preparePassword makes one octet string of the ways in which keyboards send
// one password: NFC, and every space the plain one (as RFC 8265 section 4.2).
// Nothing that RFC forbids beyond that is refused: it would lock people out
// each time that Unicode grows.
func preparePassword(s string) (prepared, reason string) {
	switch {
	case s == "":
		return "", "it is empty"
	case len(s) > maxPassword:
		return "", "it is longer than 1024 octets"
	case !utf8.ValidString(s):
		return "", "it is not valid UTF-8"
	case strings.ContainsAny(s, "\x00\r\n"):
		return "", "it has a NUL or a line end"
	case isASCII(s):
		return s, ""
	}
	return norm.NFC.String(strings.Map(plainSpace, s)), ""
}

func plainSpace(r rune) rune {
	if unicode.Is(unicode.Zs, r) {
		return ' '
	}
	return r
}

// credential is what is stored for s.
func (d *Directory) credential(ctx context.Context, s Secret) (string, error) {
	switch {
	case s.hash != "":
		return s.hash, nil
	case s.password != "":
		return d.hasher.hash(ctx, s.password)
	}
	return "", failuref(ErrBadSecret, "the password is missing")
}

// GeneratePassword makes a password of 80 random bits in four groups, without
// letters and digits that look like others (0 and o, 1 and l).
func GeneratePassword() string {
	const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
	var random [16]byte
	rand.Read(random[:])
	var b strings.Builder
	for i, v := range random {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[v%byte(len(alphabet))]) // 256 is a multiple of 32
	}
	return b.String()
}
