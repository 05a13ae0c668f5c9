package storage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestArrangeMany: large mailboxes are sorted in another way than small ones,
// and the order is the same.
func TestArrangeMany(t *testing.T) {
	times := map[string]func(*rand.Rand) uint64{
		"one":     func(*rand.Rand) uint64 { return 1_700_000_000 },
		"few":     func(r *rand.Rand) uint64 { return 1_700_000_000 + r.Uint64N(50) },
		"many":    func(r *rand.Rand) uint64 { return 1_700_000_000 + r.Uint64N(100_000_000) },
		"extreme": func(r *rand.Rand) uint64 { return []uint64{0, 1, 1 << 11, 1 << 33, math.MaxUint64}[r.IntN(5)] },
		"any":     func(r *rand.Rand) uint64 { return r.Uint64() },
	}
	for name, time := range times {
		for _, n := range []int{0, 1, fewRanks - 1, fewRanks, 3 * fewRanks} {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			var entries []entry
			var want []string
			for i := range n {
				base := fmt.Sprintf("%d.M%dP1.mx", time(random), i)
				entries = append(entries, newEntry(base+":2,S", true, uint64(i)))
				want = append(want, base)
			}
			slices.SortFunc(want, compareBases)
			var got []string
			for _, e := range arrange(entries) {
				got = append(got, e.base())
			}
			if !slices.Equal(got, want) {
				t.Errorf("times %q: %d entries are not in the order of a maildrop", name, n)
			}
		}
	}
}
