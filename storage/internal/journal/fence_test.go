package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
)

// refuser fails to write frames while it is broken; a new segment can be made.
type refuser struct{ broken bool }

func (r *refuser) write(f *os.File, p []byte, off int64) error {
	if r.broken && bytes.Count(p, zeros[:1]) < len(p) {
		return errFault
	}
	_, err := f.WriteAt(p, off)
	return err
}

// refuse has a record, or a checkpoint, refused.
func (r *refuser) refuse(t *testing.T, call func() error) {
	t.Helper()
	r.broken = true
	if err := call(); !errors.Is(err, errFault) {
		t.Fatalf("it ended with %v, want %v", err, errFault)
	}
	r.broken = false
}

// TestFencesDoNotFill: faults one after the other, each with its fence, leave the
// journal no fuller than one does, be it that a checkpoint has succeeded before, that
// none was needed, or that it is checkpoints that fail.
func TestFencesDoNotFill(t *testing.T) {
	for name, before := range map[string]func(j *Journal) error{
		"nothing": func(*Journal) error { return nil },
		"a checkpoint": func(j *Journal) error {
			return j.Checkpoint(add(t, j, "one"))
		},
		"a record that is needed": func(j *Journal) error {
			add(t, j, "one")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := &refuser{}
			j := open(t, dir, Options{MaxSegments: 4, Write: r.write})
			if err := before(j); err != nil {
				t.Fatal(err)
			}
			last := j.Last()
			for i := range 20 {
				r.refuse(t, func() error {
					if j.record > 0 && j.record > j.checkpoint {
						return j.Checkpoint(last)
					}
					_, _, err := j.Append([]byte("refused"))
					return err
				})
				if err := j.Fence(); err != nil {
					t.Fatal(err)
				}
				if len(j.chain) > 2 {
					t.Fatalf("%d segments in use after %d faults", len(j.chain), i+1)
				}
			}
			last = add(t, j, "more")
			wantReplay(t, j, fmt.Sprintf("%d more", last))
			if err := j.Checkpoint(j.Last()); err != nil {
				t.Fatal(err)
			}
			shut(t, j)
			j = open(t, dir, Options{})
			wantReplay(t, j)
			if j.Last() < last || j.Needed() {
				t.Errorf("Last() = %d, want %d or more; a checkpoint is needed: %t", j.Last(), last, j.Needed())
			}
			shut(t, j)
		})
	}
}

// TestFencesAreGivenBack: a journal that is full of fences, as they were once written,
// asks for a checkpoint, also after a restart, and that gives all of them back.
func TestFencesAreGivenBack(t *testing.T) {
	for name, restart := range map[string]bool{"same process": false, "next one": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := &refuser{}
			o := Options{MaxSegments: 4, Write: r.write}
			j := open(t, dir, o)
			if err := j.Checkpoint(add(t, j, "one")); err != nil {
				t.Fatal(err)
			}
			for len(j.chain) <= o.MaxSegments {
				r.refuse(t, func() error { return j.appendCheckpoint(1) })
				if err := j.appendCheckpoint(1); err != nil {
					t.Fatal(err)
				}
			}
			if restart {
				shut(t, j)
				j = open(t, dir, o)
			}
			if !j.Needed() {
				t.Error("no checkpoint is needed")
			}
			if err := j.Checkpoint(j.Last()); err != nil {
				t.Fatal(err)
			}
			if len(j.chain) > 1 || j.Needed() {
				t.Errorf("%d segments in use, a checkpoint is needed: %t", len(j.chain), j.Needed())
			}
			add(t, j, "two")
			shut(t, j)
		})
	}
}
