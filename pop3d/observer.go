package pop3d

// Outcome of a login.
type Outcome string

// The outcomes of logins.
const (
	LoginOK      Outcome = "ok"
	LoginFailed  Outcome = "failed"  // wrong name or password
	LoginInUse   Outcome = "in_use"  // another session has the maildrop
	LoginTooSoon Outcome = "delayed" // before the login delay is over
	LoginTrouble Outcome = "trouble" // ours

	LoginThrottled Outcome = "throttled" // too many have failed
)

// Outcomes are all of them.
func Outcomes() []Outcome {
	return []Outcome{LoginOK, LoginFailed, LoginInUse, LoginTooSoon, LoginTrouble, LoginThrottled}
}

// An Observer is told what happens, to count it. Its methods are called from any
// goroutine, on the way of the mail.
type Observer interface {
	Opened() // a connection
	Login(Outcome)
	// Closed is told what a connection, which has ended, has done: messages that
	// were sent whole, their octets, and messages that were removed.
	Closed(retrieved int, octets int64, removed int)
}

// unobserved is the Observer of a server that has none.
type unobserved struct{}

func (unobserved) Opened()                {}
func (unobserved) Login(Outcome)          {}
func (unobserved) Closed(int, int64, int) {}
