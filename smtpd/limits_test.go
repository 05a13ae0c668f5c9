package smtpd

import (
	"strings"
	"testing"
)

func TestLineLength(t *testing.T) {
	line := func(n int) string { return "NOOP " + strings.Repeat("x", n-len("NOOP \r\n")) + "\r\n" }
	for _, test := range []struct{ send, reply string }{
		{line(maxLine), "250"},
		{line(maxLine + 1), "500 5.5.2 Line too long"},
		{line(3 * inBuffer), "500 5.5.2 Line too long"},
		{strings.Repeat("x", 2*maxLine) + "\nQUIT\nQUIT\r\n", "500"},
		{line(maxSkip), "500"},
	} {
		for _, size := range []int{1, 1000, inBuffer} {
			if size == 1 && len(test.send) > inBuffer {
				continue
			}
			lines, _ := converse(t, testConfig(), []byte(test.send+"RSET\r\nQUIT\r\n"), size)
			if len(lines) != 4 || !strings.HasPrefix(lines[1], test.reply) || !strings.HasPrefix(lines[2], "250") {
				t.Errorf("line of %d octets: %q, want %s, 250", len(test.send), lines[1:], test.reply)
			}
		}
	}
	lines, _ := converse(t, testConfig(), []byte(line(2*maxSkip)+"RSET\r\n"), inBuffer)
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "500") || !strings.HasPrefix(lines[2], "421 4.3.4") {
		t.Errorf("endless line: %q", lines)
	}
}

func TestCommandsAreBounded(t *testing.T) {
	config := testConfig()
	limit := config.withDefaults().maxCommands()
	lines, _ := converse(t, config, []byte(strings.Repeat("NOOP\r\n", limit+5)), inBuffer)
	if len(lines) != limit+2 || lines[limit+1] != replyTooManyCommands.line() {
		t.Errorf("%d replies, the last %q", len(lines), lines[len(lines)-1])
	}
	again := "MAIL FROM:<s@s.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n"
	lines, kept := converse(t, config, []byte("HELO c.example\r\n"+strings.Repeat(again, limit)+"QUIT\r\n"), inBuffer)
	if len(kept) != limit || !strings.HasPrefix(lines[len(lines)-1], "221") {
		t.Errorf("%d of %d messages, the last reply %q", len(kept), limit, lines[len(lines)-1])
	}
}

func TestLoop(t *testing.T) {
	for _, test := range []struct {
		hops  int
		reply string
	}{{maxHops, "250"}, {maxHops + 1, "554 5.4.6"}} {
		text := "HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n" +
			strings.Repeat("received: from x\r\n\tby y\r\n", test.hops) + "\r\nReceived: body\r\n.\r\nNOOP\r\n"
		lines, kept := converse(t, testConfig(), []byte(text), inBuffer)
		if len(lines) != 7 || !strings.HasPrefix(lines[5], test.reply) || lines[6] != "250 2.0.0 OK" {
			t.Errorf("%d hops: %q", test.hops, lines)
		}
		if (len(kept) == 1) != (test.reply == "250") {
			t.Errorf("%d hops: delivered %q", test.hops, kept)
		}
	}
}

func TestMailboxesOnce(t *testing.T) {
	text := "HELO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<list@example.org>\r\n" +
		"RCPT TO:<Bob@EXAMPLE.org>\r\nDATA\r\n.\r\n"
	_, kept := converse(t, testConfig(), []byte(text), inBuffer)
	if len(kept) != 1 || strings.Join(kept[0].mailboxes, " ") != "bob@example.org ann@example.org" {
		t.Errorf("delivered %+v", kept)
	}
	if len(kept) == 1 && strings.Contains(kept[0].message, " for ") {
		t.Errorf("recipients in the header: %q", kept[0].message)
	}
}
