package auth

import (
	"strings"

	"github.com/emersion/go-sasl"
)

// Mechanisms are the SASL mechanisms that NewSASL makes, the better one first.
func Mechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// NewSASL starts the server's side of a SASL exchange: PLAIN (RFC 4616) or the
// LOGIN of older clients, the name in any case. It calls verify once, when it
// has all from the client, and hands on its error; whom the user may act for,
// the authorization identity, is for verify to judge. Initial responses are as
// in go-sasl: nil is none, empty is empty. ok is false if the mechanism is
// unknown.
func NewSASL(mechanism string, verify func(authzid, user, password string) error) (server sasl.Server, ok bool) {
	switch strings.ToUpper(mechanism) {
	case sasl.Plain:
		return sasl.NewPlainServer(verify), true
	case sasl.Login:
		return &loginServer{verify: verify}, true
	}
	return nil, false
}

// loginServer is the LOGIN mechanism (draft-murchison-sasl-login): two
// questions, whose texts clients ignore or know by heart.
type loginServer struct {
	verify func(authzid, user, password string) error
	asked  int // questions so far
	user   string
}

// Next takes the client's response; nil is none yet.
func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if s.asked == 0 {
		s.asked = 1
		if response == nil {
			return []byte("Username:"), false, nil
		}
	}
	switch s.asked {
	case 1:
		s.asked, s.user = 2, string(response)
		return []byte("Password:"), false, nil
	case 2:
		s.asked = 3
		return nil, true, s.verify("", s.user, string(response))
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}
