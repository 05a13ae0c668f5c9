package auth

import (
	"errors"
	"fmt"
)

// The kinds of failure. The administrative functions wrap them in errors whose
// text names the thing concerned and says what to do about it; Resolve and
// Authenticate return them as they are, or with the reason added.
var (
	ErrExists         = errors.New("exists already")
	ErrNotFound       = errors.New("not found")
	ErrDomainNotEmpty = errors.New("the domain is not empty")
	ErrAliasLoop      = errors.New("the alias would lead back to itself")
	ErrBadAddress     = errors.New("invalid address")
	ErrBadSecret      = errors.New("invalid password or hash")

	// ErrNotHosted: the domain of a recipient is not one of ours.
	ErrNotHosted = errors.New("domain not hosted here")
	// ErrNoSuchUser: the domain is ours, the local part leads nowhere.
	ErrNoSuchUser = errors.New("no such user")
	// ErrDisabled: every user the address leads to is disabled.
	ErrDisabled = errors.New("user disabled")
	// ErrNoPostmaster: a role address must be accepted (RFC 5321 section 4.5.1)
	// but leads to no enabled user at present. It is the server's own lack:
	// senders should be told to try again.
	ErrNoPostmaster = errors.New("no postmaster at present")

	// ErrBadCredentials: whatever a client may get wrong when it logs in. The
	// text of a wrapping error has the reason, for the log only.
	ErrBadCredentials = errors.New("bad credentials")
	// ErrThrottled: too many logins have failed; the password was not looked at. It
	// is an ErrBadCredentials.
	ErrThrottled = fmt.Errorf("%w: refused unseen", ErrBadCredentials)
)

// failure is an error with a text for people and a kind for errors.Is.
type failure struct {
	kind    error
	text    string
	missing string
}

// Missing is the name, of a user or a domain, that an ErrNotFound is about; "" if
// it is about none.
func Missing(err error) string {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.missing
	}
	return ""
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

func failuref(kind error, format string, args ...any) error {
	return &failure{kind: kind, text: fmt.Sprintf(format, args...)}
}

// AddressError says why an address or a domain name was refused. It is an
// ErrBadAddress.
type AddressError struct {
	Input  string // as given
	Reason string // a clause such as "it has no @"
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("invalid address %s: %s", excerpt(e.Input), e.Reason)
}

// Is reports that every AddressError is an ErrBadAddress.
func (e *AddressError) Is(target error) bool { return target == ErrBadAddress }

// DomainNotEmptyError is returned when a domain with users or aliases is to be
// removed without saying so. It is an ErrDomainNotEmpty.
type DomainNotEmptyError struct {
	Domain         string
	Users, Aliases int
}

func (e *DomainNotEmptyError) Error() string {
	return fmt.Sprintf("domain %s still has %s and %s; remove them first, or ask for the domain to be removed with everything in it",
		e.Domain, count(e.Users, "user", "users"), count(e.Aliases, "alias", "aliases"))
}

// Is reports that every DomainNotEmptyError is an ErrDomainNotEmpty.
func (e *DomainNotEmptyError) Is(target error) bool { return target == ErrDomainNotEmpty }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// excerpt quotes foreign text for a message, without its control characters
// and not at any length.
func excerpt(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%+q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
