package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// Kinds of records in the journal.
const (
	recordMessage byte = 'M' // a message and its octets: names are its file name
	recordDraft   byte = 'D' // a message whose octets are a synced draft, and their sum: file name and draft
	recordRemoved byte = 'R' // messages that are no longer in a mailbox: base names
	recordGone    byte = 'G' // a mailbox that was removed with all that was delivered to it
)

// record is what the journal remembers of one change to mailboxes.
type record struct {
	kind  byte
	to    []address
	names []string
	data  []byte
}

var errRecord = errors.New("malformed record")

// encode writes the record without its data, which come after it: the kind, the
// mailboxes as local part and domain, the names; lists with their length, strings
// with their octets in front.
func (r *record) encode() []byte {
	b := make([]byte, 0, 256)
	b = append(b, r.kind)
	b = binary.AppendUvarint(b, uint64(len(r.to)))
	for _, a := range r.to {
		b = appendText(appendText(b, a.local), a.domain)
	}
	b = binary.AppendUvarint(b, uint64(len(r.names)))
	for _, name := range r.names {
		b = appendText(b, name)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeRecord is the reverse of encode. Names that cannot have been in a record
// of ours are an error: they are going to be used as names of files.
func decodeRecord(b []byte) (r record, err error) {
	if len(b) == 0 {
		return r, errRecord
	}
	r.kind = b[0]
	d := fields{rest: b[1:]}
	for n := d.number(); n > 0 && !d.bad; n-- {
		local, domain := d.text(), d.text()
		a, err := parseAddress(local + "@" + domain)
		if err != nil {
			return r, errors.Join(errRecord, err)
		}
		r.to = append(r.to, a)
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		r.names = append(r.names, d.text())
	}
	r.data = d.rest
	if d.bad || !r.valid() {
		return r, errRecord
	}
	return r, nil
}

// fields takes values off the front of rest, until one is not there.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) number() uint64 {
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.rest, f.bad = nil, true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

func (f *fields) text() string {
	n := f.number()
	if n > uint64(len(f.rest)) {
		f.rest, f.bad = nil, true
		return ""
	}
	s := string(f.rest[:n])
	f.rest = f.rest[n:]
	return s
}

func (r *record) valid() bool {
	if len(r.to) == 0 {
		return false
	}
	switch r.kind {
	case recordMessage:
		return len(r.names) == 1 && newName(r.names[0])
	case recordDraft:
		return len(r.names) == 2 && newName(r.names[0]) && validID(r.names[1]) && len(r.data) == crc32.Size
	case recordRemoved:
		return len(r.to) == 1 || len(r.names) == 1
	}
	return r.kind == recordGone && len(r.to) == 1 && len(r.names) == 0
}

// newName is whether a message of ours can be delivered under a name.
func newName(name string) bool {
	f := parseName(name)
	return f.ours && f.base == name && !strings.ContainsAny(name, "/\x00")
}

// draftSum is the CRC-32C of the octets of a draft, when sum is that of those
// before b.
func draftSum(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}
