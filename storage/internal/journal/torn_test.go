package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// contents reads the segments that are there.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, name := range files(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

// tear puts back some of what files had before the last write: sectors, and of those that
// headers and first frames begin with also parts. Files that were removed may be back.
func tear(t *testing.T, rnd *rand.Rand, before, after map[string][]byte) {
	t.Helper()
	which := rnd.IntN(4)
	for name, old := range before {
		b := after[name]
		if b == nil {
			b = old
		}
		for at := 0; at+sector <= min(len(old), len(b)); at += sector {
			if which == 0 || which == 1 && at < block || which == 2 && at >= block || which == 3 && rnd.IntN(2) == 0 {
				keep := 0
				if (at == 0 || at == block) && rnd.IntN(2) == 0 {
					keep = rnd.IntN(80)
				}
				copy(b[at+keep:at+sector], old[at+keep:])
			}
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoAreNotTorn: when more than one file seems to be torn, it was no power cut, and
// all are kept.
func TestTwoAreNotTorn(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	one := add(t, j, "one")
	free := []int{j.free[0].slot, j.free[1].slot}
	shut(t, j)
	for _, slot := range free {
		change(t, segmentFile(dir, slot), func(b []byte) { copy(b, segmentMagic) })
	}
	j = open(t, dir, Options{Damaged: func(error) {}})
	wantReplay(t, j, fmt.Sprintf("%d one", one))
	shut(t, j)
	for _, slot := range free {
		if _, err := os.Stat(filepath.Join(dir, fmt.Sprint(unreadablePrefix, slot))); err != nil {
			t.Error(err)
		}
	}
}

// TestTears: power cuts tear the last write of a journal, time and again. That may be
// there as a whole or not at all, all before it is there, and no file is taken for one
// that has lost acknowledged records.
func TestTears(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		var want, torn []string
		for life := range 25 {
			j := open(t, dir, Options{Damaged: func(err error) {
				if !strings.Contains(err.Error(), "is now "+tornName) {
					t.Errorf("seed %d, life %d: %v", seed, life, err)
				}
			}})
			got := replayed(t, j)
			if !slices.Equal(got, want) && !slices.Equal(got, append(want, torn...)) {
				t.Fatalf("seed %d, life %d: replayed %.20q, want %.20q and maybe %.20q", seed, life, got, want, torn)
			}
			want = got
			record := func() []string {
				text := fmt.Sprint(rnd.Uint32(), strings.Repeat(".", rnd.IntN(3)*rnd.IntN(5000)))
				return []string{fmt.Sprintf("%d %.20s", add(t, j, text), text)}
			}
			for range 1 + rnd.IntN(4) {
				want = append(want, record()...)
				if rnd.IntN(3) == 0 || len(j.chain) > 4 {
					if err := j.Checkpoint(j.Last()); err != nil {
						t.Fatal(err)
					}
					want = nil
				}
				j.chain[len(j.chain)-1].stuck = rnd.IntN(2) == 0
			}
			before := contents(t, dir)
			torn = record()
			after := contents(t, dir)
			shut(t, j)
			for name, b := range after {
				if bytes.Equal(b, before[name]) {
					delete(before, name) // it was not written
				}
			}
			tear(t, rnd, before, after)
		}
		if kept, _ := filepath.Glob(filepath.Join(dir, unreadablePrefix+"*")); len(kept) > 1 {
			t.Errorf("kept %q", kept)
		}
	}
}
