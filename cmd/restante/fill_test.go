package main

import (
	"log/slog"
	"testing"
)

// TestWarningUnderWay: a delivery that comes while the warning of another one is being
// given does not note it as given: it may fail yet. A mailbox that has become emptier is
// noted by any.
func TestWarningUnderWay(t *testing.T) {
	const mailbox, quota = "a@example.org", 100
	notes := memo{}
	d := deliveries{fill: &fillLevels{notes: notes}, log: slog.New(slog.DiscardHandler)}
	another := func() {
		t.Helper()
		if due, err := d.fill.look(mailbox, 80, quota); !due || err != nil {
			t.Fatalf("no warning is due, %v", err)
		}
		d.warnOnce(t.Context(), mailbox, 81, quota)
		if notes[mailbox] != 0 {
			t.Error("noted as given")
		}
	}
	another()
	d.fill.forget(mailbox) // it has failed
	another()
	if err := d.fill.note(mailbox); err != nil || notes[mailbox] != 1 {
		t.Errorf("given, and noted: %d, %v", notes[mailbox], err)
	}
	d.warnOnce(t.Context(), mailbox, 10, quota)
	if notes[mailbox] != 0 {
		t.Error("an emptier mailbox is not noted")
	}
}
