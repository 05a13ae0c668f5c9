package pop3d

import (
	"bufio"
	"log/slog"
	"strconv"
)

// The three ways a reply begins (RFC 1939 section 3, RFC 5034 section 4).
const (
	positive     = "+OK"
	negative     = "-ERR"
	continuation = "+"
)

// Response codes (RFC 2449 section 8, RFC 3206).
const (
	codeInUse      = "IN-USE"
	codeAuth       = "AUTH"
	codeLoginDelay = "LOGIN-DELAY"
	codeSysTemp    = "SYS/TEMP"
)

// reply is what a command handler decides. The connection's loop writes it,
// logs its event and acts on its next state.
type reply struct {
	status string
	code   string // response code, without brackets
	text   string
	// body writes the lines after the first, byte-stuffed, without the
	// terminating dot; nil for a single-line reply. It is called exactly once.
	body  func(w *bufio.Writer) error
	next  state // same: the state does not change
	fault bool  // the client's own error, counted against Config.MaxErrors
	event *event
}

// event is a line for the log.
type event struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

func okay(text string) reply { return reply{status: positive, text: text} }

// refuse answers an error of the client.
func refuse(text string) reply { return reply{status: negative, text: text, fault: true} }

// trouble answers an error of ours: the cause is for the log, not for the client.
func trouble(text string, err error, attrs ...slog.Attr) reply {
	return reply{
		status: negative, code: codeSysTemp, text: text,
		event: &event{slog.LevelError, text, append(attrs, slog.Any("error", err))},
	}
}

// write sends the reply. A multi-line reply is terminated only when its body
// was written whole. Failures of w are left to its Flush.
func (r reply) write(w *bufio.Writer) error {
	w.WriteString(r.status)
	if r.code != "" {
		w.WriteString(" [")
		w.WriteString(r.code)
		w.WriteByte(']')
	}
	// A continuation keeps its space even before an empty challenge.
	if r.text != "" || r.status == continuation {
		w.WriteByte(' ')
		w.WriteString(r.text)
	}
	w.WriteString("\r\n")
	if r.body == nil {
		return nil
	}
	if err := r.body(w); err != nil {
		return err
	}
	_, err := w.WriteString(".\r\n")
	return err
}

// tally is a number of messages and their octets together.
type tally struct {
	messages int
	octets   int64
}

func (t tally) String() string {
	return count(t.messages, "message") + " (" + strconv.FormatInt(t.octets, 10) + " octets)"
}

// count writes a number with its noun: "1 message", "2 messages".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
