package pop3d

import (
	"net/netip"
	"time"
)

// Session is a connection as the owner of the server sees it.
type Session struct {
	ID          string // as in the log
	Client      netip.Addr
	Since       time.Time
	TLS         string // version, "none" in the clear
	Mailbox     string // "" before the login
	AppPassword string // the name of the one that was used
}

// Sessions lists the connections of the moment, in no order.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Session, 0, len(s.conns))
	for c := range s.conns {
		if shown := c.shown.Load(); shown != nil {
			all = append(all, *shown)
		}
	}
	return all
}

// Kick cuts off the connections for which chosen says so, and gives how many they
// were. Nothing is removed that no QUIT asked for.
func (s *Server) Kick(chosen func(Session) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	kicked := 0
	for c := range s.conns {
		if shown := c.shown.Load(); shown != nil && chosen(*shown) {
			c.kicked.Store(true)
			c.cut()
			kicked++
		}
	}
	return kicked
}

// show has Sessions see the connection as it is now.
func (c *conn) show() {
	c.shown.Store(&Session{ID: c.id, Client: c.session.remote, Since: c.started, TLS: c.tlsVersion,
		Mailbox: c.session.login.Mailbox, AppPassword: c.session.login.AppPassword})
}
