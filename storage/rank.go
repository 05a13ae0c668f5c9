package storage

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
)

// rank stands for an entry while entries are sorted: small to move.
type rank struct {
	time uint64
	at   int // among the entries as they were found
}

// rankEntries sorts by time, then by id. The few of one second are compared by
// their names, which are all over the memory.
func rankEntries(entries []entry) []rank {
	ranks := make([]rank, len(entries))
	for i := range entries {
		ranks[i] = rank{time: entries[i].time, at: i}
	}
	ranks = sortByTime(ranks)
	for from := 0; from < len(ranks); {
		to := from + 1
		for to < len(ranks) && ranks[to].time == ranks[from].time {
			to++
		}
		if to > from+1 {
			slices.SortFunc(ranks[from:to], func(a, b rank) int {
				x, y := &entries[a.at], &entries[b.at]
				if c := strings.Compare(x.id(), y.id()); c != 0 {
					return c
				}
				return compareFiles(x, y)
			})
		}
		from = to
	}
	return ranks
}

const (
	radixBits = 11    // of the time, sorted at once: the counts fit into the first cache
	fewRanks  = 1_000 // which are compared faster than counted
)

// sortByTime returns the ranks sorted, in place or in another slice.
func sortByTime(ranks []rank) []rank {
	if len(ranks) < fewRanks {
		slices.SortFunc(ranks, func(a, b rank) int { return cmp.Compare(a.time, b.time) })
		return ranks
	}
	var differing uint64
	for _, r := range ranks {
		differing |= r.time ^ ranks[0].time
	}
	const mask = 1<<radixBits - 1
	other := make([]rank, len(ranks))
	for shift := 0; shift < bits.Len64(differing); shift += radixBits {
		var next [mask + 2]int // where the next rank with these bits goes
		for _, r := range ranks {
			next[r.time>>shift&mask+1]++
		}
		for i := range mask {
			next[i+1] += next[i]
		}
		for _, r := range ranks {
			place := &next[r.time>>shift&mask]
			other[*place] = r
			*place++
		}
		ranks, other = other, ranks
	}
	return ranks
}

// permute puts the entries into the order of their ranks, which it uses up. Large
// mailboxes take as much memory as they are, and not twice that.
func permute(entries []entry, ranks []rank) {
	for first := range ranks {
		moved := entries[first]
		for i := first; ranks[i].at != i; {
			from := ranks[i].at
			ranks[i].at = i
			if from == first {
				entries[i] = moved
			} else {
				entries[i] = entries[from]
			}
			i = from
		}
	}
}
