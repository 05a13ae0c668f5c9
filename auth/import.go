package auth

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"
)

// maxImportLine bounds a line, in octets.
const maxImportLine = 8 << 10

// ImportEntry is one user to import.
type ImportEntry struct {
	Line    int    // in the file, from 1
	Address string // canonical
	Secret  Secret
}

// ImportError is what is wrong with one line.
type ImportError struct {
	Line int
	Err  error
}

func (e *ImportError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *ImportError) Unwrap() error { return e.Err }

// ParseImport reads one user a line, address:secret. The secret is {PLAIN} and
// a password, up to the end of the line with its spaces, or a hash as HashSecret
// takes it. Blank lines and lines that begin with # are skipped. The
// error joins an *ImportError for each bad line, none of which shows a secret.
func ParseImport(r io.Reader) ([]ImportEntry, error) {
	var entries []ImportEntry
	var bad []error
	seen := make(map[string]int)
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxImportLine)
	line := 0
	for scanner.Scan() {
		line++
		text := scanner.Text() // without LF or CRLF
		if line == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // what some editors begin with
		}
		if t := strings.TrimSpace(text); t == "" || t[0] == '#' {
			continue
		}
		e, err := parseImportLine(text)
		if err == nil && seen[e.Address] > 0 {
			err = failuref(ErrExists, "user %s is on line %d already", e.Address, seen[e.Address])
		}
		if err != nil {
			bad = append(bad, &ImportError{Line: line, Err: err})
			continue
		}
		e.Line = line
		seen[e.Address] = line
		entries = append(entries, e)
	}
	if err := scanner.Err(); errors.Is(err, bufio.ErrTooLong) {
		bad = append(bad, &ImportError{Line: line + 1, Err: fmt.Errorf("the line is longer than %d octets; nothing after it was read", maxImportLine)})
	} else if err != nil {
		bad = append(bad, fmt.Errorf("read the users to import: %w", err))
	}
	if bad != nil {
		return nil, errors.Join(bad...)
	}
	return entries, nil
}

func parseImportLine(text string) (ImportEntry, error) {
	address, secret, ok := strings.Cut(text, ":")
	if !ok {
		return ImportEntry{}, errors.New("it has no colon; write address:{PLAIN}password, or a hash after the colon")
	}
	a, err := ParseUser(strings.TrimSpace(address))
	if err != nil {
		return ImportEntry{}, err
	}
	e := ImportEntry{Address: a.String()}
	if secret = strings.TrimLeft(secret, " \t"); strings.HasPrefix(secret, "$") || strings.HasPrefix(secret, "{") {
		if _, plain := plainScheme(secret); !plain {
			secret = strings.TrimRight(secret, " \t")
		}
		e.Secret, err = HashSecret(secret)
	} else {
		err = failuref(ErrBadSecret, "what follows the colon is neither {PLAIN} and a password nor a hash, which begins with $ or {")
	}
	return e, err
}

// ImportUsers adds the users, all or none. The error joins an *ImportError for
// each entry that cannot be added, or is the server's own.
func (d *Directory) ImportUsers(ctx context.Context, entries []ImportEntry) error {
	// What cannot be added is found before an hour is spent on hashes, and
	// hashes are computed before others must wait.
	check := func(tx *sql.Tx) error {
		return eachEntry(entries, func(_ int, a Address) error {
			_, err := userVacancy(ctx, tx, a)
			return err
		})
	}
	if err := d.change(ctx, check); err != nil {
		return err
	}
	stored, err := d.credentials(ctx, entries)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		return eachEntry(entries, func(i int, a Address) error {
			return insertUser(ctx, tx, a, stored[i], d.now())
		})
	})
}

// eachEntry calls f with the index and address of each entry, and joins what is
// wrong with them. An error of the server ends it at once.
func eachEntry(entries []ImportEntry, f func(int, Address) error) error {
	var bad []error
	for i, e := range entries {
		a, err := ParseUser(e.Address)
		if err == nil {
			err = f(i, a)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrBadAddress), errors.Is(err, ErrNotFound), errors.Is(err, ErrExists):
			bad = append(bad, &ImportError{Line: e.Line, Err: err})
		default:
			return err
		}
	}
	return errors.Join(bad...)
}

// credentials makes what is stored for the entries, with as many hashes at once
// as are allowed.
func (d *Directory) credentials(ctx context.Context, entries []ImportEntry) ([]string, error) {
	stored := make([]string, len(entries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.hasher.params.Parallel)
	for i, e := range entries {
		g.Go(func() error {
			s, err := d.credential(ctx, e.Secret)
			if errors.Is(err, ErrBadSecret) {
				err = &ImportError{Line: e.Line, Err: err}
			}
			stored[i] = s
			return err
		})
	}
	return stored, g.Wait()
}
