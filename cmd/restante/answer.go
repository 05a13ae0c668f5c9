package main

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"strings"
	"time"

	"restante/cmd/restante/internal/control"
	"restante/pop3d"
	"restante/smtpd"
)

// answers is the server as the control socket asks it.
type answers struct{ s *server }

func (a answers) Status(ctx context.Context) control.Status {
	status := control.Status{
		Version: version(), PID: os.Getpid(), Since: a.s.since, Hostname: a.s.config.Hostname, DataDir: a.s.config.DataDir,
		Listening: []control.Listener{},
		Open:      map[string]int{"smtp": len(a.s.smtp.Sessions()), "pop3": len(a.s.pop3.Sessions())},
		Refused:   map[string]int{},
	}
	for _, l := range a.s.listeners {
		status.Listening = append(status.Listening, control.Listener{Protocol: string(l.protocol), Address: l.Addr().String()})
	}
	for protocol, l := range a.s.limiters {
		status.Refused[protocol] = int(l.Refused())
	}
	for _, b := range a.Bans() {
		if b.Refused {
			status.Bans++
		}
	}
	if err := a.s.ready(ctx); err != nil {
		status.Trouble = err.Error()
	}
	return status
}

func (a answers) Sessions() []control.Session {
	all := []control.Session{}
	for _, v := range a.s.smtp.Sessions() {
		all = append(all, control.Session{ID: v.ID, Protocol: "smtp", Client: clientName(v.Client), Since: v.Since, TLS: v.TLS, Helo: v.Helo, Messages: v.Messages})
	}
	for _, v := range a.s.pop3.Sessions() {
		all = append(all, control.Session{ID: v.ID, Protocol: "pop3", Client: clientName(v.Client), Since: v.Since, TLS: v.TLS, User: v.Mailbox, AppPassword: v.AppPassword})
	}
	return all
}

func clientName(addr netip.Addr) string {
	if !addr.IsValid() {
		return "-"
	}
	return addr.WithZone("").String()
}

func (a answers) Kick(who string) int {
	n := a.s.smtp.Kick(func(v smtpd.Session) bool { return who == v.ID || who == clientName(v.Client) })
	n += a.s.pop3.Kick(func(v pop3d.Session) bool {
		return who == v.ID || who == clientName(v.Client) || v.Mailbox != "" && strings.EqualFold(who, v.Mailbox)
	})
	a.s.log.Info("sessions ended by the owner of the server", "of", who, "sessions", n)
	return n
}

func (a answers) Bans() []control.Ban {
	all, now := []control.Ban{}, time.Now()
	for _, b := range a.s.users.Bans() {
		ban := control.Ban{Kind: b.Kind, Name: b.Name, Failures: math.Round(b.Failures*10) / 10, Refused: now.Before(b.Until)}
		if !b.Until.IsZero() {
			ban.Until = &b.Until
		}
		all = append(all, ban)
	}
	return all
}

func (a answers) ClearBans(who string) int {
	n := a.s.users.ClearBans(who)
	a.s.log.Info("failed logins forgotten", "of", who, "entries", n)
	return n
}

func (a answers) ClearAllBans() int {
	n := a.s.users.ClearAllBans()
	a.s.log.Info("failed logins forgotten", "of", "everybody", "entries", n)
	return n
}

// listenControl opens the control socket. Without it mail goes on all the same.
func (s *server) listenControl() {
	c, err := control.Listen(s.config.DataDir, answers{s}, s.log)
	if err != nil {
		s.log.Error("commands to the running server are not possible", "error", err)
		return
	}
	s.control = c
	s.closers = append(s.closers, c.Close)
}

// serveControl answers until the server is closed.
func (s *server) serveControl(ctx context.Context) {
	if s.control == nil {
		return
	}
	go func() {
		<-ctx.Done()
		_ = s.control.Close()
	}()
	if err := s.control.Serve(); err != nil && !errors.Is(err, context.Canceled) {
		s.log.Error("commands to the running server are not possible any more", "error", err)
	}
}
