package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxKept is how many mailboxes an answer leads to that is kept. Lists are few, but
// each has as many addresses as there are details.
const maxKept = 16

// Resolution is where a recipient leads.
type Resolution struct {
	Address   string   // the recipient in canonical form, with its detail, quoted as needed
	Mailboxes []string // names of mailboxes, at least one, each once
}

// lookupSQL gives the domain's row once, or once with each of the addresses
// that can take the recipient: the recipient itself ($2), the same without
// detail ($3), the postmaster ($4, when the recipient is a role), the
// catch-all.
const lookupSQL = `
SELECT d.postmaster, a.id, a.local, u.enabled
FROM domains d
	LEFT JOIN addresses a ON a.domain = d.id AND a.local IN ($2, $3, $4, '')
	LEFT JOIN users u ON u.id = a.id
WHERE d.name = $1`

// expandSQL gives the users that an alias leads to. UNION visits each address
// once, so it ends whatever the targets are.
var expandSQL = fmt.Sprintf(`
WITH RECURSIVE reach (id) AS (
	SELECT $1 UNION SELECT t.target FROM targets t JOIN reach ON t.alias = reach.id
	LIMIT %d
)
SELECT a.local || '@' || d.name, u.enabled
FROM reach JOIN users u ON u.id = reach.id JOIN addresses a ON a.id = u.id JOIN domains d ON d.id = a.domain
ORDER BY u.id`, maxReach+1)

// place is an address that can take a recipient, and the domain's postmaster.
type place struct {
	postmaster string
	id         sql.NullInt64
	local      sql.NullString
	enabled    sql.NullBool // not valid: an alias
}

// Resolve finds the mailboxes of a recipient. The local part comes unquoted;
// an empty domain with the local part postmaster is the bare <postmaster> of
// RFC 5321 section 4.5.1 and means that of the first domain. In this order the
// recipient is taken by: the user or alias of that very address; those of the
// address without the detail; for postmaster and abuse the domain's postmaster;
// the catch-all. Disabled users behind an alias are left out.
//
// Errors: ErrBadAddress, ErrNotHosted (also for an address literal),
// ErrNoSuchUser, ErrDisabled, ErrNoPostmaster; any other is the server's own.
func (d *Directory) Resolve(ctx context.Context, local, domain string) (Resolution, error) {
	if err := ctx.Err(); err != nil {
		return Resolution{}, err
	}
	a, err := d.recipient(ctx, local, domain)
	if err != nil {
		return Resolution{}, err
	}
	present := d.versions.now()
	if mailboxes, ok := d.resolved.get(present, a); ok {
		return Resolution{Address: a.String(), Mailboxes: slices.Clone(mailboxes)}, nil
	}
	places, err := d.places(ctx, a)
	if err != nil {
		return Resolution{}, err
	}
	mailboxes, err := d.deliverable(ctx, a, places)
	if isRole(a.Local) && (errors.Is(err, ErrDisabled) || errors.Is(err, ErrNoSuchUser)) {
		err = ErrNoPostmaster
	}
	if err != nil {
		return Resolution{}, err
	}
	if len(mailboxes) <= maxKept {
		d.resolved.put(present, a, slices.Clone(mailboxes))
	}
	return Resolution{Address: a.String(), Mailboxes: mailboxes}, nil
}

// recipient is the canonical address of a recipient.
func (d *Directory) recipient(ctx context.Context, local, domain string) (Address, error) {
	switch {
	case strings.HasPrefix(domain, "["):
		return Address{}, ErrNotHosted
	case domain == "" && strings.EqualFold(local, "postmaster"):
		first, err := d.FirstDomain(ctx)
		if err == nil && first == "" {
			err = ErrNoPostmaster
		}
		return Address{Local: "postmaster", Domain: first}, err
	}
	a, reason := canonicalAddress(local, domain)
	if reason != "" {
		return a, &AddressError{Input: local + "@" + domain, Reason: reason}
	}
	return a, nil
}

