package main

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// TestCrashJudge: the ledger notices each kind of broken promise, and nothing
// else. Every message has the tag 7.
func TestCrashJudge(t *testing.T) {
	seen := func(n int) []sighting { return slices.Repeat([]sighting{{tag: 7, uid: "u"}}, n) }
	for name, test := range map[string]struct {
		known *fate // nil: none
		seen  []sighting
		want  []findingKind
	}{
		"there":                          {&fate{accepted: surely}, seen(1), nil},
		"lost":                           {&fate{accepted: surely}, seen(0), []findingKind{lost}},
		"doubled":                        {&fate{accepted: surely}, seen(2), []findingKind{doubled}},
		"unanswered, there":              {&fate{accepted: perhaps}, seen(1), nil},
		"unanswered, not there":          {&fate{accepted: perhaps}, seen(0), nil},
		"unanswered, doubled":            {&fate{accepted: perhaps}, seen(2), []findingKind{doubled}},
		"refused":                        {&fate{accepted: surelyNot}, seen(0), nil},
		"refused, there":                 {&fate{accepted: surelyNot}, seen(1), []findingKind{stray}},
		"for another mailbox":            {nil, seen(1), []findingKind{stray}},
		"removed":                        {&fate{accepted: surely, removed: surely}, seen(0), nil},
		"returned":                       {&fate{accepted: surely, removed: surely}, seen(1), []findingKind{returned}},
		"unanswered, removed, returned":  {&fate{accepted: perhaps, removed: surely}, seen(1), []findingKind{returned}},
		"QUIT unanswered, not there":     {&fate{accepted: surely, removed: perhaps}, seen(0), nil},
		"QUIT unanswered, there":         {&fate{accepted: surely, removed: perhaps}, seen(1), nil},
		"partial":                        {&fate{accepted: surely}, []sighting{{tag: 7, uid: "u", damage: "cut short"}}, []findingKind{partial}},
		"partial and whole":              {&fate{accepted: surely}, append(seen(1), sighting{tag: 7, damage: "cut short"}), []findingKind{doubled, partial}},
		"empty, whoever it was":          {&fate{accepted: surely}, []sighting{{damage: "empty"}}, []findingKind{lost, partial}},
		"the same UIDL":                  {&fate{accepted: surely, uid: "u"}, seen(1), nil},
		"renamed":                        {&fate{accepted: surely, uid: "v"}, seen(1), []findingKind{renamed}},
		"accepted, removed, not settled": {&fate{accepted: surely, removed: perhaps, uid: "u"}, seen(1), nil},
	} {
		known := make(map[int]*fate)
		if test.known != nil {
			known[7] = test.known
		}
		var got []findingKind
		for _, f := range judge("box", known, test.seen) {
			got = append(got, f.kind)
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found %v, want %v", name, got, test.want)
		}
	}
}

// TestCrashLedgerSettles: what a look after a crash has shown is certain from
// then on.
func TestCrashLedgerSettles(t *testing.T) {
	there := []sighting{{tag: 1, uid: "u"}}
	for name, test := range map[string]struct {
		before        func(l *ledger) // the message has the tag 1
		first, second []sighting
		want          findingKind
	}{
		"unanswered and there, then lost":         {func(*ledger) {}, there, nil, lost},
		"unanswered and not there, then a stray":  {func(*ledger) {}, nil, there, stray},
		"QUIT unanswered and there, then lost":    {(*ledger).quitUnanswered, there, nil, lost},
		"QUIT unanswered and gone, then returned": {(*ledger).quitUnanswered, nil, there, returned},
		"mailbox removed, then returned":          {func(l *ledger) { l.emptied("box") }, nil, there, returned},
		"renamed":                                 {func(*ledger) {}, there, []sighting{{tag: 1, uid: "v"}}, renamed},
	} {
		l := newLedger()
		tag, _ := l.compose(100)
		l.sending(tag, []string{"box"})
		test.before(l)
		l.check("box", test.first)
		if len(l.findings) > 0 {
			t.Errorf("%s: %v at first", name, l.findings)
		}
		l.check("box", test.second)
		if len(l.findings) != 1 || l.count(test.want) != 1 {
			t.Errorf("%s: %v", name, l.findings)
		}
	}
}

func (l *ledger) quitUnanswered() {
	l.sent(1, []string{"box"}, true)
	l.removing("box", []int{1})
}

func TestCrashLedgerRecognises(t *testing.T) {
	l := newLedger()
	tag, text := l.compose(3000)
	_, other := l.compose(3000)
	trace := []byte("Return-Path: <>\r\nReceived: from a\r\n\tby b\r\n")
	hole := bytes.Clone(text)
	clear(hole[1000:2000])
	for name, test := range map[string]struct {
		text []byte
		tag  int
		good bool
	}{
		"whole":       {text, tag, true},
		"other":       {other, tag + 1, true},
		"cut short":   {text[:len(text)-67], tag, false},
		"longer":      {append(bytes.Clone(text), "\r\n"...), tag, false},
		"with a hole": {hole, tag, false},
		"joined":      {append(bytes.Clone(text), other...), tag, false},
		"empty":       {nil, 0, false},
		"only zeros":  {make([]byte, 3000), 0, false},
		"unknown tag": {fmt.Appendf(nil, "%s99\r\n\r\n", tagField), 0, false},
	} {
		got, damage := l.recognise(append(bytes.Clone(trace), test.text...))
		if got != test.tag || (damage == "") != test.good {
			t.Errorf("%s: message %d, %q", name, got, damage)
		}
	}
	if got, damage := l.recognise(nil); got != 0 || damage == "" {
		t.Errorf("nothing at all: message %d, %q", got, damage)
	}
}
