package smtpd

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRefusalsFade(t *testing.T) {
	r := newRefusals()
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	addr := netip.MustParseAddr
	for range 80 {
		r.add(addr("192.0.2.7"))
	}
	for range 16 {
		r.add(addr("2001:db8:1:2::7"))
	}
	for _, test := range []struct {
		wait   time.Duration
		client string
		want   float64
	}{
		{0, "192.0.2.7", 80},
		{0, "192.0.2.8", 80. / networkShare}, // its network
		{0, "192.0.3.7", 0},
		{0, "2001:db8:1:2::8", 16}, // the same /64
		{0, "2001:db8:1:3::7", 16. / networkShare},
		{0, "2001:db8:2::7", 0},
		{refusalsFade, "192.0.2.7", 40},
		{refusalsFade, "192.0.2.7", 20},
		{-time.Hour, "192.0.2.7", 80}, // the clock was put back
	} {
		now = now.Add(test.wait)
		if got := r.of(addr(test.client)); got != test.want {
			t.Errorf("%s after %v: %v, want %v", test.client, test.wait, got, test.want)
		}
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals()
	r.max = 100
	bad := netip.MustParseAddr("192.0.2.7")
	for range 50 {
		r.add(bad)
	}
	for i := range 10_000 { // of one network, which has the most then
		r.add(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, byte(i >> 8), byte(i)}))
	}
	if len(r.tally) > r.max {
		t.Errorf("%d are remembered", len(r.tally))
	}
	if got := r.of(bad); got < 49 {
		t.Errorf("the worst has %v left", got)
	}
}

// comes plays a connection that asks for n names that are not there, and gives its replies.
func comes(s *Server, from string, n int) []string {
	conn := &canned{pieces: []string{"HELO client.example\r\n", "MAIL FROM:<s@sender.example>\r\n"}}
	for i := range n {
		conn.pieces = append(conn.pieces, fmt.Sprintf("RCPT TO:<name%d@example.org>\r\n", i))
	}
	return conn.playFrom(s, from)
}

// playFrom is play from an address.
func (c *canned) playFrom(s *Server, from string) []string {
	c.rounds, c.closed = 1, make(chan struct{})
	_ = s.Serve(&once{conn: fromAfar{c, from}})
	<-c.closed
	return strings.Split(strings.TrimSuffix(c.out.String(), "\r\n"), "\r\n")
}

type fromAfar struct {
	*canned
	from string
}

func (f fromAfar) RemoteAddr() net.Addr { return tcp(f.from) }
func (f fromAfar) LocalAddr() net.Addr  { return tcp("203.0.113.1") }

// TestConnectAnew: who tries names and comes again is slowed down from the first on,
// then not heard. Others are.
func TestConnectAnew(t *testing.T) {
	config := testConfig()
	config.MaxRefused = 10
	config.Pause = 3 * time.Millisecond
	config.Exempt = func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.7") }
	s := NewServer(config, users{}, &memory{}, nil)
	const far = farOver * 10
	for i := range far / 5 {
		if got := comes(s, "192.0.2.7", 5); !strings.HasPrefix(got[len(got)-1], "550 ") {
			t.Fatalf("connection %d: %q", i, got)
		}
	}
	began := time.Now()
	got := comes(s, "192.0.2.9", 1) // a neighbour: the pause of some refusals
	if took := time.Since(began); took < (far/networkShare-freeErrors)*config.Pause || !strings.HasPrefix(got[len(got)-1], "550 ") {
		t.Errorf("a neighbour's first refusal after %v: %q", took, got)
	}
	if got := comes(s, "192.0.2.7", 5); len(got) != 4 || !strings.HasPrefix(got[3], "421 4.7.0 Too many refused") {
		t.Errorf("one too many: %q", got)
	}
	for what, want := range map[string]string{"192.0.2.7": "421 4.7.0 ", "192.0.2.8": "220 ", "198.51.100.1": "220 "} {
		if got := comes(s, what, 0); !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: %q", what, got)
		}
	}
	for _, free := range []string{"198.51.100.7", "127.0.0.1"} {
		for range far {
			comes(s, free, 2)
		}
		if got := comes(s, free, 1); !strings.HasPrefix(got[len(got)-1], "550 ") {
			t.Errorf("%s: %q", free, got)
		}
	}
}

