package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// Check is what Verify found out about a mailbox.
type Check struct {
	Messages int   // that a POP3 client gets
	Foreign  int   // of these, with names that do not tell their sizes, or wrong ones
	Octets   int64 // of the messages on disk
	Findings []Finding
}

// Finding is something about a mailbox that its owner should know.
type Finding struct {
	File     string // as in "new/1.x"; "" if it is about the mailbox
	Problem  string
	Repaired bool
	wrong    bool // what is announced of the file is not what it is
}

// Verify reads every file of the mailbox name (local@domain) and compares it with
// what its name or the index say. Mail that comes or goes meanwhile is passed
// over. With repair, which waits for no session (ErrInUse), the index is made to
// say what was found, so that what would be announced wrongly is right, and the
// next login has nothing to measure; no file of the mailbox is touched.
// ErrNoMailbox if there is none.
func (s *Store) Verify(ctx context.Context, name string, repair bool) (Check, error) {
	a, err := parseAddress(name)
	if err != nil {
		return Check{}, err
	}
	m, err := s.openMailbox(a)
	if err != nil {
		return Check{}, err
	}
	defer m.close()
	if repair {
		lock, err := s.lock(a)
		if err != nil {
			return Check{}, err
		}
		defer lock.Close()
	}
	v := verification{store: s, mailbox: m}
	if err := v.run(ctx); err != nil {
		return Check{}, fmt.Errorf("verifying mailbox %s: %w", a, err)
	}
	if repair {
		v.repair()
	}
	return v.check, nil
}

// verification is one Verify under way.
type verification struct {
	store   *Store
	mailbox *mailbox
	check   Check
	entries []entry // of the messages, with their true sizes if they could be read
}

func (v *verification) run(ctx context.Context) error {
	for _, dir := range []*os.File{v.mailbox.new, v.mailbox.cur} {
		if err := v.findOdd(dir); err != nil {
			return err
		}
	}
	files, err := v.mailbox.files()
	if err != nil {
		return err
	}
	entries := arrange(slices.Clone(files))
	v.findCopies(files, entries)
	records, err := v.store.readRecords(v.mailbox.address)
	if err != nil {
		v.find(Finding{Problem: "the index is damaged: " + err.Error(), wrong: true})
	}
	recall(records, entries)
	in, out := v.store.bufs.get(), v.store.bufs.get()
	defer v.store.bufs.put(in)
	defer v.store.bufs.put(out)
	for i := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.compare(&entries[i], in, out)
	}
	return nil
}

func (v *verification) find(f Finding) { v.check.Findings = append(v.check.Findings, f) }

// findOdd finds what is not served because it is no message.
func (v *verification) findOdd(dir *os.File) error {
	sub := "new"
	if dir == v.mailbox.cur {
		sub = "cur"
	}
	files, err := v.store.readDir(v.mailbox.domain, v.mailbox.local, sub)
	if err != nil {
		return err
	}
	for _, f := range files {
		switch {
		case strings.HasPrefix(f.Name(), "."):
			v.find(Finding{File: path.Join(sub, f.Name()), Problem: "the name begins with a dot, so it is not served"})
		case !f.Type().IsRegular():
			v.find(Finding{File: path.Join(sub, f.Name()), Problem: "it is not a regular file, so it is not served"})
		}
	}
	return nil
}

// findCopies finds files that are not served because another one is of the same
// message.
func (v *verification) findCopies(files, served []entry) {
	if len(files) == len(served) {
		return
	}
	is := make(map[string]bool, len(served))
	for i := range served {
		is[served[i].path()] = true
	}
	for i := range files {
		if p := files[i].path(); !is[p] {
			v.find(Finding{File: p, Problem: "another file is of the same message and is served in its place"})
		}
	}
}

// path is where the file is in its mailbox.
func (e *entry) path() string {
	if e.seen {
		return "cur/" + e.name
	}
	return "new/" + e.name
}

// compare reads the file of e and keeps its true sizes.
func (v *verification) compare(e *entry, in, out *[bufferSize]byte) {
	octets, size, err := v.mailbox.weigh(e, in, out)
	switch {
	case errors.Is(err, os.ErrNotExist): // it has gone, or was renamed by a reader
		e.state = gone
		v.entries = append(v.entries, *e)
		return
	case err != nil:
		v.find(Finding{File: e.path(), Problem: "it cannot be read, so it is not served: " + cause(err).Error()})
		e.state = unfit
		v.entries = append(v.entries, *e)
		return
	}
	if e.state == sized && (octets != e.octets || size != e.size) {
		source := "the index"
		if e.own {
			source = "its name"
		}
		v.find(Finding{File: e.path(), wrong: true, Problem: fmt.Sprintf("%s says %d octets, %d on the wire, but it has %d, and %d on the wire",
			source, e.size, e.octets, size, octets)})
		e.own = false
	}
	e.octets, e.size, e.state = octets, size, sized
	v.entries = append(v.entries, *e)
	v.check.Messages++
	v.check.Octets += size
	if !e.own {
		v.check.Foreign++
	}
}

// cause is err without the path in it, which the caller has told.
func cause(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// repair has the index say what is true, also of files that no login has measured
// yet. The lock of the mailbox is held.
func (v *verification) repair() {
	for i := range v.check.Findings {
		f := &v.check.Findings[i]
		f.Repaired = f.wrong
	}
	v.store.saveIndex(v.mailbox.address, v.entries)
}
