// Package storage keeps mail in Maildirs below one data directory, and serves
// them as maildrops for POP3.
//
//	mail/<domain>/<local>/{tmp,new,cur}   the mailboxes
//	mail/.tmp/                            drafts, and mailboxes on their way out
//	index/<domain>/<local>                wire sizes of files other programs put there
//	locks/server, locks/<domain>/<local>  flock
//
// A delivered message is a file
//
//	<unix seconds>.<message id>.<host>,S=<octets on disk>,W=<octets on the wire>
//
// with LF line ends. Everything a login needs is in these names, so it costs a
// reading of two directories and no look at any file. Files of any other name or
// content are welcome: they are measured once, and the outcome is kept in the
// index, which may be deleted at any time.
//
// # Why a delivered message survives a crash
//
// The promise: when Deliver returns nil, the message is on stable storage in
// every mailbox; and at no time is there a file in new/ whose octets are not.
// Deliver takes these steps; a crash may come between any two, or in one.
//
//  1. The message is written to a draft, mail/.tmp/<id>. A crash leaves a draft
//     that no mailbox names. Sweep removes it: its maker held a flock on it, and
//     that ended with the maker.
//  2. The draft is synced. From here on its octets are on stable storage. That
//     comes before it has any other name, so no order in which the file system
//     writes directory entries can show a message that is cut short.
//  3. Each mailbox is opened, and made if it is missing. The first time this
//     process uses a mailbox, whoever made it, its directory, the domain's and
//     mail/ are synced (Open has synced the data directory), so that the path to
//     new/ is on stable storage before an entry in new/ is relied on. That a
//     directory can be seen does not prove that: another process may have made
//     it a moment ago.
//  4. The draft is linked into new/ of each mailbox: one atomic step each, whole
//     or not at all. A crash may keep any of the links or none.
//  5. new/ of each mailbox is synced. Now all the entries are on stable storage.
//     A crash here, or before the caller could tell its client, leaves the
//     message where the client's retry delivers it again: doubled, never lost.
//  6. The draft's own name is removed. That is not synced: should it come back
//     after a crash, it is swept as in step 1. Deliver returns nil.
//
// Where a file system cannot link (step 4), the octets are copied to a file in
// the mailbox's tmp/, that file is synced, and then renamed into new/: the same
// argument with another file.
//
// When a step fails, what was linked is removed again from new/ (or from cur/,
// if a reader has moved it already), these directories are synced, and Deliver
// returns an error. After a failed sync nothing is tried twice on the same file,
// because a second sync may report success for octets that were dropped.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

var (
	// ErrInUse: another session or command has the mailbox locked.
	ErrInUse = errors.New("mailbox is in use")
	// ErrGone: the message is no longer in the mailbox.
	ErrGone = errors.New("message is gone")
	// ErrNoMailbox: there is no such mailbox on disk.
	ErrNoMailbox = errors.New("no such mailbox")
	// ErrServerRunning: another server uses the data directory.
	ErrServerRunning = errors.New("another server is running on this data directory")
)

// draftsDir is below mail/, on the same file system as the mailboxes. No domain
// begins with a dot.
const draftsDir = ".tmp"

// Options of a Store.
type Options struct {
	// Hostname is the third part of file names. What does not fit there is
	// written as \ooo.
	Hostname string
	// Log gets what goes wrong without failing a call; nil discards it.
	Log *slog.Logger
}

// Store is the mail below one data directory. Its methods may be called at the
// same time by any number of goroutines and processes.
type Store struct {
	host   string
	log    *slog.Logger
	disk   disk
	mail   *os.Root
	index  *os.Root
	locks  *os.Root
	drafts *os.File // directory mail/.tmp
	bufs   buffers

	mu      sync.Mutex
	settled map[string]identity // mailboxes whose path is on stable storage
}

// Open opens the store below dataDir, and makes what is missing, with mode 0700.
// It takes no lock: commands may use the store beside a server.
func Open(dataDir string, o Options) (*Store, error) {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Store{host: safeHost(o.Hostname), log: o.Log, disk: osDisk{}, settled: make(map[string]identity)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.open(dataDir); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the mail store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(dataDir string) (err error) {
	if err := os.Mkdir(dataDir, 0o700); err == nil {
		if err := syncPath(filepath.Dir(dataDir)); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	for name, root := range map[string]**os.Root{"mail": &s.mail, "index": &s.index, "locks": &s.locks} {
		path := filepath.Join(dataDir, name)
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if *root, err = os.OpenRoot(path); err != nil {
			return err
		}
	}
	if err := s.mail.Mkdir(draftsDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if s.drafts, err = s.mail.Open(draftsDir); err != nil {
		return err
	}
	return syncPath(dataDir)
}

func syncPath(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the store. Maildrops are closed on their own.
func (s *Store) Close() error {
	var errs []error
	for _, root := range []*os.Root{s.mail, s.index, s.locks} {
		if root != nil {
			errs = append(errs, root.Close())
		}
	}
	if s.drafts != nil {
		errs = append(errs, s.drafts.Close())
	}
	return errors.Join(errs...)
}

// LockServer takes the lock that only one server holds on a data directory, and
// removes what a crash left. It does not wait: ErrServerRunning. The lock ends
// with release, or with the process.
func (s *Store) LockServer() (release func() error, err error) {
	f, err := s.flock(serverLock)
	if errors.Is(err, ErrInUse) {
		return nil, ErrServerRunning
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := s.sweepDrafts(context.Background()); err != nil {
		s.log.Warn("removing old drafts failed", "error", err)
	}
	return f.Close, nil
}
