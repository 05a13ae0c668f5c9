package storage

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// placing is whether a step puts a file of mail/.tmp into a mailbox.
func placing(st step) bool {
	return st.op == "rename" && strings.Contains(st.file, "/"+draftsDir+"/") && !strings.Contains(st.to, "/"+draftsDir+"/")
}

// TestRewriteKeepsWhatItCannotCopy: messages have to be written again to another file
// system, by copies, and that is full. The files that are there stay, so the next
// checkpoint finds and writes them.
func TestRewriteKeepsWhatItCannotCopy(t *testing.T) {
	v := freshServer(t)
	deliver(t, v.Store, 1, smallMessage, alice)
	v.hooks.beforeSyncFS = func() error {
		v.hooks.beforeSyncFS = nil
		return unix.EIO
	}
	full := true
	v.steps.before = func(_ int, st step) error {
		switch {
		case placing(st):
			return unix.EXDEV
		case full && st.op == "create" && filepath.Base(filepath.Dir(st.file)) == "tmp":
			return unix.ENOSPC
		}
		return nil
	}
	v.checkpoint(context.Background())
	holds(t, "while the disk is full", v.data, alice, smallMessage)
	full = false
	v.checkpoint(context.Background())
	holds(t, "when it has room", v.data, alice, smallMessage)
	if v.checkpointer.journal.Needed() {
		t.Error("the journal forgets nothing")
	}
}
