package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"

	"restante/auth/internal/foreign"
)

// Bounds of what a hash may cost, for stored ones and for new ones.
const (
	maxMemory  = 1 << 20 // KiB
	maxWork    = 1 << 22 // KiB times passes, some seconds
	maxThreads = 64

	// Those of a hash that somebody brings in, less than a second and 128 MiB: a stranger
	// can have it computed.
	maxImportedMemory = 128 << 10 // KiB
	maxImportedWork   = 1 << 20   // KiB times passes

	minSalt = 8 // octets
	maxSalt = 64
	minKey  = 16
	maxKey  = 64
)

// HashParams are the costs of new password hashes (argon2id, RFC 9106).
// Fields that are zero take the defaults.
type HashParams struct {
	Memory   uint32 // KiB; 19456
	Time     uint32 // passes; 2
	Threads  uint8  // 1
	Parallel int    // hashes computed at once, each with its memory; the number of processors
}

// complete fills in the defaults and checks the bounds.
func (p HashParams) complete() (HashParams, error) {
	if p.Memory == 0 {
		p.Memory = 19 << 10
	}
	if p.Time == 0 {
		p.Time = 2
	}
	if p.Threads == 0 {
		p.Threads = 1
	}
	if p.Parallel <= 0 {
		p.Parallel = runtime.NumCPU()
	}
	return p, checkCosts(p.Memory, p.Time, p.Threads)
}

// Check tells whether hashes of these costs can be made, within the bounds that
// keep a login short. Fields that are zero count as the defaults.
func (p HashParams) Check() error {
	_, err := p.complete()
	return err
}

func checkCosts(memory, time uint32, threads uint8) error {
	switch {
	case threads < 1 || threads > maxThreads:
		return fmt.Errorf("argon2 threads must be 1 to %d, not %d", maxThreads, threads)
	case memory < 8*uint32(threads) || memory > maxMemory:
		return fmt.Errorf("argon2 memory must be %d to %d KiB, not %d", 8*uint32(threads), maxMemory, memory)
	case time < 1 || uint64(time)*uint64(memory) > maxWork:
		return fmt.Errorf("argon2 time must be 1 to %d passes over %d KiB, not %d", maxWork/memory, memory, time)
	}
	return nil
}

// credential is a stored hash, with what is needed to compute it again.
type credential struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte

	previous []byte        // key of the password before, with the same salt and costs; nil: unknown
	foreign  *foreign.Hash // of another system; the rest is empty then
}

// parseCredential reads what is stored of a password: an argon2id hash, or one of
// another system.
func parseCredential(s string) (credential, error) {
	if s, ok := ownForm(s); ok {
		return parsePHC(s)
	}
	h, err := foreign.Parse(s)
	if err != nil {
		return credential{}, err
	}
	return credential{foreign: &h}, nil
}

// ownForm is an argon2id hash without the name that Dovecot gives it; false: it
// is none.
func ownForm(s string) (string, bool) {
	const scheme = "{ARGON2ID}"
	if len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
		return s[len(scheme):], true
	}
	return s, strings.HasPrefix(s, "$argon2id$")
}

// phcBase64 takes one text for one value: bits left over must be zero.
var phcBase64 = base64.RawStdEncoding.Strict()

// String is the PHC string format: $argon2id$v=19$m=19456,t=2,p=1$salt$key, or the
// hash of another system.
func (c credential) String() string {
	if c.foreign != nil {
		return c.foreign.String()
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.time, c.threads,
		phcBase64.EncodeToString(c.salt), phcBase64.EncodeToString(c.key))
}

// parsePHC reads an argon2id hash whose costs are within the bounds.
func parsePHC(s string) (credential, error) {
	var c credential
	if len(s) > 512 {
		return c, errors.New("it is too long for a hash")
	}
	f := strings.Split(s, "$")
	if len(f) < 2 || f[0] != "" || f[1] != "argon2id" {
		return c, errors.New("it is not an argon2id hash, which begins with $argon2id$")
	}
	if len(f) != 6 {
		return c, errors.New("it does not have the form $argon2id$v=19$m=,t=,p=$salt$hash")
	}
	if f[2] != "v=19" {
		return c, errors.New("only version 19 of argon2id is supported (v=19)")
	}
	if err := c.parseCosts(f[3]); err != nil {
		return c, err
	}
	var err1, err2 error
	c.salt, err1 = phcBase64.DecodeString(f[4])
	c.key, err2 = phcBase64.DecodeString(f[5])
	switch {
	case err1 != nil || err2 != nil || strings.ContainsAny(s, "\r\n"):
		return c, errors.New("its salt or hash is not Base64 without padding")
	case len(c.salt) < minSalt || len(c.salt) > maxSalt:
		return c, fmt.Errorf("its salt has %d octets, not %d to %d", len(c.salt), minSalt, maxSalt)
	case len(c.key) < minKey || len(c.key) > maxKey:
		return c, fmt.Errorf("its hash has %d octets, not %d to %d", len(c.key), minKey, maxKey)
	}
	return c, nil
}

