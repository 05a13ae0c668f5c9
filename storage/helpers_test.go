package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const alice = "alice@example.org"

func openStore(t testing.TB) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	return openStoreAt(t, dir), dir
}

func openStoreAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Hostname: "mx.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// messageID makes a different message id of each n.
func messageID(n int) string { return fmt.Sprintf("%016x", n) }

func deliver(t testing.TB, s *Store, n int, message string, mailboxes ...string) {
	t.Helper()
	if _, err := s.Deliver(context.Background(), messageID(n), mailboxes, strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
}

func openDrop(t testing.TB, s *Store, name string) *Maildrop {
	t.Helper()
	m, err := s.OpenMaildrop(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// contents closes the maildrop after it has read every message, in each way
// that a reader offers, and compared what it got with what was announced.
func contents(t testing.TB, m *Maildrop) []string {
	t.Helper()
	var all []string
	for i := range m.Len() {
		all = append(all, content(t, m, i))
	}
	return all
}

func content(t testing.TB, m *Maildrop, i int) string {
	t.Helper()
	r := open(t, m, i)
	read, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
	var written bytes.Buffer
	n, err := open(t, m, i).(io.WriterTo).WriteTo(&written)
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
	if n != int64(written.Len()) || !bytes.Equal(read, written.Bytes()) {
		t.Errorf("message %d: WriteTo gives %q (%d), Read %q", i, written.Bytes(), n, read)
	}
	if m.Octets(i) != int64(len(read)) {
		t.Errorf("message %d: %d octets announced, %d sent", i, m.Octets(i), len(read))
	}
	return string(read)
}

func open(t testing.TB, m *Maildrop, i int) io.ReadCloser {
	t.Helper()
	r, err := m.Message(i)
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func uidls(m *Maildrop) []string {
	var all []string
	for i := range m.Len() {
		all = append(all, m.UIDL(i))
	}
	return all
}

var lineEndPattern = regexp.MustCompile(`\r*\n`)

// withLineEnds is the rule of line ends said in another way.
func withLineEnds(message, eol string) string {
	if message != "" && !strings.HasSuffix(message, "\n") {
		message += "\n"
	}
	return lineEndPattern.ReplaceAllLiteralString(message, eol)
}

func wireForm(message string) string { return withLineEnds(message, "\r\n") }

// filesIn lists the regular files below dir, as slash paths.
func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// put writes a file as another program would.
func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// only returns the single file in dir.
func only(t testing.TB, dir string) string {
	t.Helper()
	names := filesIn(t, dir)
	if len(names) != 1 {
		t.Fatalf("files in %s: %q, want one", dir, names)
	}
	return names[0]
}

// boxDir is where a mailbox is on disk.
func boxDir(data, name string) string {
	a, err := parseAddress(name)
	if err != nil {
		panic(err)
	}
	return filepath.Join(data, "mail", a.domain, a.local)
}
