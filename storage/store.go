// Package storage keeps mail in Maildirs below one data directory, and serves
// them as maildrops for POP3.
//
//	mail/<domain>/<local>/{tmp,new,cur}   the mailboxes
//	mail/.tmp/                            drafts, and mailboxes on their way out
//	index/<domain>/<local>                wire sizes of files other programs put there
//	locks/server, locks/<domain>/<local>  flock; the last visit and warning of the mailbox
//	journal/                              what the mailboxes may not have yet; lock: flock
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
// # Why an accepted message survives a crash
//
// The promise: when Deliver returns nil, the message will be in every mailbox,
// whole, whatever happens to the machine then; and no file that is cut short is
// ever shown to a POP3 client.
//
// The server process has the journal (package journal): records in it are on
// stable storage when Append returns, and come back after a crash. A delivery
// takes these steps there:
//
//  1. The message is read into memory. If it does not fit into 64 KiB it becomes a
//     draft, a file mail/.tmp/<id>, and the draft and its name are synced.
//  2. A record goes into the journal: the file name, the mailboxes, and the octets or
//     the name of the draft. Deliveries at the same time share one sync.
//     From here on the message is safe. Nothing of it could be seen before.
//  3. The file is linked into new/ of each mailbox, without any sync. A crash may
//     leave it there, or cut short, or not at all.
//  4. Deliver returns nil.
//  5. A checkpoint, every few seconds or when the journal is half full, waits
//     until the deliveries of the records so far are past step 3, syncs the
//     file systems (syncfs), and only then has the journal forget the records.
//     After that their drafts are removed. A file system may have told some
//     other process, the one before this perhaps, that it has failed; so a sync
//     counts only when one more change can be made there and be synced.
//
// A crash before step 2 is done leaves nothing that a client was told about. A crash
// after it leaves the record, until the sync of step 5 has succeeded: LockServer,
// which comes before any port is opened, then looks at each message of the journal
// in each of its mailboxes, under any name that readers may have given it by
// then, compares its octets, and delivers it again where they are not right. A
// reader may be at work by then, and move what is not right before its place is
// taken: so each file that was written is looked for again, and every other one of
// that message, until nothing is left to write. A message that its mailbox cannot
// take, or that never stays where it was found, is put aside, in journal/unplaced. All
// of that can be done twice, so a crash of the recovery is nothing special.
//
// Removal by POP3 is a record too, and after it the files are unlinked without
// sync: recovery does that again, and does not deliver what was removed. What it cannot
// remove, as the disk does not read the mailbox, it notes, and whoever opens the mailbox
// first does it. A process that does not have the journal, a command beside the server,
// syncs what it does by itself, and leaves a note beside the journal of what it has
// removed. To remove a mailbox it locks the journal, so that it is known whether a start
// has completed the mailbox, or will do so.
//
// When step 3 fails, the message is unlinked where it is, a record says that it is
// removed, and Deliver returns an error. Should that record fail too, checkpoints that
// fail try it again, also the one at the end; those that succeed need it no more. Only
// a crash before that, or a journal that takes nothing to the end, can have the
// message delivered by the next start.
//
// When step 5 fails, the octets in memory are no proof of what is on the disk, and a
// second sync would find nothing to do. So the files are made anew from the journal,
// and synced then. A message that is in no file of its mailbox any more is left alone:
// it was delivered and somebody has removed it, or it was refused. So is one that a
// reader has moved to a folder of its own after the sync that failed: what the folder
// has is not written again. Until that works the journal keeps its records, and refuses
// new ones when it is full, last of all those of removals.
//
// What a program that does not know the journal has removed since the last
// checkpoint comes back after a crash.
package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"restante/storage/internal/journal"
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
	// ErrNoSpace: the disk, or the owner's share of it, is full.
	ErrNoSpace = errors.New("no space for mail")
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
	host    string
	log     *slog.Logger
	disk    disk
	dataDir string
	mail    *os.Root
	mailDir *os.File // mail/ too, for system calls
	index   *os.Root
	locks   *os.Root
	drafts  *os.File // directory mail/.tmp
	bufs    buffers

	journalOptions  journal.Options // sizes
	checkpointEvery time.Duration

	journal  atomic.Pointer[journal.Journal] // nil in a process that is no server
	applying sync.RWMutex                    // held by those who do what a record says

	mu       sync.Mutex
	touched  map[uint64]*os.File // a directory of each file system that has mail, by device
	kept     []keptDraft
	refusals []*refusal // that the journal has not been told of
	undone   map[address]*undone
	unread   map[string]bool // notes that the disk could not read at the start
	usages   usages
}

// Open opens the store below dataDir, and makes what is missing, with mode 0700.
// It takes no lock: commands may use the store beside a server.
func Open(dataDir string, o Options) (*Store, error) { return openOn(osDisk{}, dataDir, o) }

func openOn(d disk, dataDir string, o Options) (*Store, error) {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Store{host: safeHost(o.Hostname), log: o.Log, disk: d, dataDir: dataDir,
		checkpointEvery: defaultCheckpointEvery, touched: make(map[uint64]*os.File)}
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
		if err := s.syncPath(filepath.Dir(dataDir)); err != nil {
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
	if s.mailDir, err = os.Open(s.mail.Name()); err != nil { // by a name without "/."
		return err
	}
	if s.drafts, err = s.openDir(draftsDir); err != nil {
		return err
	}
	if err := s.touch(s.drafts); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dataDir, journalDir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return s.syncPath(dataDir)
}

// syncPath syncs a directory that is not below mail/.
func (s *Store) syncPath(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(s.disk.syncDir(d), d.Close())
}

// Close closes the store. Maildrops are closed on their own.
func (s *Store) Close() error {
	var errs []error
	for _, root := range []*os.Root{s.mail, s.index, s.locks} {
		if root != nil {
			errs = append(errs, root.Close())
		}
	}
	for _, dir := range []*os.File{s.mailDir, s.drafts} {
		if dir != nil {
			errs = append(errs, dir.Close())
		}
	}
	for _, dir := range s.touched {
		errs = append(errs, dir.Close())
	}
	return errors.Join(errs...)
}

// LockServer takes the lock that only one server holds on a data directory,
// completes the deliveries and removals that a crash has cut off, and removes
// what else it left. From now on this store delivers through the journal. It does
// not wait for another server: ErrServerRunning. The lock ends with release, or
// with the process; release first syncs what the journal holds.
func (s *Store) LockServer() (release func() error, err error) {
	starting, err := s.lockJournal()
	if err != nil {
		return nil, err
	}
	defer starting.Close()
	f, err := s.flock(serverLock)
	if errors.Is(err, ErrInUse) {
		return nil, ErrServerRunning
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	c, err := s.openJournal()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := s.sweepDrafts(); err != nil {
		s.log.Warn("removing old drafts failed", "error", err)
	}
	return func() error { return errors.Join(c.close(), f.Close()) }, nil
}