// deliverable picks who takes the recipient.
func (d *Directory) deliverable(ctx context.Context, a Address, places []place) ([]string, error) {
	base := d.withoutDetail(a.Local)
	for _, local := range []string{a.Local, base} {
		if p, ok := at(places, local); ok {
			return d.mailboxes(ctx, Address{local, a.Domain}, p)
		}
	}
	if isRole(a.Local) {
		mailboxes, err := d.role(ctx, a, places)
		if !errors.Is(err, ErrNoPostmaster) {
			return mailboxes, err
		}
	}
	if p, ok := at(places, ""); ok {
		return d.mailboxes(ctx, Address{"", a.Domain}, p)
	}
	return nil, ErrNoSuchUser
}

// role finds who takes mail to a role address that nobody has: the user or
// alias called postmaster, else the postmaster that the domain names, if that
// one can.
func (d *Directory) role(ctx context.Context, a Address, places []place) ([]string, error) {
	if p, ok := at(places, "postmaster"); ok {
		return d.mailboxes(ctx, Address{"postmaster", a.Domain}, p)
	}
	who := places[0].postmaster
	i := strings.LastIndexByte(who, '@')
	if i < 0 {
		return nil, ErrNoPostmaster
	}
	named := Address{Local: who[:i], Domain: who[i+1:]}
	there, err := d.places(ctx, named)
	if err != nil && !errors.Is(err, ErrNotHosted) {
		return nil, err
	}
	p, ok := at(there, named.Local)
	if !ok {
		return nil, ErrNoPostmaster
	}
	return d.mailboxes(ctx, named, p)
}

// places looks up what can take the address; at least one row, or
// ErrNotHosted.
func (d *Directory) places(ctx context.Context, a Address) ([]place, error) {
	role := a.Local
	if isRole(a.Local) {
		role = "postmaster"
	}
	rows, err := d.lookup.QueryContext(calm(ctx), a.Domain, a.Local, d.withoutDetail(a.Local), role)
	if err != nil {
		return nil, fmt.Errorf("look up a recipient: %w", err)
	}
	defer rows.Close()
	var found []place
	for rows.Next() {
		var p place
		if err := rows.Scan(&p.postmaster, &p.id, &p.local, &p.enabled); err != nil {
			return nil, fmt.Errorf("look up a recipient: %w", err)
		}
		found = append(found, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up a recipient: %w", err)
	}
	if found == nil {
		return nil, ErrNotHosted
	}
	return found, nil
}

// at picks the place with this local part.
func at(places []place, local string) (place, bool) {
	for _, p := range places {
		if p.id.Valid && p.local.String == local {
			return p, true
		}
	}
	return place{}, false
}

// mailboxes is where the user or alias a, found at p, leads.
func (d *Directory) mailboxes(ctx context.Context, a Address, p place) ([]string, error) {
	if p.enabled.Valid {
		if !p.enabled.Bool {
			return nil, ErrDisabled
		}
		return []string{a.String()}, nil
	}
	rows, err := d.expand.QueryContext(calm(ctx), p.id.Int64)
	if err != nil {
		return nil, fmt.Errorf("resolve alias %s: %w", a, err)
	}
	defer rows.Close()
	var mailboxes []string
	for rows.Next() {
		var name string
		var enabled bool
		if err := rows.Scan(&name, &enabled); err != nil {
			return nil, fmt.Errorf("resolve alias %s: %w", a, err)
		}
		if enabled {
			mailboxes = append(mailboxes, name)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("resolve alias %s: %w", a, err)
	}
	if mailboxes == nil {
		return nil, ErrDisabled
	}
	return mailboxes, nil
}

// withoutDetail is the user part of user+detail, or the local part as it is.
func (d *Directory) withoutDetail(local string) string {
	if i := strings.Index(local, d.separator); i > 0 {
		return local[:i]
	}
	return local
}

// isRole: the addresses that reach the postmaster unless they are defined
// (RFC 5321 section 4.5.1, RFC 2142).
func isRole(local string) bool { return local == "postmaster" || local == "abuse" }
