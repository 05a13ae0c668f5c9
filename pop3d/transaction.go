package pop3d

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

// The commands of the TRANSACTION state (RFC 1939 sections 5 and 7). Messages
// are named by numbers that the dispatcher found to exist.

func (s *session) stat(context.Context, arguments) reply {
	return okay(strconv.Itoa(s.remaining.messages) + " " + strconv.FormatInt(s.remaining.octets, 10))
}

func (s *session) list(_ context.Context, a arguments) reply {
	return s.scan(a, s.remaining.String(), func(line []byte, i int) []byte {
		return strconv.AppendInt(line, s.drop.Octets(i), 10)
	})
}

func (s *session) uidl(_ context.Context, a arguments) reply {
	return s.scan(a, count(s.remaining.messages, "message"), func(line []byte, i int) []byte {
		return append(line, s.drop.UIDL(i)...)
	})
}

// scan answers with a line about each message, or about the one asked for:
// its number, a space and what item appends.
func (s *session) scan(a arguments, heading string, item func(line []byte, i int) []byte) reply {
	entry := func(line []byte, i int) []byte {
		return item(append(strconv.AppendInt(line, int64(i)+1, 10), ' '), i)
	}
	if a.numbers > 0 {
		return okay(string(entry(nil, a.index())))
	}
	r := okay(heading)
	r.body = func(w *bufio.Writer) error {
		for i := range s.drop.Len() {
			if s.isDeleted(i) {
				continue
			}
			if _, err := w.Write(append(entry(w.AvailableBuffer(), i), '\r', '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	return r
}

func (s *session) retr(_ context.Context, a arguments) reply {
	octets := s.drop.Octets(a.index())
	return s.send(a.index(), strconv.FormatInt(octets, 10)+" octets", wholeMessage)
}

func (s *session) top(_ context.Context, a arguments) reply {
	return s.send(a.index(), "top of the message follows", a.number[1])
}

// send answers with message i, or its header and as many lines of its body.
func (s *session) send(i int, text string, lines int) reply {
	message, err := s.drop.Message(i)
	if errors.Is(err, ErrGone) {
		return reply{status: negative, text: "message " + strconv.Itoa(i+1) + " is no longer in the maildrop"}
	}
	if err != nil {
		return trouble("the message cannot be read now", fmt.Errorf("message %s: %w", s.drop.UIDL(i), err))
	}
	r := okay(text)
	r.body = func(w *bufio.Writer) error {
		return s.transfer(w, i, message, lines)
	}
	return r
}

// transfer writes the body of RETR and TOP and closes the message.
func (s *session) transfer(w *bufio.Writer, i int, message io.ReadCloser, lines int) error {
	octets := s.drop.Octets(i)
	err := sendMessage(w, message, octets, lines)
	// It was only read: what was sent is whole, whatever closing says.
	_ = message.Close()
	if err != nil {
		return fmt.Errorf("message %s: %w", s.drop.UIDL(i), err)
	}
	if lines == wholeMessage {
		s.stats.retrieved.messages++
		s.stats.retrieved.octets += octets
	}
	return nil
}

func (s *session) dele(_ context.Context, a arguments) reply {
	if s.deleted == nil {
		s.deleted = make([]bool, s.drop.Len())
	}
	s.deleted[a.index()] = true
	s.remaining.messages--
	s.remaining.octets -= s.drop.Octets(a.index())
	return okay("message " + strconv.Itoa(a.number[0]) + " deleted")
}

func (s *session) rset(context.Context, arguments) reply {
	s.undelete()
	return okay("maildrop has " + s.remaining.String())
}

func (s *session) noop(context.Context, arguments) reply { return okay("") }

// quit enters the UPDATE state. The reply comes from update, which the loop
// calls once earlier replies are on their way.
func (s *session) quit(context.Context, arguments) reply { return reply{next: update} }

// update is the UPDATE state: it removes the messages marked as deleted
// (RFC 1939 section 6). The lock is released before the reply, so that the
// client's next login does not meet it.
func (s *session) update(ctx context.Context) reply {
	var marked []int
	for i, deleted := range s.deleted {
		if deleted {
			marked = append(marked, i)
		}
	}
	var err error
	if len(marked) > 0 {
		s.stats.removed, err = s.drop.Remove(ctx, marked)
	}
	stayed := len(marked) - s.stats.removed
	if err == nil && stayed > 0 {
		err = errors.New("some messages were not removed")
	}
	closing := s.release()
	return s.last("quit", updateReply(len(marked), stayed, err, closing))
}

// updateReply reports what UPDATE did. A lock that cannot be released is for
// the log alone: the messages are gone.
func updateReply(marked, stayed int, removing, closing error) reply {
	switch {
	case stayed > 0:
		return trouble(fmt.Sprintf("%d of %s not removed now", stayed, count(marked, "message")), errors.Join(removing, closing))
	case removing != nil:
		return trouble("messages removed, but a power failure may bring them back", errors.Join(removing, closing))
	}
	r := okay("bye")
	if marked > 0 {
		r.text = count(marked, "message") + " removed, bye"
	}
	if closing != nil {
		r.event = &event{slog.LevelError, "the maildrop was not closed", []slog.Attr{slog.Any("error", closing)}}
	}
	return r
}
