package auth

import (
	"testing"
	"time"
)

// TestRest: to save takes a small part of the time, and a disk that hung does not keep
// failed logins from being saved for hours.
func TestRest(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: 0, 100 * time.Millisecond: 2 * time.Second, 3 * time.Second: time.Minute, 10 * time.Second: time.Minute, time.Hour: time.Minute,
	} {
		if got := restAfter(took); got != want {
			t.Errorf("after %v it rests for %v, want %v", took, got, want)
		}
	}
}
