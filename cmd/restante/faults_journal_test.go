package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// segment finds the file of the journal that has a message in it, and where.
func (v *victim) segment(tag int) (name string, content []byte, at int) {
	v.t.Helper()
	files, err := filepath.Glob(filepath.Join(v.journal(), "segment-*"))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			v.t.Fatal(err)
		}
		if at := bytes.Index(content, fmt.Appendf(nil, "%s%d\n", tagField, tag)); at >= 0 {
			return name, content, at
		}
	}
	v.t.Fatalf("message %d is not in the journal", tag)
	return "", nil, 0
}

// scribble changes one octet of a file.
func scribble(t *testing.T, name string, content []byte, at int) {
	t.Helper()
	content = bytes.Clone(content)
	content[at] ^= 0x10
	writeFile(t, name, content)
}

// TestFaultJournalDamaged: after damage the server starts and tells it, or does not
// start and tells what is in its way. What the mailboxes have stays.
func TestFaultJournalDamaged(t *testing.T) {
	t.Parallel()
	const damaged, copied = "the journal is damaged", "the header of a file of the journal was lost, its copy is used"
	v := newVictim(t, "")
	v.disown()
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, segment string, content []byte, record int) error
		logged []string // what the server starts with, and says of the file
		fatal  string   // why it does not start
	}{
		{"nothing", func(*testing.T, string, []byte, int) error { return nil }, nil, ""},
		{"its name", func(t *testing.T, name string, c []byte, _ int) error { scribble(t, name, c, 0); return nil }, []string{copied}, ""},
		{"its number", func(t *testing.T, name string, c []byte, _ int) error { scribble(t, name, c, 20); return nil }, []string{copied}, ""},
		{"the first record", func(t *testing.T, name string, c []byte, at int) error { scribble(t, name, c, at); return nil }, []string{damaged, "lost records"}, ""},
		{"cut short", func(_ *testing.T, name string, _ []byte, at int) error { return os.Truncate(name, int64(at)) }, nil, ""},
		{"emptied", func(_ *testing.T, name string, _ []byte, _ int) error { return os.Truncate(name, 0) }, nil, ""},
		{"removed", func(_ *testing.T, name string, _ []byte, _ int) error { return os.Remove(name) }, nil, ""},
		{"unreadable", func(_ *testing.T, name string, _ []byte, _ int) error { return os.Chmod(name, 0) }, nil, "permission denied"},
		{"a directory", func(t *testing.T, name string, _ []byte, _ int) error {
			return tool("sh", "-c", `rm "$1" && mkdir "$1"`, "sh", name)
		}, nil, "is a directory"},
		{"a dangling link", func(_ *testing.T, name string, _ []byte, _ int) error {
			return tool("sh", "-c", `rm "$1" && ln -s nowhere "$1"`, "sh", name)
		}, nil, "no such file"},
		{"the whole journal unreadable", func(_ *testing.T, name string, _ []byte, _ int) error { return os.Chmod(filepath.Dir(name), 0) }, nil, "permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v.t = t
			first := v.accepts(4000, "alice", "bob")
			v.accepts(300<<10, "alice", "carol")
			v.accepts(100, victims...)
			v.kill()
			backup := filepath.Join(t.TempDir(), "journal")
			if err := tool("cp", "-a", v.journal(), backup); err != nil {
				t.Fatal(err)
			}
			name, content, at := v.segment(first)
			if err := test.damage(t, name, content, at); err != nil {
				t.Fatal(err)
			}
			if test.fatal != "" {
				v.staysDown("opening the journal", v.journal(), test.fatal)
				if err := tool("sh", "-c", `chmod 700 "$2" && rm -r "$2" && cp -a "$1" "$2"`, "sh", backup, v.journal()); err != nil {
					t.Fatal(err)
				}
			}
			v.mustStart()
			if test.logged != nil {
				v.logs(append(test.logged, name)...)
			} else if lines := v.log.find(damaged, nil); len(lines) > 0 {
				t.Errorf("it is nothing like that: %v", lines)
			}
			v.keeps(1000, victims...)
		})
	}
}

// TestFaultJournalRecordDamaged: when the mailboxes have nothing, after a power cut,
// all but the damaged record comes back.
func TestFaultJournalRecordDamaged(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "")
	var damaged int
	v.killedAfter(func() {
		v.accepts(4000, "alice", "bob")
		damaged = v.accepts(4000, "alice")
		v.accepts(300<<10, "alice", "carol")
		v.accepts(100, victims...)
	})
	files, err := filepath.Glob(filepath.Join(v.maildir("*"), "new", "*"))
	if err != nil || len(files) != 8 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	name, content, at := v.segment(damaged)
	scribble(t, name, content, at)
	v.mustStart()
	v.logs("the journal is damaged", name, "lost records")
	v.ledger.setRemoved("alice", []int{damaged}, surely)
	v.keeps(1000, victims...)
}
