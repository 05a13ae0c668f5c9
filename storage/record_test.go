package storage

import (
	"bytes"
	"path"
	"reflect"
	"strings"
	"testing"
)

var someName = formatName(1, messageID(1), "mx.example.org", 10, 12)

var records = []record{
	{kind: recordMessage, to: []address{{"alice", "example.org"}}, names: []string{someName}, data: []byte("octets")},
	{kind: recordMessage, to: []address{{"a@b", "c"}, {"é", "d"}}, names: []string{someName}, data: []byte{}},
	{kind: recordDraft, to: []address{{"alice", "example.org"}}, names: []string{someName, messageID(1)}, data: []byte("sum!")},
	{kind: recordRemoved, to: []address{{"a", "b"}}, names: []string{"foreign", "", someName}, data: []byte{}},
	{kind: recordRemoved, to: []address{{"a", "b"}, {"c", "d"}}, names: []string{someName}, data: []byte{}},
	{kind: recordGone, to: []address{{"a", "b"}}, data: []byte{}},
}

func TestRecords(t *testing.T) {
	for _, want := range records {
		b := append(want.encode(), want.data...)
		got, err := decodeRecord(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
		for n := range len(b) - len(want.data) {
			if _, err := decodeRecord(b[:n]); err == nil {
				t.Errorf("%d of %d octets are a record", n, len(b))
			}
		}
		n := note{record: want, after: 7}
		if want.kind == recordRemoved {
			back, err := decodeNote(n.encode())
			if err != nil || !reflect.DeepEqual(back, n) {
				t.Errorf("%+v came back as %+v, %v", n, back, err)
			}
		}
	}
	bad := []record{
		{kind: 'X', to: []address{{"a", "b"}}},
		{kind: recordGone},
		{kind: recordGone, to: []address{{"a", "b"}, {"c", "d"}}},
		{kind: recordMessage, names: []string{someName}},
		{kind: recordMessage, to: []address{{"a", "b"}}, names: []string{"foreign"}},
		{kind: recordMessage, to: []address{{"a", "b"}}, names: []string{someName + ":2,S"}},
		{kind: recordMessage, to: []address{{"a", "b"}}, names: []string{strings.Replace(someName, "mx", "../../x", 1)}},
		{kind: recordDraft, to: []address{{"a", "b"}}, names: []string{someName, "../x"}, data: []byte("sum!")},
		{kind: recordDraft, to: []address{{"a", "b"}}, names: []string{someName}, data: []byte("sum!")},
		{kind: recordDraft, to: []address{{"a", "b"}}, names: []string{someName, messageID(1)}, data: []byte("sum")},
		{kind: recordRemoved, to: []address{{"a", ".."}}, names: []string{someName}},
		{kind: recordRemoved, to: []address{{"a/b", "c"}}, names: []string{someName}},
		{kind: recordRemoved, to: []address{{"a", "b"}, {"c", "d"}}, names: []string{someName, someName}},
	}
	for _, r := range bad {
		if _, err := decodeRecord(append(r.encode(), r.data...)); err == nil {
			t.Errorf("%+v is a record", r)
		}
	}
}

// FuzzDecodeRecord: whatever the octets, no panic; what is a record has names that
// stay in their directory, and comes back the same.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range records {
		f.Add(append(r.encode(), r.data...))
	}
	f.Add([]byte("G\x01\x01p\x01b\x01\x01\x00")) // a mailbox that was removed, and a file
	f.Add([]byte{recordMessage, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		for _, a := range r.to {
			if path.Clean("/"+a.path()) != "/"+a.path() || strings.Count(a.path(), "/") != 1 {
				t.Errorf("mailbox %q", a)
			}
		}
		for _, name := range r.names {
			if r.kind != recordRemoved && (strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".")) {
				t.Errorf("file %q", name)
			}
		}
		again, err := decodeRecord(append(r.encode(), r.data...))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

// FuzzDecodeNote: the same of notes.
func FuzzDecodeNote(f *testing.F) {
	for _, r := range records {
		n := note{record: r, after: 1 << 40}
		f.Add(n.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNote(b)
		if err != nil {
			return
		}
		again, err := decodeNote(append(bytes.Clone(n.encode()), n.data...))
		if len(n.data) == 0 && (err != nil || !reflect.DeepEqual(again, n)) {
			t.Errorf("%+v came back as %+v, %v", n, again, err)
		}
	})
}
