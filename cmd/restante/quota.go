package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"restante/cmd/restante/internal/config"
	"restante/smtpd"
	"restante/storage"
)

// Reserve makes room for a message in each of the mailboxes whose users have a
// quota; nil if none has.
func (d deliveries) Reserve(ctx context.Context, mailboxes []string, size int64) (func(), error) {
	var held []func()
	release := func() {
		for _, end := range held {
			end()
		}
	}
	for _, mailbox := range mailboxes {
		end, err := d.reserve(ctx, mailbox, size)
		if err != nil {
			release()
			return nil, translate(err, [2]error{storage.ErrOverQuota, smtpd.ErrOverQuota})
		}
		if end != nil {
			held = append(held, end)
		}
	}
	if len(held) == 0 {
		return nil, nil
	}
	return release, nil
}

func (d deliveries) reserve(ctx context.Context, mailbox string, size int64) (func(), error) {
	quota, err := d.users.Quota(ctx, mailbox)
	if err != nil {
		return nil, err
	}
	if quota == 0 {
		return nil, nil
	}
	used, err := d.mail.Usage(ctx, mailbox)
	if err != nil {
		return nil, err
	}
	d.fill.fell(mailbox, used, quota)
	return d.mail.Reserve(ctx, mailbox, size, quota)
}

// warn puts a warning into each of the mailboxes that a delivery has made fuller
// than the next threshold. The delivery is done; what fails here is for the log.
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
		if err == nil && d.fill.rose(mailbox, used, quota) {
			d.log.Info("mailbox fills up", "mailbox", mailbox, "octets", used, "quota", quota)
			_, err = d.mail.Deliver(ctx, newMessageID(), []string{mailbox}, strings.NewReader(quotaWarning(mailbox, used, quota, time.Now())))
		}
		if err != nil {
			d.log.Warn("no warning about the quota", "mailbox", mailbox, "error", err)
		}
	}
}

// thresholds are the parts of a quota, in percent, at which a user is warned. The
// warning is due again when the mailbox has been emptier by some percent.
var thresholds = []int64{80, 95}

const hysteresis = 5

// fillLevels remembers how many thresholds mailboxes have passed, of those that have
// a quota. A mailbox that was never looked at has passed those that it is over.
type fillLevels struct {
	mu     sync.Mutex
	passed map[string]int
}

// level is how many thresholds a mailbox is over, if each were lower by some percent.
func level(used, quota, lower int64) (n int) {
	for _, percent := range thresholds {
		if float64(used)*100 >= float64(quota)*float64(percent-lower) {
			n++
		}
	}
	return n
}

// fell tells what a mailbox held before a delivery.
func (f *fillLevels) fell(mailbox string, used, quota int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.passed == nil {
		f.passed = make(map[string]int)
	}
	if before, known := f.passed[mailbox]; !known {
		f.passed[mailbox] = level(used, quota, 0)
	} else {
		f.passed[mailbox] = min(before, level(used, quota, hysteresis))
	}
}

// rose tells what a mailbox holds after a delivery, and reports whether it has
// passed a threshold.
func (f *fillLevels) rose(mailbox string, used, quota int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.passed[mailbox]
	now := level(used, quota, 0)
	if !known || now <= before {
		return false
	}
	f.passed[mailbox] = now
	return true
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

// percentFull is for people. It never says 0% of what is not empty, nor 100% of
// what has room.
func percentFull(used, quota int64) string {
	percent := float64(used) / float64(quota) * 100
	switch {
	case used == 0:
		return "0%"
	case percent < 0.01:
		return "<0.01%"
	case percent < 1:
		return fmt.Sprintf("%.2f%%", percent)
	case percent < 10:
		return fmt.Sprintf("%.1f%%", percent)
	case percent < 100:
		return fmt.Sprintf("%d%%", int64(percent))
	}
	return fmt.Sprintf("%.0f%%", percent)
}

// quotaCell is a quota in a table.
func quotaCell(quota int64) string {
	if quota == 0 {
		return "-"
	}
	return config.Size(quota).String()
}

// fullness is how full a mailbox is, in a table.
func fullness(used, quota int64) string {
	if quota == 0 {
		return "-"
	}
	return percentFull(used, quota) + " of " + quotaCell(quota)
}

// errQuota tells how a quota is written.
var errQuota = errors.New(`must be a size such as "2GB" or "500MiB", or "none"`)

// parseQuota reads a quota: a size, or "none", which is 0.
func parseQuota(s string) (int64, error) {
	if strings.EqualFold(s, "none") {
		return 0, nil
	}
	size, err := config.ParseSize(s)
	if err == nil && size == 0 {
		err = fmt.Errorf("%w, for no limit", errQuota)
	}
	if err != nil {
		return 0, usageError{fmt.Errorf("--quota %s: %w", s, err)}
	}
	return int64(size), nil
}
