package smtpd

import (
	"slices"
	"testing"
	"time"
)

func TestMessageIDsOfOneSecondSortByTime(t *testing.T) {
	second := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var ids []string
	for _, us := range []int{0, 1, 15, 16, 4095, 4096, 65535, 65536, 524288, 999999} {
		for range 20 {
			ids = append(ids, newMessageID(second.Add(time.Duration(us) * time.Microsecond))[:4])
		}
	}
	if !slices.IsSorted(ids) {
		t.Errorf("not in order: %v", ids)
	}
	if a, b := newMessageID(second), newMessageID(second); a == b || len(a) != 16 || len(b) != 16 {
		t.Errorf("two ids of one moment: %s and %s", a, b)
	}
}
