package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// quotaSQL gives the quota that holds for a user.
const quotaSQL = `
SELECT coalesce(u.quota, d.quota)
FROM domains d JOIN addresses a ON a.domain = d.id JOIN users u ON u.id = a.id
WHERE d.name = $1 AND a.local = $2`

// Quota is what may be in a mailbox, by its canonical name, in octets; 0 is no
// limit. A mailbox that no user has is without one.
func (d *Directory) Quota(ctx context.Context, mailbox string) (int64, error) {
	present := d.versions.now()
	if quota, ok := d.quotas.get(present, mailbox); ok {
		return quota, nil
	}
	a, err := ParseAddress(mailbox)
	if err != nil {
		return 0, err
	}
	var quota int64
	err = d.quota.QueryRowContext(calm(ctx), a.Domain, a.Local).Scan(&quota)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("look up a quota: %w", explain(err))
	}
	d.quotas.put(present, mailbox, quota)
	return quota, nil
}

// SetQuota sets the quota of a user, in octets; 0 is none, and nil that of the
// domain. Sessions go on. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) SetQuota(ctx context.Context, addr string, quota *int64) error {
	return d.changeUser(ctx, addr, func(tx *sql.Tx, _ Address, id int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE users SET quota = $2 WHERE id = $1`, id, quota)
		return err
	})
}

// SetDomainQuota sets the quota of the users of a domain who have none of their
// own, in octets; 0 is none. Errors: ErrBadAddress, ErrNotFound.
func (d *Directory) SetDomainQuota(ctx context.Context, domain string, quota int64) error {
	name, err := ParseDomain(domain)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		id, err := domainID(ctx, tx, name)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE domains SET quota = $2 WHERE id = $1`, id, quota)
		return err
	})
}
