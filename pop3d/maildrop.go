package pop3d

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that the implementations of [Authenticator], [Mailstore] and
// [Maildrop] return, possibly wrapped, for outcomes a client is told about.
// Any other error is the server's own trouble: the client hears [SYS/TEMP] and
// the log has the detail.
var (
	ErrBadCredentials = errors.New("pop3d: wrong user name or password")
	ErrThrottled      = errors.New("pop3d: too many failed logins")
	ErrInUse          = errors.New("pop3d: maildrop in use by another session")
	ErrGone           = errors.New("pop3d: message no longer in the maildrop")
)

// Mailstore opens the maildrops of users. It must be safe for concurrent use.
type Mailstore interface {
	// Open locks the mailbox exclusively and takes a snapshot of its messages
	// (RFC 1939 section 4). The name is the one [Login] carries. [ErrInUse]
	// when another session holds the lock; it does not wait.
	Open(ctx context.Context, mailbox string) (Maildrop, error)
}

// Visit is when a user logged in, to the minute, how, and from where.
type Visit struct {
	At       time.Time
	Protocol string // "POP3" or "POP3+TLS"
	Address  string // IP address, "-" if there is none
}

// Maildrop is a locked snapshot of a mailbox. Messages are numbered from 0 and
// keep their number. One session uses it, from one goroutine at a time.
type Maildrop interface {
	// Len is the number of messages.
	Len() int
	// Octets is the exact number of octets that Message(i) yields.
	Octets(i int) int64
	// UIDL is the unique id of message i: 1 to 70 characters in 0x21-0x7E.
	UIDL(i int) string
	// Message opens message i in its wire form: every line end is CRLF and the
	// last line is complete; dot-stuffing is not applied. A reader that is an
	// io.WriterTo is asked to write itself. [ErrGone] when the message
	// vanished since the snapshot. A reader that cannot yield exactly Octets(i)
	// octets ends with an error.
	Message(i int) (io.ReadCloser, error)
	// Remove removes the messages for good and reports how many are gone,
	// those that vanished before included. It removes no other message. On an
	// error the rest may stay, or go later.
	Remove(ctx context.Context, indexes []int) (removed int, err error)
	// Sign leaves a note of this session for the owner of the server. Not every session
	// is signed when there are many.
	Sign(Visit) error
	// Close releases the lock. It removes nothing.
	Close() error
}
