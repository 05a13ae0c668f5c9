package auth

import (
	"errors"
	"testing"

	"github.com/emersion/go-sasl"
)

func TestSASL(t *testing.T) {
	type step struct {
		response []byte
		ask      string
	}
	first := func(s string) []step { return []step{{[]byte(s), ""}} }
	tests := []struct {
		name, mechanism string
		steps           []step // the last one ends the exchange
		want            string // what verify was called with
		fails           bool
	}{
		{"plain", "PLAIN", first("\x00alice\x00pw"), "|alice|pw", false},
		{"plain asked", "plain", []step{{nil, ""}, {[]byte("\x00alice\x00pw"), ""}}, "|alice|pw", false},
		{"plain for itself", "PLAIN", first("a@b\x00A@B.\x00pw"), "a@b|A@B.|pw", false},
		{"plain for another", "PLAIN", first("bob\x00alice\x00pw"), "bob|alice|pw", false},
		{"plain cut off", "PLAIN", first("\x00alice"), "", true},
		{"plain empty", "PLAIN", first(""), "", true},
		{"plain with more", "PLAIN", first("\x00alice\x00pw\x00"), "", true},
		{"login", "Login", []step{{nil, "Username:"}, {[]byte("alice"), "Password:"}, {[]byte("pw"), ""}}, "|alice|pw", false},
		{"login initial", "LOGIN", []step{{[]byte("alice"), "Password:"}, {[]byte("pw"), ""}}, "|alice|pw", false},
		{"login empty", "LOGIN", []step{{[]byte{}, "Password:"}, {[]byte{}, ""}}, "||", false},
		{"login nil", "LOGIN", []step{{nil, "Username:"}, {nil, "Password:"}, {nil, ""}}, "||", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			server, ok := NewSASL(tt.mechanism, func(authzid, user, password string) error {
				got += authzid + "|" + user + "|" + password
				return nil
			})
			if !ok {
				t.Fatal("mechanism unknown")
			}
			for i, s := range tt.steps {
				ask, done, err := server.Next(s.response)
				last := i == len(tt.steps)-1
				if string(ask) != s.ask || !tt.fails && (done != last || err != nil) || tt.fails && last && err == nil {
					t.Fatalf("step %d: %q, %v, %v", i, ask, done, err)
				}
			}
			if got != tt.want {
				t.Errorf("verify was called with %q, want %q", got, tt.want)
			}
			if _, _, err := server.Next([]byte("x")); err == nil {
				t.Error("a response after the end was taken")
			}
		})
	}
}

func TestSASLHandsOnTheError(t *testing.T) {
	failure := errors.New("no")
	for _, mechanism := range Mechanisms() {
		server, _ := NewSASL(mechanism, func(_, _, _ string) error { return failure })
		var err error
		for _, response := range []string{"\x00a\x00b", "b"} {
			var done bool
			if _, done, err = server.Next([]byte(response)); done {
				break
			}
		}
		wantErr(t, mechanism, err, failure)
	}
	if _, ok := NewSASL("CRAM-MD5", nil); ok {
		t.Error("unknown mechanism was made")
	}
}

// The client of the library is the witness for PLAIN.
func TestPlainClient(t *testing.T) {
	_, ir, err := sasl.NewPlainClient("", "älice@example.org", "pässwörd").Start()
	must(t, err)
	called := false
	server, _ := NewSASL(sasl.Plain, func(_, user, password string) error {
		called = user == "älice@example.org" && password == "pässwörd"
		return nil
	})
	if _, done, err := server.Next(ir); !done || err != nil || !called {
		t.Errorf("done %v, called %v, %v", done, called, err)
	}
}

func FuzzLoginSASL(f *testing.F) {
	f.Add([]byte("alice"), []byte("pw"), []byte(""), true)
	f.Add([]byte{0}, []byte{}, []byte("x"), false)
	f.Add([]byte(nil), []byte("\xff"), []byte(nil), true)
	f.Fuzz(func(t *testing.T, user, password, more []byte, initial bool) {
		calls := 0
		server, _ := NewSASL("LOGIN", func(authzid, u, p string) error {
			calls++
			if authzid != "" || u != string(user) || p != string(password) {
				t.Fatalf("verify was called with %q %q %q", authzid, u, p)
			}
			return nil
		})
		responses := [][]byte{append([]byte{}, user...), password, more}
		if !initial {
			responses = append([][]byte{nil}, responses...)
		}
		ends := len(responses) - 2
		for i, r := range responses {
			ask, done, err := server.Next(r)
			if done != (i == ends) || (err != nil) != (i > ends) {
				t.Fatalf("response %d of %q: %q, %v, %v", i, responses, ask, done, err)
			}
		}
		if calls != 1 {
			t.Fatalf("verify was called %d times", calls)
		}
	})
}
