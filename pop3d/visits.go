package pop3d

import (
	"sync"
	"time"
)

const (
	// loginBurst is how many logins in a row may come sooner than the login delay
	// says: mail programs like to log in again at once after a lost connection.
	loginBurst = 5
	// signEvery is how old a signed visit may be that another like it leaves alone.
	signEvery = time.Minute
	// maxSigned is how many mailboxes are remembered for that.
	maxSigned = 16384
	// manyVisits is how many mailboxes are remembered before it is worth to look
	// for those that may log in again as they like.
	manyVisits = 1024
)

// visits is what the sessions of a server know of one another. The zero value is
// ready. It is safe for concurrent use.
type visits struct {
	mu    sync.Mutex
	began map[string]time.Time // of the session that has the mailbox
	last  map[string]Visit     // that was signed
	due   map[string]time.Time // when a mailbox could have had all its logins a delay apart
	sweep int                  // so many are remembered at most before those of no use are dropped
}

// begin notes that a session has the mailbox.
func (v *visits) begin(mailbox string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.began == nil {
		v.began = make(map[string]time.Time)
	}
	v.began[mailbox] = now
}

// end is called before the lock of the mailbox is released: the next to have it
// begins after that.
func (v *visits) end(mailbox string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.began, mailbox)
}

// lasted is for how long a session has had the mailbox; false if none of ours has.
func (v *visits) lasted(mailbox string, now time.Time) (time.Duration, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	began, ok := v.began[mailbox]
	return now.Sub(began), ok
}

// worthSigning reports whether a visit tells more than the last one that was
// signed, and counts it as signed: programs that log in all the time need not have
// it written each time.
func (v *visits) worthSigning(mailbox string, visit Visit) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	last, known := v.last[mailbox]
	if known && last.Protocol == visit.Protocol && last.Address == visit.Address && visit.At.Sub(last.At) < signEvery {
		return false
	}
	if v.last == nil || len(v.last) >= maxSigned {
		v.last = make(map[string]Visit)
	}
	v.last[mailbox] = visit
	return true
}

// admit counts a login, and reports for how long it is too early. A login that is
// too early does not count. In the long run logins are a delay apart (RFC 2449
// section 6.5), but a few may come together.
func (v *visits) admit(mailbox string, now time.Time, delay time.Duration) (early time.Duration) {
	if delay <= 0 {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	due := v.due[mailbox]
	if due.Before(now) {
		due = now
	}
	if early = due.Sub(now) - (loginBurst-1)*delay; early > 0 {
		return early
	}
	if len(v.due) >= max(v.sweep, manyVisits) {
		for other, due := range v.due {
			if due.Before(now) {
				delete(v.due, other)
			}
		}
		v.sweep = 2 * len(v.due)
	}
	if v.due == nil {
		v.due = make(map[string]time.Time)
	}
	v.due[mailbox] = due.Add(delay)
	return 0
}

// inWords is a duration as people say it.
func inWords(d time.Duration) string {
	switch {
	case d < time.Minute:
		return count(int(d/time.Second), "second")
	case d < time.Hour:
		return count(int(d/time.Minute), "minute")
	}
	return count(int(d/time.Hour), "hour")
}