// TestRefusedMail: the recipients that a client sends together with a MAIL that is refused
// are no errors of its, however many; those it sends after a RSET are.
func TestRefusedMail(t *testing.T) {
	config := testConfig()
	config.MaxRefused, config.MaxErrors, config.MaxMessageSize = 10, 15, 1000
	many := strings.Repeat("RCPT TO:<ann@example.org>\r\n", 50)
	for _, mail := range []string{"MAIL FROM:<s@sender.example> SIZE=1001", "MAIL FROM:s@@sender.example", "MAIL FROM:<s@sender.example> X=Y"} {
		s := NewServer(config, users{}, &memory{}, nil)
		next := "MAIL FROM:<s@sender.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
		conn := &canned{pieces: []string{"EHLO client.example\r\n", mail + "\r\n" + many + "DATA\r\n" + next}}
		got := conn.playFrom(s, "192.0.2.7")
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, "354 ") }) {
			t.Errorf("%s: the next message is not taken: %q", mail, got)
		}
		if n := s.refusals.of(netip.MustParseAddr("192.0.2.7")); n != 0 {
			t.Errorf("%s: the address has %v against it", mail, n)
		}
		conn = &canned{pieces: []string{"EHLO client.example\r\n", mail + "\r\nRSET\r\n" + many}}
		if got := conn.playFrom(s, "192.0.2.7"); got[len(got)-1] != replyTooManyErrors.line() {
			t.Errorf("%s, RSET: %q", mail, got)
		}
	}
}

// TestErrorsAreNoNames: recipients that come without a sender, or are malformed, are
// errors of this connection, and nobody is turned away for them later.
func TestErrorsAreNoNames(t *testing.T) {
	config := testConfig()
	config.MaxRefused, config.MaxErrors = 10, 15
	for what, test := range map[string]struct{ mail, rcpt, reply string }{
		"without MAIL":     {"NOOP", "RCPT TO:<ann@example.org>", "503 "},
		"malformed":        {"MAIL FROM:<s@sender.example>", "RCPT TO:ann@@example.org", "501 "},
		"with a parameter": {"MAIL FROM:<s@sender.example>", "RCPT TO:<ann@example.org> X=Y", "555 "},
		"no address":       {"MAIL FROM:<s@sender.example>", "RCPT TO:<bad@example.org>", "553 5.1.3 "},
		"needs SMTPUTF8":   {"MAIL FROM:<s@sender.example>", "RCPT TO:<jürgen@example.org>", "553 5.6.7 "},
	} {
		s := NewServer(config, users{}, &memory{}, nil)
		for range 2 * farOver {
			conn := &canned{pieces: []string{"EHLO client.example\r\n", test.mail + "\r\n" + strings.Repeat(test.rcpt+"\r\n", 20)}}
			got := conn.playFrom(s, "192.0.2.7")
			if last := got[len(got)-1]; !strings.HasPrefix(got[len(got)-2], test.reply) || last != replyTooManyErrors.line() {
				t.Fatalf("%s: %q", what, got)
			}
		}
		if got := s.refusals.of(netip.MustParseAddr("192.0.2.7")); got != 0 {
			t.Errorf("%s: the address has %v against it", what, got)
		}
	}
}

func BenchmarkRefusals(b *testing.B) {
	r := newRefusals()
	for i := range maxTallies {
		r.add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	client := netip.MustParseAddr("192.0.2.7")
	b.Run("of", func(b *testing.B) {
		for b.Loop() {
			r.of(client)
		}
	})
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			r.add(client)
		}
	})
}
