package auth

import "sync"

const maxAnswers = 4096

// answers keeps what was read from the database until anything in it changes.
// The zero value is empty. It is safe for concurrent use.
type answers[K comparable, V any] struct {
	mu      sync.Mutex
	version version
	kept    map[K]V
}

// get returns what was kept for k, if the present version is still that of it.
func (a *answers[K, V]) get(present version, k K) (v V, ok bool) {
	if !present.known() {
		return v, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.version == present {
		v, ok = a.kept[k]
	}
	return v, ok
}

// put keeps an answer that was read after the version at was taken. When there
// is no room any other makes way.
func (a *answers[K, V]) put(at version, k K, v V) {
	if !at.known() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.version != at || a.kept == nil {
		a.version, a.kept = at, make(map[K]V)
	}
	if len(a.kept) >= maxAnswers {
		for other := range a.kept {
			delete(a.kept, other)
			break
		}
	}
	a.kept[k] = v
}
