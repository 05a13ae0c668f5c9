package loadgen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	syncBlock  = 4096
	syncBlocks = 1024
)

// syncer writes a block into a file that has its place on the disk already, and
// waits until the disk says that it is safe: what a log costs at the least.
type syncer struct {
	ctx   context.Context
	file  *os.File
	block []byte
	next  int64
}

// OpenSyncs returns a Task that writes 4 KiB to the new file name and syncs it.
// The file takes 4 MiB.
func OpenSyncs(ctx context.Context, name string) (Task, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	s := &syncer{ctx: ctx, file: f, block: make([]byte, syncBlock)}
	_, err = f.Write(make([]byte, syncBlock*syncBlocks))
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing %s: %w", name, err), f.Close())
	}
	return s, nil
}

func (s *syncer) Do() (int, time.Duration, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	s.block[0]++ // what is written again unchanged might be left out
	if _, err := s.file.WriteAt(s.block, s.next%syncBlocks*syncBlock); err != nil {
		return 0, 0, err
	}
	if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
		return 0, 0, fmt.Errorf("syncing %s: %w", s.file.Name(), err)
	}
	s.next++
	return 1, time.Since(began), nil
}

func (s *syncer) Close() error { return s.file.Close() }
