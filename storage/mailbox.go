package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// address is the checked name of a mailbox.
type address struct{ local, domain string }

// parseAddress splits local@domain at the last "@" and makes sure that both
// parts can be names of directories and are not hidden ones.
func parseAddress(name string) (address, error) {
	i := strings.LastIndexByte(name, '@')
	if i < 0 {
		return address{}, fmt.Errorf("mailbox name %q has no @", name)
	}
	a := address{local: name[:i], domain: name[i+1:]}
	for _, part := range []string{a.local, a.domain} {
		if part == "" || part[0] == '.' || len(part) > 255 || strings.ContainsAny(part, "/\x00") {
			return address{}, fmt.Errorf("mailbox name %q cannot be a directory", name)
		}
	}
	return a, nil
}

func (a address) String() string { return a.local + "@" + a.domain }

func (a address) path() string { return path.Join(a.domain, a.local) }

// digest is a short name that no other mailbox has.
func (a address) digest() string {
	sum := sha256.Sum256([]byte(a.path()))
	return hex.EncodeToString(sum[:16])
}

// mailbox is an open Maildir.
type mailbox struct {
	address
	new, cur *os.File // cur may be let go while no message is in it; see also openParts
	listed   version  // at the last listing
}

func (m *mailbox) close() {
	if m.new != nil {
		m.new.Close()
	}
	m.letGo()
}

// letGo closes cur/.
func (m *mailbox) letGo() {
	if m.cur != nil {
		m.cur.Close()
		m.cur = nil
	}
}

// reopen opens cur/ again. It stays closed if it is no longer there.
func (s *Store) reopen(m *mailbox) (err error) {
	if m.cur == nil {
		m.cur, err = s.openDir(m.domain, m.local, "cur")
	}
	return ignoreMissing(err)
}

func (m *mailbox) dir(seen bool) *os.File {
	if seen {
		return m.cur
	}
	return m.new
}

// openMailbox opens a mailbox; ErrNoMailbox if there is none or a part of it is
// missing.
func (s *Store) openMailbox(a address) (_ *mailbox, err error) {
	newDir, err := s.openDir(a.domain, a.local, "new")
	if err != nil {
		return nil, missing(a, err)
	}
	cur, err := s.openDir(a.domain, a.local, "cur")
	if err != nil {
		newDir.Close()
		return nil, missing(a, err)
	}
	return &mailbox{address: a, new: newDir, cur: cur}, nil
}

// openParts opens what there is of a mailbox: new/, cur/, or both as openMailbox asks.
// Mail is delivered to one without cur/, and one that has lost new/ still has messages.
func (s *Store) openParts(a address) (*mailbox, error) {
	newDir, err := s.openDir(a.domain, a.local, "new")
	if ignoreMissing(err) != nil {
		return nil, err
	}
	m := &mailbox{address: a, new: newDir}
	if failed := s.reopen(m); failed != nil {
		m.close()
		return nil, failed
	}
	if m.new == nil && m.cur == nil {
		return nil, err
	}
	return m, nil
}

func missing(a address, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", a, ErrNoMailbox)
	}
	return err
}

// settleMailbox opens a mailbox and makes it if need be; what is made is then on
// stable storage.
func (s *Store) settleMailbox(a address) (*mailbox, error) {
	const tries = 10 // each lost only to a removal of the mailbox in that moment
	m, err := s.openMailbox(a)
	for i := 0; i < tries && errors.Is(err, ErrNoMailbox); i++ {
		if err := s.makeMailbox(a); err != nil {
			return nil, err
		}
		if err := s.settlePath(a); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		m, err = s.openMailbox(a)
	}
	return m, err
}

// settlePath syncs the directories from the mailbox up to mail/.
func (s *Store) settlePath(a address) error {
	for _, path := range [][]string{{a.domain, a.local}, {a.domain}, {}} {
		if err := s.syncMailDir(path...); err != nil {
			return err
		}
	}
	return nil
}

// settleNew syncs new/ of a mailbox and the path to it.
func (s *Store) settleNew(a address) error {
	if err := s.syncMailDir(a.domain, a.local, "new"); err != nil {
		return err
	}
	return s.settlePath(a)
}

// openDir opens a directory below mail/, or mail/ itself, by the names on the way
// to it. What is no directory, a symbolic link among them, is an error.
func (s *Store) openDir(names ...string) (*os.File, error) {
	return s.disk.openDir(s.mailDir, names...)
}

// syncMailDir syncs a directory below mail/, or mail/ itself.
func (s *Store) syncMailDir(names ...string) error {
	d, err := s.openDir(names...)
	if err != nil {
		return err
	}
	defer d.Close()
	return s.disk.syncDir(d)
}

// makeMailbox makes the directories of a mailbox that are missing.
func (s *Store) makeMailbox(a address) error {
	p := a.path()
	for _, dir := range []string{a.domain, p, p + "/tmp", p + "/cur", p + "/new"} {
		err := s.disk.mkdir(s.mail, dir)
		if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("making mailbox %s: %w", a, err)
		}
	}
	if err := s.makeLock(a); err != nil {
		return fmt.Errorf("making the lock of mailbox %s: %w", a, err)
	}
	return nil
}

// CreateMailbox makes the mailbox name (local@domain) if it does not exist, and
// returns once it is on stable storage.
func (s *Store) CreateMailbox(_ context.Context, name string) error {
	a, err := parseAddress(name)
	if err != nil {
		return err
	}
	m, err := s.settleMailbox(a)
	if err != nil {
		return err
	}
	m.close()
	// Somebody may have made it a moment ago, and that it can be seen does not
	// mean that it is on stable storage.
	return s.settlePath(a)
}

// MailboxExists reports whether there is a directory of that mailbox, and
// whether there is mail in it: messages, or folders that other programs made
// beside new/ and cur/.
func (s *Store) MailboxExists(name string) (exists, hasMail bool, err error) {
	a, err := parseAddress(name)
	if err != nil {
		return false, false, err
	}
	parts, err := s.readDir(a.domain, a.local)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	for _, d := range parts {
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return true, true, nil
		}
	}
	m, err := s.openMailbox(a)
	if errors.Is(err, ErrNoMailbox) {
		return true, false, nil
	}
	if err != nil {
		return true, false, err
	}
	defer m.close()
	entries, err := m.list()
	return true, len(entries) > 0, err
}

// lostAndFound is in the root of an ext4 file system, which mail/ may be.
const lostAndFound = "lost+found"

// List returns the names (local@domain) of the mailboxes on disk, sorted by
// domain. A domain whose directory cannot be read is left out and is part of the
// error; the other names are good all the same.
func (s *Store) List(ctx context.Context) ([]string, error) {
	domains, err := s.readDir()
	if err != nil {
		return nil, err
	}
	var names []string
	var errs []error
	for _, d := range domains {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") || d.Name() == lostAndFound {
			continue
		}
		locals, err := s.readDir(d.Name())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, l := range locals {
			if l.IsDir() && !strings.HasPrefix(l.Name(), ".") {
				names = append(names, l.Name()+"@"+d.Name())
			}
		}
	}
	return names, errors.Join(errs...)
}

// readDir reads a directory below mail/, or mail/ itself, sorted by name.
func (s *Store) readDir(names ...string) ([]os.DirEntry, error) {
	d, err := s.openDir(names...)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}
