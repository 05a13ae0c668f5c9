package storage

import (
	"cmp"
	"math"
	"strings"
)

// entry is a message found in a mailbox: 56 octets. With its name, which it
// shares with its neighbours as one string, that is all the memory that a
// message costs in a session.
type entry struct {
	name    string
	ino     uint64 // as the directory tells it
	time    uint64 // the number that the name begins with
	size    int64  // octets on disk
	octets  int64  // octets on the wire
	baseLen uint16 // so much of the name is the base name
	idLen   uint8  // so much of the name is the id; 0: it has to be taken apart again
	state   entryState
	own     bool // the sizes are those in the name
	seen    bool // in cur/, else in new/
	clash   bool // another message has the same id
}

// entryState is what is known of the file of an entry.
type entryState uint8

const (
	unsized entryState = iota // to be measured
	sized
	unfit // no regular file, or not readable
	gone  // vanished
)

func newEntry(name string, seen bool, ino uint64) entry {
	f := parseName(name)
	e := entry{name: name, ino: ino, time: f.time, baseLen: uint16(len(f.base)), seen: seen}
	if len(f.id) <= math.MaxUint8 && strings.HasPrefix(name, f.id) {
		e.idLen = uint8(len(f.id))
	}
	if f.ours {
		e.own, e.size, e.octets, e.state = true, f.size, f.octets, sized
	}
	return e
}

// base is the name without flags: the same for the life of the message.
func (e *entry) base() string { return e.name[:e.baseLen] }

// id is the base name without sizes.
func (e *entry) id() string {
	if e.idLen > 0 {
		return e.name[:e.idLen]
	}
	return parseName(e.name).id
}

// uidl is the same as long as the message lives. Of messages whose ids differ
// only in the sizes, each goes by its whole base name.
func (e *entry) uidl() string {
	if e.clash {
		return hashedUIDL(e.base())
	}
	return uidl(e.id())
}

// compareBases is the order of messages in a maildrop.
func compareBases(a, b string) int {
	if a == b {
		return 0
	}
	f, g := parseName(a), parseName(b)
	return cmp.Or(cmp.Compare(f.time, g.time), strings.Compare(f.id, g.id), strings.Compare(a, b))
}

// arrange puts entries in maildrop order, in place. A base name found twice is one
// message: a reader moved or copied it; what is in cur/ then counts.
func arrange(entries []entry) []entry {
	permute(entries, rankEntries(entries))
	arranged := entries[:0]
	for _, e := range entries {
		if n := len(arranged); n > 0 && e.time == arranged[n-1].time {
			last := &arranged[n-1]
			if e.id() == last.id() {
				if e.base() == last.base() {
					continue
				}
				e.clash, last.clash = true, true
			}
		}
		arranged = append(arranged, e)
	}
	return arranged
}

// compareFiles orders files with the same id: those of one message side by side,
// the one that counts first.
func compareFiles(a, b *entry) int {
	if c := strings.Compare(a.base(), b.base()); c != 0 {
		return c
	}
	if a.seen != b.seen {
		if a.seen {
			return -1
		}
		return 1
	}
	return strings.Compare(a.name, b.name)
}
