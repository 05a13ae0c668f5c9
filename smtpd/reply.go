package smtpd

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// What a Directory says of a recipient. Wrap them freely. Any other error is
// a fault of ours: the client hears 451 4.3.0 and the log has the detail.
var (
	ErrNoSuchUser  = errors.New("smtpd: no such user")
	ErrRelayDenied = errors.New("smtpd: domain is not hosted here")
	ErrDisabled    = errors.New("smtpd: mailbox is disabled")
	ErrOverQuota   = errors.New("smtpd: mailbox is over its quota")
	ErrBadAddress  = errors.New("smtpd: address is not valid")
)

// ErrNoSpace is what a Store says, wrapped or not, when its disk is full. It
// is our fault and logged as one, but the client hears 452 4.3.1 (RFC 3463).
var ErrNoSpace = errors.New("smtpd: no space for the message")

// A reply is one SMTP reply of one line: code, enhanced status code (RFC
// 3463; none when zero) and a text that never holds what a client sent. It is
// an error too, so that whoever finds a fault can name its reply and the
// store in between may wrap it.
type reply struct {
	code   int
	status smtp.EnhancedCode
	text   string
}

var (
	replyReady       = reply{220, smtp.EnhancedCode{2, 0, 0}, "Ready to start TLS"}
	replyTooLarge    = reply{552, smtp.EnhancedCode{5, 3, 4}, "Message is larger than this server takes"}
	replyLoop        = reply{554, smtp.EnhancedCode{5, 4, 6}, "Too many hops, this message is in a loop"}
	replyNeedsUTF8   = reply{553, smtp.EnhancedCode{5, 6, 7}, "This address needs the SMTPUTF8 parameter of MAIL"}
	replyTooManyRcpt = reply{452, smtp.EnhancedCode{4, 5, 3}, "Too many recipients, send the others in another message"}
	replyMailTwice   = reply{503, smtp.EnhancedCode{5, 5, 1}, "A transaction is open already, RSET ends it"}
	replyNoHello     = reply{503, smtp.EnhancedCode{5, 5, 1}, "Say EHLO first"}
	replyNoMail      = reply{503, smtp.EnhancedCode{5, 5, 1}, "Send MAIL first"}
	replyNoRcpt      = reply{503, smtp.EnhancedCode{5, 5, 1}, "No recipient was accepted"}
	replyTLSActive   = reply{503, smtp.EnhancedCode{5, 5, 1}, "TLS is active already"}
	replyUnknown     = reply{500, smtp.EnhancedCode{5, 5, 1}, "Unknown command"}
	replyNotHere     = reply{502, smtp.EnhancedCode{5, 5, 1}, "Command not offered here"}
	replyLineTooLong = reply{500, smtp.EnhancedCode{5, 5, 2}, "Line too long"}
	replyBareLineEnd = reply{500, smtp.EnhancedCode{5, 5, 2}, "A command ends with CRLF and has no CR, LF or NUL in it"}
	replyNoArgument  = reply{501, smtp.EnhancedCode{5, 5, 4}, "This command takes no argument"}
	replyBadArgument = reply{501, smtp.EnhancedCode{5, 5, 4}, "Argument missing or malformed"}
	replyBadHello    = reply{501, smtp.EnhancedCode{5, 5, 4}, "Give a domain name or an address literal"}
	replyBadSender   = reply{501, smtp.EnhancedCode{5, 1, 7}, "Malformed, expected FROM:<address>"}
	replyBadRcpt     = reply{501, smtp.EnhancedCode{5, 1, 3}, "Malformed, expected TO:<address>"}
	replyBadParam    = reply{501, smtp.EnhancedCode{5, 5, 4}, "Malformed parameter"}
	replyNoParam     = reply{555, smtp.EnhancedCode{5, 5, 4}, "Parameter not supported"}
	replyNoSpace     = reply{452, smtp.EnhancedCode{4, 3, 1}, "No space left here, try again later"}
	replyOurFault    = reply{451, smtp.EnhancedCode{4, 3, 0}, "A fault on our side, try again later"}

	replyForged = reply{550, smtp.EnhancedCode{5, 7, 1}, "That is the name of this server, give your own"}

	// After these the wire closes the connection, whatever their code.
	replyEarly   = reply{554, smtp.EnhancedCode{5, 5, 1}, "You spoke before the greeting, closing"}
	replyHurried = reply{554, smtp.EnhancedCode{5, 5, 1}, "Wait for the answer to your greeting, closing"}
	replyBrowser = reply{554, smtp.EnhancedCode{5, 5, 1}, "This is a mail server, closing"}

	// After a 421 the wire closes the connection.
	replyTooManyErrors   = reply{421, smtp.EnhancedCode{4, 7, 0}, "Too many errors, closing"}
	replyTooManyRefused  = reply{421, smtp.EnhancedCode{4, 7, 0}, "Too many refused recipients, closing"}
	replyTooManyCommands = reply{421, smtp.EnhancedCode{4, 7, 0}, "Too many commands without a message, closing"}
	replyTooMuch         = reply{421, smtp.EnhancedCode{4, 3, 4}, "Far more than this server takes, closing"}
	replyTimeout         = reply{421, smtp.EnhancedCode{4, 4, 2}, "Waited too long, closing"}
	replyLost            = reply{421, smtp.EnhancedCode{4, 4, 2}, "Connection lost inside a message, it was not delivered"}
	replyStopping        = reply{421, smtp.EnhancedCode{4, 3, 2}, "Shutting down, try again later"}
	replyBroken          = reply{421, smtp.EnhancedCode{4, 3, 0}, "A fault on our side, closing"}
)

