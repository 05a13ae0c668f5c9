package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const crashDataDir = "RESTANTE_TEST_CRASH_DIR"

// crashJournal makes the child deliver as the server does.
const crashJournal = "RESTANTE_TEST_CRASH_JOURNAL"

// TestCrashingProcess is not a test but the process that TestCrash kills: it
// delivers without end and tells which messages it has delivered.
func TestCrashingProcess(t *testing.T) {
	dir := os.Getenv(crashDataDir)
	if dir == "" {
		t.Skip("only as a child of TestCrash")
	}
	s := openStoreAt(t, dir)
	if os.Getenv(crashJournal) != "" {
		if _, err := s.LockServer(); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; ; n++ {
		deliver(t, s, n, crashMessage(n), threeBoxes...)
		fmt.Printf("delivered %d\n", n)
	}
}

func crashMessage(n int) string {
	return fmt.Sprintf("Subject: %d\r\n\r\n%s", n, strings.Repeat("some more text\r\n", n*50))
}

// TestCrash kills a process in the middle of its deliveries. Everything it said
// it had delivered is there and whole, what else is there is whole too, and
// nothing is left of the draft.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		rounds  int
		journal string
	}{{1, ""}, {7, ""}, {25, ""}, {1, "yes"}, {7, "yes"}, {25, "yes"}} {
		_, data := openStore(t)
		delivered := crashAfter(t, data, c.rounds, c.journal)
		s := openStoreAt(t, data)
		release, err := s.LockServer()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range threeBoxes {
			m := openDrop(t, s, name)
			got := contents(t, m)
			slices.SortFunc(got, func(a, b string) int { return len(a) - len(b) })
			if len(got) < delivered || len(got) > delivered+1 {
				t.Errorf("%s has %d messages, %d were delivered", name, len(got), delivered)
			}
			for n, g := range got {
				if g != crashMessage(n) {
					t.Errorf("%s: message %d is %q", name, n, g)
				}
			}
		}
		if left := filesIn(t, filepath.Join(data, "mail", draftsDir)); len(left) > 0 {
			t.Errorf("drafts left: %q", left)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
}

// crashAfter runs a process that delivers, and kills it when it has delivered
// that many messages or a few more. It returns how many those were.
func crashAfter(t *testing.T, data string, rounds int, journal string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashingProcess$")
	cmd.Env = append(os.Environ(), crashDataDir+"="+data, crashJournal+"="+journal)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	delivered := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "delivered ") {
			t.Errorf("child says %q", lines.Text())
			continue
		}
		if delivered++; delivered == rounds {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("child ended by itself")
	}
	return delivered
}

// TestManyHands lets deliveries, sessions, a reader that moves what is new,
// sweeps and statistics run at the same time. Every message is fetched once.
func TestManyHands(t *testing.T) {
	s, data := openStore(t)
	if err := s.CreateMailbox(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	const senders, each = 4, 40
	var sending, others sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for k := range each {
				deliver(t, s, i*each+k, fmt.Sprintf("message %d\n", i*each+k), alice)
			}
		})
	}
	done := make(chan struct{})
	busy := func(what func()) {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					what()
				}
			}
		})
	}
	box := boxDir(data, alice)
	busy(func() { moveNew(box) })
	busy(func() {
		if err := s.Sweep(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := s.Stat(context.Background(), alice); err != nil {
			t.Error(err)
		}
	})
	fetched := make(map[string]int)
	busy(func() { fetchAll(t, s, fetched) })
	sending.Wait()
	close(done)
	others.Wait()
	fetchAll(t, s, fetched)
	for text, n := range fetched {
		if n != 1 {
			t.Errorf("%q was fetched %d times", text, n)
		}
	}
	if len(fetched) != senders*each {
		t.Errorf("%d of %d messages were fetched", len(fetched), senders*each)
	}
}

// moveNew does what a reader does to new mail. Files may vanish under it.
func moveNew(box string) {
	entries, _ := os.ReadDir(box + "/new")
	for _, e := range entries {
		_ = os.Rename(box+"/new/"+e.Name(), box+"/cur/"+e.Name()+":2,")
		_ = os.Rename(box+"/cur/"+e.Name()+":2,", box+"/cur/"+e.Name()+":2,S")
	}
}

// fetchAll reads and removes all messages. A reader may hide some at that time.
func fetchAll(t *testing.T, s *Store, fetched map[string]int) {
	m, err := s.OpenMaildrop(context.Background(), alice)
	if err != nil {
		t.Error(err)
		return
	}
	defer m.Close()
	var idx []int
	for i := range m.Len() {
		r, err := m.Message(i)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		text, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Error(err)
		}
		fetched[string(text)]++
		idx = append(idx, i)
	}
	if n, err := m.Remove(context.Background(), idx); n != len(idx) || err != nil {
		t.Errorf("removed %d of %d, %v", n, len(idx), err)
	}
}
