package smtpd

import "time"

// An Observer is told what happens, to count it. Its methods are called from any
// goroutine, on the way of the mail.
type Observer interface {
	Opened() // a connection
	Closed()
	// Accepted is told of a message that is durable: what it takes on disk, in octets,
	// and how long it took from the end of the DATA command.
	Accepted(octets int64, took time.Duration)
	// Refused is told the reply to a recipient, or else to a message, such as "550 5.1.1".
	Refused(recipient bool, reply string)
}

// unobserved is the Observer of a server that has none.
type unobserved struct{}

func (unobserved) Opened()                       {}
func (unobserved) Closed()                       {}
func (unobserved) Accepted(int64, time.Duration) {}
func (unobserved) Refused(bool, string)          {}
