package journal

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"restante/storage/internal/stable"
)

// BenchmarkAppend appends records of 4.6 KiB. Without sync it shows the cost of
// the code; with it that of the disk of the directory for temporary files.
func BenchmarkAppend(b *testing.B) {
	for name, sync := range map[string]func(*os.File) error{
		"unsynced": func(*os.File) error { return nil },
		"synced":   stable.Data,
	} {
		for _, workers := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("%s/%d", name, workers), func(b *testing.B) { benchmarkAppend(b, sync, workers) })
		}
	}
}

func benchmarkAppend(b *testing.B, toDisk func(*os.File) error, workers int) {
	var syncs atomic.Int64
	j, err := Open(b.TempDir(), Options{Sync: func(f *os.File) error {
		syncs.Add(1)
		return toDisk(f)
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	ended, checkpoints := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(checkpoints)
		for {
			select {
			case <-ended:
				return
			case <-j.Pressure():
			}
			seq, err := j.Settled(b.Context())
			if err == nil {
				err = j.Checkpoint(seq)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	}()
	head, body := make([]byte, 100), make([]byte, 4600)
	b.SetBytes(int64(len(head) + len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	var taken atomic.Int64
	for range workers {
		wg.Go(func() {
			for taken.Add(1) <= int64(b.N) {
				_, applied, err := j.Append(head, body)
				if err != nil {
					b.Error(err)
					return
				}
				applied()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/op")
	close(ended)
	<-checkpoints
}
