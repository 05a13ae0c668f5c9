package auth

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// flushAfter is how long what logins leave behind may wait to be written.
	flushAfter = 5 * time.Second
	// sameUse is how long the same use of a credential is not noted again.
	sameUse = time.Minute
	maxUses = 16384
	// saveShare bounds the part of the time that may go into saving failed logins: in a
	// flood there are many. But after a disk that hung they are not left unsaved for long.
	saveShare   = 20
	longestRest = time.Minute
)

// uses collects what logins leave behind: one that is right would otherwise wait
// for the disk, and make every process forget what it knows of the directory.
type uses struct {
	writing sync.Mutex // held while the disk is written; taken before mu

	mu      sync.Mutex
	app     map[int64]Use // by the number of the app password, to be written
	stale   map[int64]Use // by the number of the user, likewise
	written map[int64]Use // of app passwords
	timer   *time.Timer   // nil: nothing to write
	rest    time.Duration // before the next time
	closed  bool
}

// noteApp notes that an app password was used.
func (d *Directory) noteApp(id int64, u Use) {
	d.uses.mu.Lock()
	defer d.uses.mu.Unlock()
	if last := d.uses.written[id]; last.Protocol == u.Protocol && last.Address == u.Address && u.Time.Sub(last.Time) < sameUse {
		return
	}
	if len(d.uses.written) >= maxUses {
		clear(d.uses.written)
	}
	d.uses.app[id], d.uses.written[id] = u, u
	d.flushSoon()
}

// noteStale notes that somebody still has the user's previous password.
func (d *Directory) noteStale(user int64, u Use) {
	d.uses.mu.Lock()
	defer d.uses.mu.Unlock()
	d.uses.stale[user] = u
	d.flushSoon()
}

// noteFailures has the state of the throttle saved.
func (d *Directory) noteFailures() {
	if d.throttleFile == "" || !d.throttle.Changed() {
		return
	}
	d.uses.mu.Lock()
	defer d.uses.mu.Unlock()
	d.flushSoon()
}

// flushSoon is called with the lock held.
func (d *Directory) flushSoon() {
	if d.uses.timer == nil && !d.uses.closed {
		d.uses.timer = time.AfterFunc(max(flushAfter, d.uses.rest), d.flush)
	}
}

// flush writes what has been collected, while logins go on. What cannot be written
// is for the log only, and is tried again with the next.
func (d *Directory) flush() {
	d.uses.writing.Lock()
	defer d.uses.writing.Unlock()
	d.uses.mu.Lock()
	d.uses.timer = nil
	app, stale := d.uses.app, d.uses.stale
	d.uses.app, d.uses.stale = make(map[int64]Use), make(map[int64]Use)
	d.uses.mu.Unlock()
	ctx := context.Background()
	if len(app)+len(stale) > 0 {
		if err := d.writeUses(ctx, app, stale); err != nil {
			d.log.WarnContext(ctx, "the last use of passwords was not noted", "error", err)
			d.uses.mu.Lock()
			keepOlder(d.uses.app, app)
			keepOlder(d.uses.stale, stale)
			d.uses.mu.Unlock()
		}
	}
	if d.throttleFile != "" && d.throttle.Changed() {
		began := time.Now()
		if err := d.saveThrottle(); err != nil {
			d.log.WarnContext(ctx, "failed logins were not saved, and are forgotten at a restart", "error", err)
		}
		d.uses.mu.Lock()
		d.uses.rest = restAfter(time.Since(began))
		d.uses.mu.Unlock()
	}
}

// restAfter is how long nothing is saved after it has taken so long.
func restAfter(took time.Duration) time.Duration { return min(saveShare*took, longestRest) }

// keepOlder puts uses back of which there is none since.
func keepOlder(now, older map[int64]Use) {
	for id, u := range older {
		if _, ok := now[id]; !ok {
			now[id] = u
		}
	}
}

func (d *Directory) writeUses(ctx context.Context, app, stale map[int64]Use) error {
	return d.change(ctx, func(tx *sql.Tx) error {
		for id, u := range app {
			_, err := tx.ExecContext(ctx, `UPDATE app_passwords SET used = $2, used_by = $3, used_from = $4 WHERE id = $1`,
				id, u.Time.Unix(), u.Protocol, u.Address)
			if err != nil {
				return err
			}
		}
		for id, u := range stale {
			_, err := tx.ExecContext(ctx, `UPDATE users SET stale = $2, stale_by = $3, stale_from = $4 WHERE id = $1 AND previous IS NOT NULL`,
				id, u.Time.Unix(), u.Protocol, u.Address)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// finishUses writes what is left, when the directory is closed.
func (d *Directory) finishUses() {
	d.uses.mu.Lock()
	d.uses.closed = true
	if d.uses.timer != nil {
		d.uses.timer.Stop()
	}
	d.uses.mu.Unlock()
	d.flush()
}

// saveThrottle replaces the file, whole or not at all. It need not survive a
// power cut.
func (d *Directory) saveThrottle() (err error) {
	f, err := os.CreateTemp(filepath.Dir(d.throttleFile), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err = errors.Join(d.throttle.Save(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), d.throttleFile)
}

// loadThrottle reads what was saved. A file that is damaged is no reason not to
// serve.
func (d *Directory) loadThrottle(ctx context.Context) {
	if d.throttleFile == "" {
		return
	}
	f, err := os.Open(d.throttleFile)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		err = d.throttle.Load(f)
	}
	if err != nil {
		d.log.WarnContext(ctx, "failed logins from before the start are forgotten", "error", err)
	}
}
