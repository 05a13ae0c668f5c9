package smtpd

import (
	"net/netip"
	"time"
)

// Session is a connection as the owner of the server sees it.
type Session struct {
	ID       string // as in the log
	Client   netip.Addr
	Since    time.Time
	TLS      string // version, "none" in the clear
	Helo     string // the name that the client gave, "" before that
	Messages int    // accepted so far
}

// Sessions lists the connections of the moment, in no order.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Session, 0, len(s.wires))
	for w := range s.wires {
		if shown := w.shown.Load(); shown != nil {
			all = append(all, *shown)
		}
	}
	return all
}

// Kick cuts off the connections for which chosen says so, and gives how many they
// were. A message that is not answered yet is not delivered, except for one that
// just became durable.
func (s *Server) Kick(chosen func(Session) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	kicked := 0
	for w := range s.wires {
		if shown := w.shown.Load(); shown != nil && chosen(*shown) {
			w.raw.Close()
			kicked++
		}
	}
	return kicked
}

// show has Sessions see the connection as it is now.
func (w *wire) show() {
	w.shown.Store(&Session{ID: w.id, Client: w.remote, Since: w.began, TLS: w.tlsVersion(), Helo: clip(w.helo), Messages: w.messages})
}
