package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
)

// The crash tests send messages that each carry a tag of their own, keep in a
// ledger what the server said about each copy, and after a crash compare that
// with what the mailboxes hold. What is wrong comes out as data, because one of
// the tests wants something to be wrong.

// certainty is how sure we are that something happened.
type certainty uint8

const (
	surelyNot certainty = iota
	perhaps             // asked for, no answer seen
	surely
)

// fate is what the server said about one message in one mailbox.
type fate struct {
	accepted certainty // by 250 to end of data
	removed  certainty // by +OK to QUIT, or by a command
	uid      string    // its UIDL, once seen
	judged   bool      // accepted, and found after a crash at least once
}

// bounds are how many copies there may be.
func (f fate) bounds() (least, most int) {
	if f.accepted == surely && f.removed == surelyNot {
		least = 1
	}
	if f.accepted != surelyNot && f.removed != surely {
		most = 1
	}
	return least, most
}

// sighting is one message that POP3 showed.
type sighting struct {
	tag     int // 0: not known
	uid     string
	damage  string // what is wrong with its octets, "" if nothing
	refused bool   // that there were no octets, but an error, is the damage
}

type findingKind string

const (
	lost     findingKind = "lost"     // accepted or never removed, and not there
	doubled  findingKind = "doubled"  // more than one copy of one transaction
	partial  findingKind = "partial"  // shown, but not as it was sent
	returned findingKind = "returned" // there after its removal
	stray    findingKind = "stray"    // in a mailbox that it was never accepted for
	renamed  findingKind = "renamed"  // its UIDL is another one now
	stuck    findingKind = "stuck"    // the server does not start or answer
)

// finding is one broken promise.
type finding struct {
	kind    findingKind
	mailbox string
	tag     int
	detail  string
}

func (f finding) String() string {
	return fmt.Sprintf("%s: message %d in mailbox %s: %s", f.kind, f.tag, f.mailbox, f.detail)
}

// judge compares what is known of the copies in a mailbox with what is there.
func judge(mailbox string, known map[int]*fate, seen []sighting) []finding {
	var found []finding
	count := make(map[int]int)
	for _, s := range seen {
		count[s.tag]++
		if f := judgeOne(mailbox, known[s.tag], s); f != nil {
			found = append(found, *f)
		}
	}
	for tag, f := range known {
		least, most := f.bounds()
		detail := fmt.Sprintf("%d copies, expected %d to %d", count[tag], least, most)
		switch {
		case count[tag] < least:
			found = append(found, finding{lost, mailbox, tag, detail})
		case count[tag] > 1:
			found = append(found, finding{doubled, mailbox, tag, detail})
		}
	}
	return found
}

// judgeOne tells what is wrong with a message that is there, nil if nothing.
func judgeOne(mailbox string, f *fate, s sighting) *finding {
	switch {
	case s.damage != "":
		return &finding{partial, mailbox, s.tag, s.uid + ": " + s.damage}
	case f == nil || f.accepted == surelyNot:
		return &finding{stray, mailbox, s.tag, s.uid}
	case f.removed == surely:
		return &finding{returned, mailbox, s.tag, s.uid}
	case f.uid != "" && f.uid != s.uid:
		return &finding{renamed, mailbox, s.tag, "was " + f.uid + ", is " + s.uid}
	}
	return nil
}

// settle takes over what was seen after a crash: what was open is now known.
func settle(known map[int]*fate, seen []sighting) (checked int) {
	there := make(map[int]string)
	for _, s := range seen {
		there[s.tag] = s.uid
	}
	for tag, f := range known {
		uid, is := there[tag]
		if f.accepted == surely && !f.judged {
			f.judged = true
			checked++
		}
		switch {
		case is:
			f.accepted, f.removed, f.uid = surely, surelyNot, uid
		case f.accepted == perhaps && f.removed == surelyNot:
			f.accepted = surelyNot
		default:
			f.removed, f.uid = surely, ""
		}
	}
	return checked
}

// ledger is what the server promised. Safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	sums     [][sha256.Size]byte // of message i+1 as it was sent
	copies   map[string]map[int]*fate
	findings []finding
	troubles []string // what else should not have happened
	tally    tally
}

// tally counts what happened.
type tally struct{ accepted, refused, open, checked, removed int }

func newLedger() *ledger { return &ledger{copies: make(map[string]map[int]*fate)} }

