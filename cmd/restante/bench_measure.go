package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"

	"restante/cmd/restante/internal/loadgen"
)

// Octets of the messages that are sent, with their header.
const (
	smallMessage = 4 << 10
	largeMessage = 1 << 20
)

const (
	// benchClients is how many clients there are where --connections has no say.
	benchClients = 10
	// benchPipelined commands are sent at once where they are pipelined.
	benchPipelined = 50
)

// Names of measurements, in JSON. Scripts rely on them.
const (
	benchSync       = "disk_sync"
	benchReceive    = "smtp_receive"
	benchLogin      = "pop3_login"
	benchLoginTLS   = "pop3s_login"
	benchFetch      = "pop3_fetch"
	benchFetchPiped = "pop3_fetch_pipelined"
	benchFetchTLS   = "pop3s_fetch"
)

// benchStep is one measurement to take.
type benchStep struct {
	name, what string
	clients    int
	octets     int // of a message or a block, 0 for logins
	prepare    func(context.Context) error
	open       func(ctx context.Context, worker int) (loadgen.Task, error)
}

// measure takes every measurement and writes the report.
func (a *app) measure(ctx context.Context, b *benchServer, o benchOptions, r *benchReport) error {
	if !o.json {
		if err := r.writeHead(a.stdout); err != nil {
			return err
		}
	}
	for _, step := range b.steps(o) {
		if step.prepare != nil {
			if err := step.prepare(ctx); err != nil {
				return err
			}
		}
		plan := loadgen.Plan{Workers: step.clients, Duration: o.duration, Most: step.most(o), Open: step.open}
		result, err := plan.Run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		m := newMeasurement(step, result)
		r.Measurements = append(r.Measurements, m)
		if o.json {
			continue
		}
		if err := m.writeRow(a.stdout); err != nil {
			return err
		}
	}
	if err := r.finish(); err != nil {
		return err
	}
	if o.json {
		return writeJSON(a.stdout, r)
	}
	return r.writeSummary(a.stdout)
}

// most bounds what a step puts on the disk.
func (s benchStep) most(o benchOptions) int {
	if s.name != benchReceive {
		return 1 << 30 // these add nothing
	}
	return int(o.volume()) / s.octets
}

// steps are the measurements in their order: what adds mail comes before what
// reads it.
func (b *benchServer) steps(o benchOptions) []benchStep {
	steps := []benchStep{{
		name: benchSync, what: "write 4 KiB and sync", clients: 1, octets: smallMessage,
		prepare: func(context.Context) error { return settleDisk(b.config.DataDir) },
		open: func(ctx context.Context, _ int) (loadgen.Task, error) {
			return loadgen.OpenSyncs(ctx, filepath.Join(b.config.DataDir, "sync-test"))
		},
	}}
	for _, n := range o.connections {
		steps = append(steps, b.receive("receive 4 KiB", n, smallMessage))
	}
	steps = append(steps, b.receive("receive 1 MiB", benchClients, largeMessage))
	first := len(steps)
	steps = append(steps,
		b.logins(benchLogin, "log in", nil),
		b.logins(benchLoginTLS, "log in, TLS", b.tls),
		b.fetches(benchFetch, "fetch 4 KiB", nil, 1),
		b.fetches(benchFetchPiped, "fetch 4 KiB, pipelined", nil, benchPipelined),
		b.fetches(benchFetchTLS, "fetch 4 KiB, TLS", b.tls, 1))
	steps[first].prepare = b.fill
	return steps
}

func (b *benchServer) receive(what string, clients, size int) benchStep {
	message := loadgen.Message(size)
	return benchStep{
		name: benchReceive, what: what, clients: clients, octets: size, prepare: b.empty,
		open: func(ctx context.Context, worker int) (loadgen.Task, error) {
			return loadgen.OpenSMTP(ctx, b.config.SMTP.Listen[0], benchUser(worker), message)
		},
	}
}

func (b *benchServer) logins(name, what string, secure *tls.Config) benchStep {
	return benchStep{
		name: name, what: what, clients: benchClients,
		open: func(ctx context.Context, worker int) (loadgen.Task, error) {
			return loadgen.OpenLogins(ctx, b.account(worker, secure))
		},
	}
}

func (b *benchServer) fetches(name, what string, secure *tls.Config, batch int) benchStep {
	return benchStep{
		name: name, what: what, clients: benchClients, octets: smallMessage,
		open: func(ctx context.Context, worker int) (loadgen.Task, error) {
			return loadgen.OpenFetch(ctx, b.account(worker, secure), benchWaiting, batch)
		},
	}
}

// account is that of a mailbox which no other worker has open.
func (b *benchServer) account(worker int, secure *tls.Config) loadgen.Account {
	address := b.config.POP3.Listen[0]
	if secure != nil {
		address = b.config.POP3.ListenTLS[0]
	}
	return loadgen.Account{Address: address, TLS: secure, User: benchUser(worker), Password: b.password}
}
