package config

import "strings"

// nearest is the known name that another is most likely a slip of; empty when
// it is like none.
func nearest(name string, known []string) string {
	best, least := "", len(name)/2+1 // half of it may be wrong
	for _, k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if lastPart(name) == lastPart(k) { // in the wrong section
			d = min(d, 1)
		}
		if d < least {
			best, least = k, d
		}
	}
	return best
}

func lastPart(key string) string {
	return key[strings.LastIndexByte(key, '.')+1:]
}

// distance is the number of octets to add, remove or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the prefix of a so far, to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
