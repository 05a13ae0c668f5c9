package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func newClient(t *testing.T, names ...string) *Client {
	t.Helper()
	c, err := New(Config{Dir: filepath.Join(t.TempDir(), "acme"), Names: names, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.Listening(ProofHTTP)
	return c
}

// issue keeps a certificate as an authority would give it.
func issue(t *testing.T, c *Client, from, until time.Time, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: names, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.keep([][]byte{der}, key); err != nil {
		t.Fatal(err)
	}
}

func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		what   string
		life   time.Duration // 0: no certificate
		names  []string
		before time.Duration // it expires; -1: at once
	}{
		{what: "none", before: -1},
		{"90 days", 90 * day, []string{"a.example", "b.example"}, 30 * day},
		{"in another order", 90 * day, []string{"b.example", "a.example"}, 30 * day},
		{"a year", 365 * day, []string{"a.example", "b.example"}, 30 * day},
		{"six days", 6 * day, []string{"a.example", "b.example"}, 2 * day},
		{"fewer names", 90 * day, []string{"a.example"}, -1},
		{"other names", 90 * day, []string{"a.example", "c.example"}, -1},
	} {
		c := newClient(t, "a.example", "b.example")
		if test.life > 0 {
			issue(t, c, now, now.Add(test.life), test.names...)
		}
		at, why := c.due()
		want := now.Add(test.life - test.before)
		if test.before < 0 {
			want = time.Time{}
		}
		if !at.Equal(want) || why == "" {
			t.Errorf("%s: due %v (%s), want %v", test.what, at, why, want)
		}
	}
	c := newClient(t, "a.example")
	issue(t, c, now, now.Add(90*day), "a.example")
	if at, _ := c.due(); !at.Equal(now.Add(60 * day)) {
		t.Errorf("of the same authority: due %v", at)
	}
	c.config.Directory = "https://another.example/dir"
	if at, why := c.due(); !at.IsZero() || why != "it is from another authority" {
		t.Errorf("of another authority: due %v (%s)", at, why)
	}
	text, err := os.ReadFile(c.config.File())
	if err != nil {
		t.Fatal(err)
	}
	_, unmarked, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(c.config.File(), []byte(unmarked), 0o600); err != nil {
		t.Fatal(err)
	}
	if at, _ := c.due(); !at.Equal(now.Add(60 * day)) {
		t.Errorf("of an authority that was not written down: due %v", at)
	}
	if err := os.WriteFile(c.config.File(), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if at, _ := c.due(); !at.IsZero() {
		t.Errorf("a damaged file: due %v", at)
	}
}

func TestBackOff(t *testing.T) {
	last := time.Duration(0)
	for i := range 40 {
		wait := backOff(i)
		if wait < 4*time.Minute || wait > longestWait || i < 7 && wait <= last {
			t.Errorf("after %d failures: %v, before %v", i, wait, last)
		}
		last = wait
	}
}

// refusing starts an authority that has the client ask answer for all it wants.
func refusing(t *testing.T, c *Client, answer http.HandlerFunc) {
	t.Helper()
	authority := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			own := "https://" + r.Host
			fmt.Fprintf(w, `{"newNonce":%q,"newAccount":%q,"newOrder":%q}`, own+"/nonce", own+"/account", own+"/order")
			return
		}
		w.Header().Set("Replay-Nonce", "once")
		if r.Method == http.MethodPost {
			answer(w, r)
		}
	}))
	t.Cleanup(authority.Close)
	c.config.Directory = authority.URL + "/dir"
	c.config.Roots = x509.NewCertPool()
	c.config.Roots.AddCert(authority.Certificate())
}

