package storage

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// entry is a message found in a mailbox: 48 octets. With its name, which it
// shares with its neighbours as one string, that is all the memory that a
// message costs in a session.
type entry struct {
	name   string
	ino    uint64 // as the directory tells it
	size   int64  // octets on disk
	octets int64  // octets on the wire
	idLen  uint8  // so much of the name is the id; 0: it has to be taken apart again
	state  entryState
	own    bool // the sizes are those in the name
	seen   bool // in cur/, else in new/
	clash  bool // another message has the same id
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
	e := entry{name: name, ino: ino, seen: seen}
	f := parseName(name)
	if len(f.id) <= math.MaxUint8 && strings.HasPrefix(name, f.id) {
		e.idLen = uint8(len(f.id))
	}
	if f.ours {
		e.own, e.size, e.octets, e.state = true, f.size, f.octets, sized
	}
	return e
}

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
		return hashedUIDL(baseName(e.name))
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

// rank is what most entries are sorted by, small to move.
type rank struct {
	time uint64
	at   int // among the entries as they were found
}

// arrange puts entries in maildrop order. A base name found twice is one
// message: a reader moved or copied it; what is in cur/ then counts.
func arrange(entries []entry) []entry {
	ranks := make([]rank, len(entries))
	for i := range entries {
		ranks[i] = rank{time: leadingNumber(entries[i].id()), at: i}
	}
	slices.SortFunc(ranks, func(a, b rank) int {
		if a.time != b.time {
			return cmp.Compare(a.time, b.time)
		}
		x, y := &entries[a.at], &entries[b.at]
		if c := strings.Compare(x.id(), y.id()); c != 0 {
			return c
		}
		return compareFiles(x, y)
	})
	arranged := make([]entry, 0, len(ranks))
	for i, r := range ranks {
		e := entries[r.at]
		if i > 0 && r.time == ranks[i-1].time {
			last := &arranged[len(arranged)-1]
			if e.id() == last.id() {
				if baseName(e.name) == baseName(last.name) {
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
	if c := strings.Compare(baseName(a.name), baseName(b.name)); c != 0 {
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
