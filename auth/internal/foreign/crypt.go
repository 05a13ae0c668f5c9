package foreign

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/yescrypt"
	"golang.org/x/crypto/bcrypt"
)

// Bounds of the costs: each is about a second on a small machine.
const (
	maxRounds       = 1_000_000 // of SHA-crypt
	minRounds       = 1000
	defaultRounds   = 5000
	maxBcryptCost   = 14
	maxYescryptSize = 128 << 20 // octets
)

// cryptSchemes are the schemes of Dovecot whose hash has the form of crypt(5),
// with the beginnings it may have; none: any.
var cryptSchemes = map[string][]string{
	"CRYPT":        nil,
	"MD5-CRYPT":    {"$1$"},
	"MD5":          {"$1$"},
	"SHA256-CRYPT": {"$5$"},
	"SHA512-CRYPT": {"$6$"},
	"BLF-CRYPT":    {"$2a$", "$2b$", "$2y$"},
}

func parseCryptOf(scheme string, prefixes []string, s string) (func([]byte) bool, error) {
	for _, prefix := range prefixes {
		if strings.HasPrefix(s, prefix) {
			return parseCrypt(s)
		}
	}
	if prefixes != nil {
		return nil, fmt.Errorf("it does not begin with %s after {%s}", prefixes[len(prefixes)-1], scheme)
	}
	return parseCrypt(s)
}

func parseCrypt(s string) (func([]byte) bool, error) {
	switch id, _, _ := strings.Cut(strings.TrimPrefix(s, "$"), "$"); {
	case !strings.HasPrefix(s, "$"):
		return nil, errors.New("it is no hash that begins with $ or {")
	case id == "1":
		return parseMD5Crypt(s)
	case id == "5":
		return parseSHACrypt(s, sha256.New, 43)
	case id == "6":
		return parseSHACrypt(s, sha512.New, 86)
	case id == "2a" || id == "2b" || id == "2y":
		return parseBcrypt(s)
	case id == "y":
		return parseYescrypt(s)
	case unsupportedIDs[id]:
		return nil, fmt.Errorf("hashes that begin with $%s$ cannot be checked here; set a new password", id)
	default:
		return nil, errors.New("the kind of hash between the first two $ is unknown")
	}
}

// unsupportedIDs may be named in an error. What else is there may be a part of a
// password.
var unsupportedIDs = map[string]bool{
	"2": true, "2x": true, "7": true, "gy": true, "sm3": true, "sm3y": true, "md5": true, "sha1": true, "3": true, "argon2i": true, "argon2d": true,
}

// crypt64 are the digits of crypt(5).
const crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func isCrypt64(s string) bool { return strings.Trim(s, crypt64) == "" }

var errForm = errors.New("it does not have the form of such a hash")

func parseMD5Crypt(s string) (func([]byte) bool, error) {
	f := strings.Split(s, "$")
	if len(f) != 4 || len(f[2]) > 8 || len(f[3]) != 22 || !isCrypt64(f[3]) {
		return nil, errForm
	}
	salt, key := []byte(f[2]), []byte(f[3])
	return func(password []byte) bool {
		return len(password) > 0 && equal(crypt.KeyMD5Crypt(password, salt), key)
	}, nil
}

// parseSHACrypt reads $5$ or $6$, [rounds=N$]salt$key.
func parseSHACrypt(s string, of func() hash.Hash, digits int) (func([]byte) bool, error) {
	f := strings.Split(s, "$")
	rounds := defaultRounds
	if len(f) == 5 {
		text, ok := strings.CutPrefix(f[2], "rounds=")
		n, err := strconv.Atoi(text)
		if !ok || err != nil || n < minRounds || n > maxRounds {
			return nil, fmt.Errorf("its rounds must be %d to %d", minRounds, maxRounds)
		}
		rounds, f = n, append(f[:2:2], f[3:]...)
	}
	if len(f) != 4 || len(f[2]) > 16 || len(f[3]) != digits || !isCrypt64(f[3]) {
		return nil, errForm
	}
	salt, key := []byte(f[2]), []byte(f[3])
	return func(password []byte) bool {
		return len(password) > 0 && equal(crypt.KeySHACrypt(of, password, salt, rounds), key)
	}, nil
}

func parseBcrypt(s string) (func([]byte) bool, error) {
	key := []byte(s)
	cost, err := bcrypt.Cost(key)
	switch {
	case err != nil || len(s) != 60 || !isCrypt64(s[7:]):
		return nil, errForm
	case cost > maxBcryptCost:
		return nil, fmt.Errorf("its cost is over %d", maxBcryptCost)
	}
	return func(password []byte) bool { return bcrypt.CompareHashAndPassword(key, password) == nil }, nil
}

// parseYescrypt reads $y$j9T$salt$key: flags, the logarithm of N and r in one
// digit each.
func parseYescrypt(s string) (func([]byte) bool, error) {
	f := strings.Split(s, "$")
	if len(f) != 5 || len(f[2]) != 3 || f[2][0] != 'j' || f[3] == "" || len(f[3]) > 86 || len(f[4]) != 43 ||
		!isCrypt64(f[2]) || !isCrypt64(f[3]) || !isCrypt64(f[4]) {
		return nil, errForm
	}
	logN, r := strings.IndexByte(crypt64, f[2][1])+1, strings.IndexByte(crypt64, f[2][2])+1
	if logN < 10 || logN > 18 || r > 32 || r*128<<logN > maxYescryptSize {
		return nil, fmt.Errorf("its costs are out of bounds: %d MiB of memory at most", maxYescryptSize>>20)
	}
	if yescrypt.Decode64([]byte(f[3])) == nil {
		return nil, errForm
	}
	key := []byte(s)
	return func(password []byte) bool {
		again, err := yescrypt.Hash(password, key)
		return err == nil && equal(again, key)
	}, nil
}