// TestTooOften: when the authority says that we came too often, it is asked once,
// and no sooner again than it wants.
func TestTooOften(t *testing.T) {
	requests := 0
	c := newClient(t, "a.example")
	refusing(t, c, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.Header().Set("Retry-After", "100000")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"type":"urn:ietf:params:acme:error:rateLimited"}`)
	})
	err := c.attempt(t.Context())
	if wait := asked(err); wait < 99000*time.Second || wait > 100000*time.Second {
		t.Errorf("it waits %v after %v", wait, err)
	}
	if requests != 1 {
		t.Errorf("%d requests", requests)
	}
	if wait := asked(errNoChallenge); wait != 0 {
		t.Errorf("another error: it waits %v", wait)
	}
}

// TestCutOff: after an order that the end of the server cuts off, the next server waits
// a little: it may be one that ends and starts all the time.
func TestCutOff(t *testing.T) {
	c := newClient(t, "a.example")
	ctx, cancel := context.WithCancel(t.Context())
	refusing(t, c, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server would not see that the client goes
		cancel()
		<-r.Context().Done()
	})
	if err := c.attempt(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	if wait, ended := c.untilRestart(); wait > cutOffWait || wait < cutOffWait-time.Minute || ended != wasCutOff {
		t.Errorf("the next server waits %v, the order %s", wait, ended)
	}
	if said := atStart(t, c.config); !strings.Contains(said, "the last try to get a certificate was cut off, the next waits") {
		t.Errorf("the next server says %q", said)
	}
	// A process that was killed has no time to say so.
	c = newClient(t, "a.example")
	refusing(t, c, func(w http.ResponseWriter, _ *http.Request) {
		if wait, ended := c.untilRestart(); wait < restartWait-time.Minute || ended != wasCutOff {
			t.Errorf("killed in an order: the next server waits %v, the order %s", wait, ended)
		}
		w.WriteHeader(http.StatusForbidden)
	})
	if err := c.attempt(t.Context()); err == nil {
		t.Error("refused, and no error")
	}
	if wait, ended := c.untilRestart(); wait < restartWait-time.Minute || ended != hasFailed {
		t.Errorf("after a refusal: the next server waits %v, the order %s", wait, ended)
	}
}

// atStart is what a client logs before it does anything.
func atStart(t *testing.T, config Config) string {
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		config.Log = slog.New(slog.NewTextHandler(&log, nil))
		c, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		c.Listening(ProofHTTP)
		ctx, cancel := context.WithCancel(t.Context())
		go c.Run(ctx, func() {})
		synctest.Wait()
		cancel()
	})
	return log.String()
}

// TestNoRoom: when the certificate could not be written, the authority is not asked
// for it.
func TestNoRoom(t *testing.T) {
	requests := 0
	c := newClient(t, "a.example")
	refusing(t, c, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.WriteHeader(http.StatusForbidden)
	})
	if err := c.attempt(t.Context()); err == nil || requests == 0 {
		t.Fatalf("with room: %v, %d requests", err, requests)
	}
	names, err := filepath.Glob(filepath.Join(c.config.Dir, "*"))
	if len(names) != 2 || err != nil { // of the account and the failure
		t.Errorf("afterwards there are %q, %v", names, err)
	}
	requests = 0
	limitFiles(t, room/2) // in place of a full disk
	if err := c.attempt(t.Context()); !errors.Is(err, syscall.EFBIG) || requests != 0 {
		t.Errorf("without room: %v, %d requests", err, requests)
	}
}

// limitFiles has no file of this process grow beyond some octets until the test ends.
func limitFiles(t *testing.T, octets uint64) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: octets, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	})
}

// TestRestart: what is left to wait of a failure holds for the next process, for
// some minutes.
func TestRestart(t *testing.T) {
	c := newClient(t, "a.example")
	c.config.Directory = "https://127.0.0.1:1/dir"
	now := time.Now()
	c.now = func() time.Time { return now }
	if wait, _ := c.untilRestart(); wait != 0 {
		t.Errorf("before the first attempt: %v", wait)
	}
	if err := c.attempt(t.Context()); err == nil {
		t.Fatal("nobody has given a certificate")
	}
	for after, want := range map[time.Duration]time.Duration{0: restartWait, time.Minute: restartWait - time.Minute, time.Hour: 0, -time.Hour: restartWait} {
		c.now = func() time.Time { return now.Add(after) }
		if wait, _ := c.untilRestart(); (wait - want).Abs() > time.Second {
			t.Errorf("%v after the failure: %v, want %v", after, wait, want)
		}
	}
	if st, err := os.Stat(filepath.Join(c.config.Dir, accountFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key of the account: %v, %v", st, err)
	}
	first, err := c.accountKey()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.accountKey(); err != nil || !again.Equal(first) {
		t.Error("another account with each attempt")
	}
	if err := os.WriteFile(filepath.Join(c.config.Dir, accountFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.accountKey(); err == nil {
		t.Error("a damaged key was taken")
	}
}
