package certs

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// stamp tells one state of a file from later ones.
type stamp struct {
	inode    uint64
	size     int64
	modified int64
	changed  int64
	trouble  string // why there is no more to tell
}

// stamps of all files of the pairs. Links are followed: programs that renew
// certificates change where a link leads.
func stamps(pairs []Pair) []stamp {
	all := make([]stamp, 0, 2*len(pairs))
	for _, p := range pairs {
		for _, name := range []string{p.Certificate, p.Key} {
			var st unix.Stat_t
			var s stamp
			if err := unix.Stat(name, &st); err != nil {
				s.trouble = err.Error()
			} else {
				s = stamp{inode: st.Ino, size: st.Size, modified: st.Mtim.Nano(), changed: st.Ctim.Nano()}
			}
			all = append(all, s)
		}
	}
	return all
}

// Refresh is to be called now and then. It reads the files anew when they have
// changed since they were read, and not since the last call: whoever renews a
// certificate writes two files. It reports whether other certificates are used
// now. On an error they stay as they were, and the same files are not tried again.
func (m *Manager) Refresh() (changed bool, err error) {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	files := m.files(m.pairs)
	if len(files) == 0 {
		files = []Pair{m.self.pair()}
	}
	found := stamps(files)
	settled := slices.Equal(found, m.found)
	m.found = found
	if !settled || slices.Equal(found, m.tried) {
		return false, nil
	}
	if err := m.read(m.pairs); err != nil {
		m.tried = found
		return false, fmt.Errorf("changed on disk, but cannot be used: %w", err)
	}
	return true, nil
}