// parseCosts reads m=19456,t=2,p=1.
func (c *credential) parseCosts(s string) error {
	f := strings.Split(s, ",")
	if len(f) != 3 {
		return errors.New("its costs do not have the form m=,t=,p= with a number each")
	}
	var n [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(f[i], name)
		v, err := strconv.ParseUint(digits, 10, []int{32, 32, 8}[i])
		if !ok || err != nil || strconv.FormatUint(v, 10) != digits {
			return fmt.Errorf("its costs have no number %s", name)
		}
		n[i] = v
	}
	c.memory, c.time, c.threads = uint32(n[0]), uint32(n[1]), uint8(n[2])
	return checkCosts(c.memory, c.time, c.threads)
}

// hasher computes hashes, a bounded number at once.
type hasher struct {
	params HashParams
	slots  chan struct{}
	derive func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte // argon2.IDKey
}

func newHasher(p HashParams) *hasher {
	return &hasher{params: p, slots: make(chan struct{}, p.Parallel), derive: argon2.IDKey}
}

// turn waits for the turn to hash until ctx ends.
func (h *hasher) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// key hashes the password as c says.
func (h *hasher) key(ctx context.Context, c credential, password string) ([]byte, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return h.derive([]byte(password), c.salt, c.time, c.memory, c.threads, uint32(len(c.key))), nil
}

// matches hashes the password and compares it to c in constant time: whether it is
// the password, or the one before.
func (h *hasher) matches(ctx context.Context, c credential, password string) (now, before bool, err error) {
	if c.foreign != nil {
		done, err := h.turn(ctx)
		if err != nil {
			return false, false, err
		}
		defer done()
		return c.foreign.Matches(password), false, nil
	}
	key, err := h.key(ctx, c, password)
	if err != nil {
		return false, false, err
	}
	now = subtle.ConstantTimeCompare(key, c.key) == 1
	before = subtle.ConstantTimeCompare(key, c.previous) == 1
	return now, before && !now, nil
}

// blank is a credential with the configured costs that no password has.
func (h *hasher) blank() credential {
	return credential{
		memory: h.params.Memory, time: h.params.Time, threads: h.params.Threads,
		salt: make([]byte, 16), key: make([]byte, 32),
	}
}

// hash makes the credential of a new password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	c := h.blank()
	rand.Read(c.salt)
	var err error
	if c.key, err = h.key(ctx, c, password); err != nil {
		return "", err
	}
	return c.String(), nil
}

// hashAfter makes the credential of a password that follows another one, with the
// same salt if that was hashed at the present costs; then previous is the key of
// the other.
func (h *hasher) hashAfter(ctx context.Context, old credential, password string) (stored string, previous []byte, err error) {
	c := h.blank()
	if old.foreign != nil || old.memory != c.memory || old.time != c.time || old.threads != c.threads || len(old.key) != len(c.key) {
		stored, err = h.hash(ctx, password)
		return stored, nil, err
	}
	c.salt = old.salt
	if c.key, err = h.key(ctx, c, password); err != nil {
		return "", nil, err
	}
	if subtle.ConstantTimeCompare(c.key, old.key) == 1 {
		return c.String(), old.previous, nil // the same again
	}
	return c.String(), old.key, nil
}

// tooDear is how many times what a new hash costs is too much.
const tooDear = 4

// outdated reports that c costs an attacker less than a new hash would, or this server
// much more, or that it is of another system.
func (h *hasher) outdated(c credential) bool {
	if c.foreign != nil {
		return true
	}
	work, most := uint64(c.memory)*uint64(c.time), uint64(h.params.Memory)*uint64(h.params.Time)
	return c.memory < h.params.Memory || work < most || c.memory > tooDear*h.params.Memory || work > tooDear*most
}

// importable tells why a hash may not be brought in.
func (c credential) importable() error {
	if c.memory > maxImportedMemory || uint64(c.memory)*uint64(c.time) > maxImportedWork {
		return fmt.Errorf("its costs are out of bounds: m is at most %d, and m times t at most %d", maxImportedMemory, maxImportedWork)
	}
	return nil
}
