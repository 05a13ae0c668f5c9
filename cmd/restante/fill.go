package main

import (
	"context"
	"strings"
	"sync"
	"time"
)

// warn tells the users of mailboxes that a delivery has made fuller. The delivery is
// done; what fails here is for the log.
func (d deliveries) warn(ctx context.Context, mailboxes []string) {
	for _, mailbox := range mailboxes {
		quota, err := d.users.Quota(ctx, mailbox)
		if err == nil && quota == 0 {
			continue
		}
		var used int64
		if err == nil {
			used, err = d.mail.Usage(ctx, mailbox)
		}
		if err != nil {
			d.log.Warn("no warning about the quota", "mailbox", mailbox, "error", err)
			continue
		}
		d.warnOnce(ctx, mailbox, used, quota)
	}
}

// warnOnce puts a warning into a mailbox that is fuller than a threshold its user was
// not warned of, however it became so.
func (d deliveries) warnOnce(ctx context.Context, mailbox string, used, quota int64) {
	due, err := d.fill.look(mailbox, used, quota)
	if err == nil && due {
		d.log.Info("mailbox fills up", "mailbox", mailbox, "octets", used, "quota", quota)
		_, err = d.mail.Deliver(ctx, newMessageID(), []string{mailbox}, strings.NewReader(quotaWarning(mailbox, used, quota, time.Now())))
	}
	if err != nil {
		d.fill.forget(mailbox)
		d.log.Warn("no warning about the quota", "mailbox", mailbox, "error", err)
		return
	}
	if due || d.fill.fallen(mailbox) { // else the warning of another delivery is under way
		err = d.fill.note(mailbox)
	}
	if err != nil {
		d.log.Warn("a warning about the quota may come again after a restart", "mailbox", mailbox, "error", err)
	}
}

// thresholds are the parts of a quota, in percent, at which a user is warned. The
// warning is due again when the mailbox has been emptier by some percent.
var thresholds = []int64{80, 95}

const hysteresis = 5

// level is how many thresholds a mailbox is over, if each were lower by some percent.
func level(used, quota, lower int64) (n int) {
	for _, percent := range thresholds {
		if float64(used)*100 >= float64(quota)*float64(percent-lower) {
			n++
		}
	}
	return n
}

// fillNotes keep levels beyond the end of the process.
type fillNotes interface {
	Warned(mailbox string) (level int, err error)
	SetWarned(mailbox string, level int) error
}

// fillLevels remembers of how many thresholds the users of mailboxes were warned, of
// those that have a quota.
type fillLevels struct {
	notes fillNotes

	mu sync.Mutex
	of map[string]fillLevel
}

// fillLevel is that of one mailbox, now and in the notes.
type fillLevel struct{ warned, noted int }

// look tells what a mailbox holds, and reports whether its user is to be warned, which
// counts as done then.
func (f *fillLevels) look(mailbox string, used, quota int64) (due bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, known := f.of[mailbox]
	if !known {
		if l.noted, err = f.notes.Warned(mailbox); err != nil {
			return false, err
		}
		l.warned = l.noted
	}
	before := min(l.warned, level(used, quota, hysteresis))
	l.warned = max(before, level(used, quota, 0))
	if f.of == nil {
		f.of = make(map[string]fillLevel)
	}
	f.of[mailbox] = l
	return l.warned > before, nil
}

// fallen tells whether a mailbox is emptier than its level in the notes.
func (f *fillLevels) fallen(mailbox string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[mailbox]
	return l.warned < l.noted
}

// note writes the level of a mailbox down, if it has changed.
func (f *fillLevels) note(mailbox string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[mailbox]
	if l.warned == l.noted {
		return nil
	}
	l.noted = l.warned // tried once
	f.of[mailbox] = l
	return f.notes.SetWarned(mailbox, l.warned)
}

// forget is for a warning that could not be given: the notes are looked at again.
func (f *fillLevels) forget(mailbox string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, mailbox)
}

// quotaWarning is a message to the owner of a mailbox. It says what to do.
func quotaWarning(mailbox string, used, quota int64, now time.Time) string {
	full := percentFull(used, quota)
	return strings.Join([]string{
		"Return-Path: <>",
		"From: Mail server <postmaster@" + domainOf(mailbox) + ">",
		"To: " + mailbox,
		"Date: " + now.Format(time.RFC1123Z),
		"Message-ID: <" + newMessageID() + "@" + domainOf(mailbox) + ">",
		"Subject: Your mailbox is " + full + " full",
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		"Your mailbox " + mailbox + " on the server is " + full + " full:",
		octets(used) + " of " + octets(quota) + ".",
		"",
		"When it is full, mail to you is refused, and its senders are told so.",
		"",
		"To make room, have your mail program delete mail from the server: most have a",
		`setting "leave messages on the server", which can be turned off, or be limited to`,
		"some days. What is deleted there stays in the mail program.",
		"",
	}, "\r\n")
}