// compose makes the next message, of about this size, in wire form.
func (l *ledger) compose(size int) (tag int, text []byte) {
	l.mu.Lock()
	l.sums = append(l.sums, [sha256.Size]byte{})
	tag = len(l.sums)
	l.mu.Unlock()
	text = compose(tag, size)
	sum := sha256.Sum256(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums[tag-1] = sum
	return tag, text
}

const tagField = "X-Crash-Tag: "

// compose makes a message in which no two lines are the same, so that octets
// that went astray are noticed; some lines begin with a dot.
func compose(tag, size int) []byte {
	rng := rand.New(rand.NewPCG(uint64(tag), 1))
	text := fmt.Appendf(make([]byte, 0, size+128), "%s%d\r\nSubject: crash\r\n\r\n", tagField, tag)
	for len(text) < size {
		if rng.IntN(8) == 0 {
			text = append(text, '.')
		}
		text = append(text, bytes.Repeat(fmt.Appendf(nil, "%016x", rng.Uint64()), 4)...)
		text = append(text, "\r\n"...)
	}
	return text
}

// recognise tells which message it is that POP3 gave, and whether it is whole.
func (l *ledger) recognise(text []byte) (tag int, damage string) {
	_, rest, ok := bytes.Cut(text, []byte(tagField))
	number, _, whole := bytes.Cut(rest, []byte("\r\n"))
	tag, err := strconv.Atoi(string(number))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !ok || !whole || err != nil || tag < 1 || tag > len(l.sums):
		return 0, fmt.Sprintf("%d octets without a tag: %.60q", len(text), text)
	case sha256.Sum256(text[len(text)-len(rest)-len(tagField):]) != l.sums[tag-1]:
		return tag, fmt.Sprintf("its %d octets are not those that were sent", len(text))
	}
	return tag, ""
}

// sending notes that a message is on its way to these mailboxes.
func (l *ledger) sending(tag int, mailboxes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.open++
	for _, m := range mailboxes {
		if l.copies[m] == nil {
			l.copies[m] = make(map[int]*fate)
		}
		l.copies[m][tag] = &fate{accepted: perhaps}
	}
}

// sent notes whether the server took the message; without an answer, or with one
// that leaves it open, it is not called.
func (l *ledger) sent(tag int, mailboxes []string, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.open--
	answer := surelyNot
	if taken {
		answer = surely
		l.tally.accepted++
	} else {
		l.tally.refused++
	}
	for _, m := range mailboxes {
		l.copies[m][tag].accepted = answer
	}
}

// saw notes a message that a session showed during the load.
func (l *ledger) saw(mailbox string, s sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.copies[mailbox][s.tag]
	if wrong := judgeOne(mailbox, f, s); wrong != nil {
		l.findings = append(l.findings, *wrong)
	} else {
		f.uid = s.uid
	}
}

// removing notes that a removal is asked for, and removed that it is done.
func (l *ledger) removing(mailbox string, tags []int) { l.setRemoved(mailbox, tags, perhaps) }

func (l *ledger) removed(mailbox string, tags []int) {
	l.setRemoved(mailbox, tags, surely)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.removed += len(tags)
}

func (l *ledger) setRemoved(mailbox string, tags []int, c certainty) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tag := range tags {
		if f := l.copies[mailbox][tag]; f != nil {
			f.removed = c
		}
	}
}

// emptied notes that a command removed a mailbox with all it held.
func (l *ledger) emptied(mailbox string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.copies[mailbox] {
		if f.removed != surely {
			f.removed = surely
			l.tally.removed++
		}
	}
}

// check judges a mailbox after a crash.
func (l *ledger) check(mailbox string, seen []sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, judge(mailbox, l.copies[mailbox], seen)...)
	l.tally.checked += settle(l.copies[mailbox], seen)
}

// glance judges a mailbox of a server that lives, where what is open stays open.
func (l *ledger) glance(mailbox string, seen []sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, judge(mailbox, l.copies[mailbox], seen)...)
}

func (l *ledger) find(f finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, f)
}

func (l *ledger) trouble(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.troubles = append(l.troubles, fmt.Sprintf(format, args...))
}

// count is how many findings there are of these kinds.
func (l *ledger) count(kinds ...findingKind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.findings {
		for _, k := range kinds {
			if f.kind == k {
				n++
			}
		}
	}
	return n
}

func (l *ledger) summary(rounds int) string {
	n := func(k findingKind) int { return l.count(k) }
	return fmt.Sprintf("rounds %d, accepted %d, refused %d, unanswered %d, recipients checked %d, removed %d, lost %d, doubled %d, partial %d, returned %d, stray %d, renamed %d, stuck %d",
		rounds, l.tally.accepted, l.tally.refused, l.tally.open, l.tally.checked, l.tally.removed,
		n(lost), n(doubled), n(partial), n(returned), n(stray), n(renamed), n(stuck))
}
