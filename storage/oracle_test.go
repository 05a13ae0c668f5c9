package storage

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-maildir"
)

// TestAnotherProgramReads: go-maildir must find what we deliver, whole, and we
// must still know the messages after it has moved and flagged them.
func TestAnotherProgramReads(t *testing.T) {
	s, data := openStore(t)
	for n, c := range lineEndExamples {
		deliver(t, s, n, c.in, alice)
	}
	m := openDrop(t, s, alice)
	ids, want := uidls(m), contents(t, m)
	dir := maildir.Dir(boxDir(data, alice))
	if n, err := dir.UnseenCount(); err != nil || n != m.Len() {
		t.Errorf("%d unseen of %d, %v", n, m.Len(), err)
	}
	found, err := dir.Unseen()
	if err != nil || len(found) != m.Len() {
		t.Fatalf("%d messages of %d, %v", len(found), m.Len(), err)
	}
	var theirs []string
	for _, f := range found {
		theirs = append(theirs, wireForm(read(t, f)))
		if err := f.SetFlags([]maildir.Flag{maildir.FlagSeen, maildir.FlagFlagged}); err != nil {
			t.Error(err)
		}
		if strings.Contains(read(t, f), "\r\n") {
			t.Errorf("%s has CRLF on disk", f.Key())
		}
	}
	if got := contents(t, m); !slices.Equal(got, want) {
		t.Errorf("in the session %q, want %q", got, want)
	}
	m.Close()
	m = openDrop(t, s, alice)
	if got := contents(t, m); !slices.Equal(got, want) || !slices.Equal(uidls(m), ids) {
		t.Errorf("in the next session %q %q, want %q %q", got, uidls(m), want, ids)
	}
	slices.Sort(theirs)
	slices.Sort(want)
	if !slices.Equal(theirs, want) {
		t.Errorf("another program reads %q, want %q", theirs, want)
	}
	if n, err := m.Remove(context.Background(), []int{0, m.Len() - 1}); n != 2 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if left, err := dir.Messages(); err != nil || len(left) != len(found)-2 {
		t.Errorf("%d left of %d, %v", len(left), len(found), err)
	}
}

func read(t *testing.T, m *maildir.Message) string {
	t.Helper()
	r, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAnotherProgramDelivers: we must serve what go-maildir delivers, in the
// same order and under the same unique-ids whatever it does to the flags.
func TestAnotherProgramDelivers(t *testing.T) {
	s, data := openStore(t)
	dir := maildir.Dir(boxDir(data, alice))
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	if err := dir.Init(); err != nil {
		t.Errorf("our Maildir is none to another program: %v", err)
	}
	want := make(map[string]bool)
	for i, c := range lineEndExamples {
		text := fmt.Sprintf("%s%d", c.in, i)
		d, err := maildir.NewDelivery(string(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(d, text); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		want[wireForm(text)] = true
	}
	m := openDrop(t, s, alice)
	ids, got := uidls(m), contents(t, m)
	if len(got) != len(want) {
		t.Errorf("%d messages of %d", len(got), len(want))
	}
	for _, g := range got {
		if !want[g] {
			t.Errorf("%q was not delivered", g)
		}
	}
	m.Close()
	msgs, err := dir.Unseen()
	if err != nil {
		t.Fatal(err)
	}
	m = openDrop(t, s, alice)
	for i, f := range msgs { // every other one, in the session
		if i%2 == 0 {
			if err := f.SetFlags([]maildir.Flag{maildir.FlagReplied}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if again := contents(t, m); !slices.Equal(again, got) || !slices.Equal(uidls(m), ids) {
		t.Errorf("after it was read %q %q, was %q %q", again, uidls(m), got, ids)
	}
	if n, err := m.Remove(context.Background(), []int{0, 1, 2, 3}); n != 4 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if left, err := dir.Messages(); err != nil || len(left) != len(want)-4 {
		t.Errorf("%d left of %d, %v", len(left), len(want), err)
	}
}
