package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"restante/cmd/restante/internal/config"
	"restante/smtpd"
	"restante/storage"
)

// Fits tells whether a message has room in each of the mailboxes whose users have a
// quota.
func (d deliveries) Fits(ctx context.Context, mailboxes []string, size int64) error {
	for _, mailbox := range mailboxes {
		quota, err := d.users.Quota(ctx, mailbox)
		if err == nil && quota > 0 {
			err = d.fits(ctx, mailbox, size, quota)
		}
		if err != nil {
			return translate(err, [2]error{storage.ErrOverQuota, smtpd.ErrOverQuota})
		}
	}
	return nil
}

func (d deliveries) fits(ctx context.Context, mailbox string, size, quota int64) error {
	used, err := d.mail.Usage(ctx, mailbox)
	if err != nil {
		return err
	}
	d.warnOnce(ctx, mailbox, used, quota)
	return d.mail.Fits(ctx, mailbox, size, quota)
}

// An admission reads a message, and asks at its end whether the mailboxes still take
// it: other mail may have filled them since Fits. The room that it takes is for itself
// alone until release.
type admission struct {
	deliveries
	ctx       context.Context
	mailboxes []string
	message   io.Reader
	octets    int64
	claims    []func()
	end       error
}

func (a *admission) Read(p []byte) (int, error) {
	if a.end != nil {
		return 0, a.end
	}
	n, err := a.message.Read(p)
	a.octets += int64(n)
	if err == io.EOF {
		err = a.claim()
	}
	a.end = err
	return n, err
}

// claim claims room in all mailboxes, and is the end of the message. All are counted
// before that, which may take its time.
func (a *admission) claim() error {
	quotas := make(map[string]int64)
	for _, mailbox := range a.mailboxes {
		quota, err := a.users.Quota(a.ctx, mailbox)
		if err != nil {
			return err
		}
		if quota == 0 {
			continue
		}
		if err := a.mail.Fits(a.ctx, mailbox, 0, quota); err != nil {
			return err
		}
		quotas[mailbox] = quota
	}
	for mailbox, quota := range quotas {
		release, err := a.mail.Claim(a.ctx, mailbox, a.octets, quota)
		if err != nil {
			return err
		}
		a.claims = append(a.claims, release)
	}
	return io.EOF
}

func (a *admission) release() {
	for _, release := range a.claims {
		release()
	}
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
