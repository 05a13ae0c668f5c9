package smtpd

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What follows is about clients that no mail server would be.

const (
	freeErrors = 3  // before replies are held back
	maxPauses  = 10 // times Config.Pause
	rateGrace  = time.Minute
)

// browsers are the verbs of HTTP. Whoever says one is a program that was led here
// to say something for somebody else.
var browsers = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true, "CONNECT": true, "PATCH": true,
	"TRACE": true, "PRI": true,
}

// spoken tells whether the client has said something before the greeting, for
// which it had to wait (RFC 5321 section 3.1).
func (w *wire) spoken() bool {
	if w.config.GreetingPause > 0 {
		w.until = time.Now().Add(w.config.GreetingPause)
		return w.in.more() == nil
	}
	raw, ok := w.raw.(syscall.Conn)
	if !ok {
		return false
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = control.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err == nil && n > 0
}

// hurried tells whether the client has sent more before it had the answer to its
// first greeting, which must be the last of a group (RFC 2920 section 3.1): before that
// answer nobody can know that there are groups.
func (w *wire) hurried() bool {
	return w.config.RejectHurried && w.helo == "" && w.tls == nil && len(w.in.bytes()) > 0
}

// hangUp makes r the last reply.
func (w *wire) hangUp(r reply) string {
	w.log.Info("connection ended by the server", "reply", r.line())
	w.answer(r)
	w.cut, w.closing = true, true
	return ""
}

// forged tells whether a client from elsewhere calls itself by our name or address. One
// of a private network may be this very machine: containers and routers change addresses.
func (w *wire) forged(name string) bool {
	if !w.config.RejectOwnName || !w.remote.IsValid() || isNear(w.remote) {
		return false
	}
	local := addrOf(w.raw.LocalAddr())
	if w.remote == local {
		return false
	}
	if ip, ok := parseLiteral(name); ok {
		return ip == local && !isOurs(w.remote)
	}
	ours := w.config.Hostname != "localhost" && strings.EqualFold(strings.TrimSuffix(name, "."), w.config.Hostname)
	return ours && !isOurs(w.remote)
}

// shared is what providers have behind their routers (RFC 6598), and private networks
// of machines far apart.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// isNear tells whether an address cannot be of the world.
func isNear(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// isOurs tells whether this machine has the address. Nothing is sent. To list the
// addresses takes a kind of socket that the server may be denied. Where the system lets
// programs bind any address (ip_nonlocal_bind), it cannot be told, and each is taken for
// one of this machine: it could be.
func isOurs(a netip.Addr) bool {
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return false
	}
	return probe.Close() == nil
}

// tire holds the next replies back, the longer the more errors there were, so that
// to try names or commands takes its time. The connection may end meanwhile, and the
// pause ends when the server stops.
func (w *wire) tire(failures int) {
	pause := w.config.Pause * time.Duration(min(failures-freeErrors, maxPauses))
	if pause <= 0 || w.flush() != nil {
		return
	}
	select {
	case <-time.After(pause):
	case <-w.server.leaving:
	}
}

// slowest is when a message that comes at the least rate has come so far.
func (w *wire) slowest() time.Time {
	if w.config.MinRate <= 0 {
		return w.until
	}
	most := float64(w.config.MessageTimeout) / float64(time.Second)
	seconds := min(float64(w.received)/float64(w.config.MinRate), most)
	return w.messageBegan.Add(rateGrace + time.Duration(seconds*float64(time.Second)))
}
