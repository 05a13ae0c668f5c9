package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
	d.warnOnce(ctx, mailbox, used, quota)
	return d.mail.Reserve(ctx, mailbox, size, quota)
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
