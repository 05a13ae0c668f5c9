// Package loadgen puts load on a mail server and on a disk, and tells what they
// did: the clients of the command that measures this machine.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// patience is how much longer than its duration a run may take: what is left of
// it is for connecting, and for the things that were begun.
const patience = 30 * time.Second

var errStuck = errors.New("no answer came in time")

// Task is what one worker does again and again. It is used by one goroutine.
type Task interface {
	// Do does it once. It returns how many things were done, and how long the
	// answer took; an answer for several things at once has no such time, 0.
	Do() (done int, wait time.Duration, err error)
	// Close takes leave, unless the context of the task has ended.
	Close() error
}

// Plan says what to do, how many at a time, and for how long.
type Plan struct {
	Workers  int
	Duration time.Duration
	Most     int // things; the run ends there even if there is time left
	// Open makes the task of a worker, counted from 0, and does what is not to
	// be measured. The end of ctx must make the task fail.
	Open func(ctx context.Context, worker int) (Task, error)
}

// Result is what a run did.
type Result struct {
	Done    int
	Elapsed time.Duration
	CPU     time.Duration // of this process, whatever else it did meanwhile
	waits   []time.Duration
}

// Rate is how many things were done in a second.
func (r Result) Rate() float64 { return float64(r.Done) / max(r.Elapsed.Seconds(), 1e-9) }

// CPUEach is the processor time of this process for one thing.
func (r Result) CPUEach() time.Duration { return r.CPU / time.Duration(max(r.Done, 1)) }

// Wait is the time that the share of all answers, as 0.95, came within. It is
// false when no times were taken.
func (r Result) Wait(share float64) (time.Duration, bool) {
	if len(r.waits) == 0 {
		return 0, false
	}
	rank := int(math.Ceil(share * float64(len(r.waits))))
	return r.waits[min(max(rank, 1), len(r.waits))-1], true
}

// Run carries out the plan. It returns the cause when ctx ends first. The first
// task that fails ends all.
func (p Plan) Run(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Duration+patience, errStuck)
	defer cancel()
	var r Result
	tasks, err := p.open(ctx)
	if err == nil {
		r, err = p.work(ctx, tasks)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // it makes tasks fail in many ways
		}
		cancel() // nobody is to take leave of a server that is stuck
		_ = closeAll(tasks)
		return Result{}, err
	}
	return r, closeAll(tasks)
}

func (p Plan) open(ctx context.Context) ([]Task, error) {
	tasks := make([]Task, p.Workers)
	var opening errgroup.Group
	for i := range tasks {
		opening.Go(func() error {
			task, err := p.Open(ctx, i)
			if err == nil {
				tasks[i] = task
			}
			return err
		})
	}
	return tasks, opening.Wait()
}

func closeAll(tasks []Task) error {
	var errs []error
	for _, t := range tasks {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// work lets all tasks begin at the same time.
func (p Plan) work(ctx context.Context, tasks []Task) (Result, error) {
	var (
		done  atomic.Int64
		waits = make([][]time.Duration, len(tasks))
	)
	used, err := cpuTime()
	if err != nil {
		return Result{}, err
	}
	working, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i, task := range tasks {
		working.Go(func() error {
			for ctx.Err() == nil && time.Since(began) < p.Duration && done.Load() < int64(p.Most) {
				n, wait, err := task.Do()
				if err != nil {
					return err
				}
				done.Add(int64(n))
				if wait > 0 {
					waits[i] = append(waits[i], wait)
				}
			}
			return ctx.Err()
		})
	}
	if err := working.Wait(); err != nil {
		return Result{}, err
	}
	r := Result{Done: int(done.Load()), Elapsed: time.Since(began), waits: slices.Concat(waits...)}
	slices.Sort(r.waits)
	now, err := cpuTime()
	r.CPU = now - used
	return r, err
}

// cpuTime is the processor time that this process has used so far.
func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
