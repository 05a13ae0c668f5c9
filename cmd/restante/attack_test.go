package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests of the files attack_*.go do to the program what is done to servers on
// the open internet, and see that nothing comes of it.

// tolerant lifts the limits that would end an attack before all its forms are tried.
func tolerant(env ...string) serverOptions {
	return serverOptions{env: append([]string{"RESTANTE_LIMITS_PAUSE=0s", "RESTANTE_SMTP_MAX_ERRORS=10000", "RESTANTE_SMTP_MAX_REFUSED=10000",
		"RESTANTE_SMTP_MAX_COMMANDS=1000000"}, env...)}
}

// allow gives the connection more time.
func (d *caller) allow(t time.Duration) {
	d.t.Helper()
	if err := d.conn.SetDeadline(time.Now().Add(t)); err != nil {
		d.t.Fatal(err)
	}
}

// sentinel is a command that no attack uses, so that its answer is known.
const sentinel, sentinelAnswer = "VRFY sentinel", "252 "

// replies gives the last lines of the replies to all that was sent; nothing may be
// under way but them. The sentinel's is not among them.
func (d *caller) replies() (lines []string) {
	d.t.Helper()
	d.write(sentinel + "\r\n")
	for {
		line := d.ask("")
		if strings.HasPrefix(line, sentinelAnswer) {
			return lines
		}
		lines = append(lines, line)
	}
}

// codes are the first words of replies.
func codes(lines []string) string {
	var all []string
	for _, line := range lines {
		all = append(all, line[:3])
	}
	return strings.Join(all, " ")
}

// segments sends each piece when the server has read the one before.
func (d *caller) segments(pieces ...string) {
	d.t.Helper()
	for _, piece := range pieces {
		d.write(piece)
		conn := d.conn
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		eventually(d.t, "the server reads", func() bool { return unread(d.t, conn) == 0 })
	}
}

// unread is how many octets of what came over IPv4 the other end of a connection
// has not read yet.
func unread(t *testing.T, conn net.Conn) (octets int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skip(err)
	}
	ends := kernelName(t, conn.RemoteAddr()) + " " + kernelName(t, conn.LocalAddr()) // as the other has them
	_, line, found := strings.Cut(string(table), ends)
	if !found {
		return 0 // it is closed
	}
	var state, sending int
	if _, err := fmt.Sscanf(line, "%x %x:%x", &state, &sending, &octets); err != nil {
		t.Fatalf("%.60q: %v", line, err)
	}
	return octets
}

// kernelName is an address as /proc/net/tcp has it.
func kernelName(t *testing.T, a net.Addr) string {
	t.Helper()
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		t.Fatalf("%v is no IPv4 address", a)
	}
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

// treeNames are the mailboxes of the only domain that there is on the disk.
func treeNames(t *testing.T, dir string) (mailboxes []string) {
	t.Helper()
	mail := filepath.Join(dir, "data", "mail")
	for _, place := range []struct {
		dir  string
		want []string
	}{{mail, []string{".tmp", testDomain}}, {filepath.Join(mail, ".tmp"), nil}} {
		if got := names(t, place.dir); !slices.Equal(got, place.want) {
			t.Errorf("%q in %s, not %q", got, place.dir, place.want)
		}
	}
	return names(t, filepath.Join(mail, testDomain))
}

// names are those in a directory, sorted.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