// outcomes turns the errors of Directory, Store and message into replies.
var outcomes = []struct {
	err   error
	reply reply
}{
	{ErrNoSuchUser, reply{550, smtp.EnhancedCode{5, 1, 1}, "No such user here"}},
	{ErrRelayDenied, reply{550, smtp.EnhancedCode{5, 7, 1}, "Relaying denied, the domain is not hosted here"}},
	{ErrDisabled, reply{550, smtp.EnhancedCode{5, 2, 1}, "Mailbox is disabled"}},
	{ErrOverQuota, reply{452, smtp.EnhancedCode{4, 2, 2}, "Mailbox is full, try again later"}},
	{ErrBadAddress, reply{553, smtp.EnhancedCode{5, 1, 3}, "Not a valid address"}},
	{io.ErrUnexpectedEOF, replyLost},
}

// library translates what go-smtp says, by its exact lines: some of its codes
// are not those of RFC 5321, and its texts would be this server's face. The
// lines that depend on the connection (greeting, HELO, EHLO) are in wire.go.
var library = map[string]reply{
	"250 2.0.0 Roger, accepting mail from <x@x>":          {250, smtp.EnhancedCode{2, 1, 0}, "Sender OK"},
	"250 2.0.0 I'll make sure <x@x> gets this":            {250, smtp.EnhancedCode{2, 1, 5}, "Recipient OK"},
	"250 2.0.0 Session reset":                             {250, smtp.EnhancedCode{2, 0, 0}, "OK"},
	"250 2.0.0 I have successfully done nothing":          {250, smtp.EnhancedCode{2, 0, 0}, "OK"},
	"252 2.5.0 Cannot VRFY user, but will accept message": {252, smtp.EnhancedCode{2, 5, 0}, "Not verified, but send and we shall see"},
	"221 2.0.0 Bye": {221, smtp.EnhancedCode{2, 0, 0}, "Bye"},
	"354 Go ahead. End your data with <CR><LF>.<CR><LF>": {354, smtp.NoEnhancedCode, "Go ahead, end with <CR><LF>.<CR><LF>"},
	"421 4.0.0 Internal server error":                    replyBroken,
	"502 5.5.1 Missing MAIL FROM command.":               replyNoMail,
	"502 5.5.1 Missing RCPT TO command.":                 replyNoRcpt,
	"501 5.5.4 Unable to parse MAIL ESMTP parameters":    replyBadParam,
	"501 5.5.4 Unable to parse RCPT ESMTP parameters":    replyBadParam,
	"501 5.5.4 Unable to parse SIZE as an integer":       replyBadParam,
	"501 5.5.4 Unknown BODY value":                       replyBadParam,
	"500 5.5.4 Malformed AUTH parameter value":           replyNoParam,
	"500 5.5.4 Malformed AUTH parameter mailbox":         replyNoParam,
	"500 5.5.4 Unknown MAIL FROM argument":               replyNoParam,
	"500 5.5.4 Unknown RCPT TO argument":                 replyNoParam,
	"504 5.5.4 REQUIRETLS is not implemented":            replyNoParam,
	"504 5.5.4 BINARYMIME is not implemented":            replyNoParam,
	"504 5.5.4 RET is not implemented":                   replyNoParam,
	"504 5.5.4 ENVID is not implemented":                 replyNoParam,
	"504 5.5.4 NOTIFY is not implemented":                replyNoParam,
	"504 5.5.4 ORCPT is not implemented":                 replyNoParam,
	"504 5.5.4 RRVS is not implemented":                  replyNoParam,
	"504 5.5.4 DELIVERBY is not implemented":             replyNoParam,
	"504 5.5.4 MT-PRIORITY is not implemented":           replyNoParam,
}

