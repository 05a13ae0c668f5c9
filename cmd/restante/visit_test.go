package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestLastLogin: "user list" tells when, how and from where a user logged in. A login that fails leaves no trace there.
func TestLastLogin(t *testing.T) {
	s := newServer(t, serverOptions{})
	last := func(user string) (v *visitRow) {
		t.Helper()
		var rows []userRow
		if err := json.Unmarshal([]byte(restante(t, s.config, "", "user", "list", "--json")), &rows); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Address == user+"@"+testDomain {
				v = r.LastLogin
			}
		}
		return v
	}
	if v := last("alice"); v != nil {
		t.Errorf("before any login: %v", v)
	}
	began := time.Now().Truncate(time.Second)
	s.talk(t, "pop3s").logIn("alice").want("QUIT", "+OK")
	d := s.talk(t, "pop3s")
	d.want("USER bob@"+testDomain, "+OK")
	d.want("PASS wrong", "-ERR")
	v := last("alice")
	if v == nil || v.Protocol != "POP3+TLS" || v.Address != "127.0.0.1" || v.Time.Before(began) || v.Time.After(time.Now()) {
		t.Errorf("the login of alice: %v", v)
	}
	if v := last("bob"); v != nil {
		t.Errorf("bob never logged in: %v", v)
	}
	if text := restante(t, s.config, "", "user", "show", "alice@"+testDomain); !strings.Contains(text, "POP3+TLS 127.0.0.1\n") {
		t.Errorf("user show:\n%s", text)
	}
}