// asReply is the one translation of an error into what the client hears.
// ours says that the fault is on this side and belongs in the log.
func asReply(err error) (r reply, ours bool) {
	if errors.As(err, &r) {
		return r, false
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o.reply, false
		}
	}
	if errors.Is(err, ErrNoSpace) {
		return replyNoSpace, true
	}
	return replyOurFault, true
}

// accepted is the reply to a message that is durable.
func accepted(id string) reply {
	return reply{250, smtp.EnhancedCode{2, 0, 0}, "OK " + id}
}

// codes are the reply code and the enhanced status code.
func (r reply) codes() string {
	return fmt.Sprintf("%d %d.%d.%d", r.code, r.status[0], r.status[1], r.status[2])
}

// line gives the reply as it goes over the wire, without CRLF.
func (r reply) line() string {
	b := make([]byte, 0, 100)
	b = strconv.AppendInt(b, int64(r.code), 10)
	if r.status != smtp.NoEnhancedCode {
		for i, n := range r.status {
			b = append(b, " .."[i])
			b = strconv.AppendInt(b, int64(n), 10)
		}
	}
	b = append(b, ' ')
	return string(append(b, r.text...))
}

func (r reply) Error() string { return "smtpd: reply " + r.line() }

// smtp gives the reply in the only form that go-smtp passes on as it is.
func (r reply) smtp() *smtp.SMTPError {
	return &smtp.SMTPError{Code: r.code, EnhancedCode: r.status, Message: r.text}
}

// ehlo is the answer to EHLO (RFC 5321 section 4.1.1.1): our name, then what
// we really do. STARTTLS disappears once TLS is active (RFC 3207).
func ehlo(hostname string, maxSize int64, startTLS bool) string {
	lines := []string{hostname, "PIPELINING", "8BITMIME", "SIZE " + strconv.FormatInt(maxSize, 10),
		"ENHANCEDSTATUSCODES", "SMTPUTF8"}
	if startTLS {
		lines = append(lines, "STARTTLS")
	}
	last := len(lines) - 1
	return "250-" + strings.Join(lines[:last], "\r\n250-") + "\r\n250 " + lines[last]
}

// Refusal is the line for a connection that a listener turns away because
// there are too many: sent as it is, before closing.
func Refusal(hostname string) string {
	return "421 4.3.2 " + hostname + " too many connections, try again later\r\n"
}
