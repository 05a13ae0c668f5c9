// Package acme gets a certificate from a certificate authority by ACME (RFC 8555)
// and renews it. It proves that the names are ours by HTTP-01 or TLS-ALPN-01 (RFC
// 8737), on listeners that serve nothing else.
//
// Nothing that a client does starts an order: one loop asks, when there is no
// certificate, or a third of its life is left, or it is for other names or from another
// authority, and waits longer after each failure.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// LetsEncrypt is the directory of the authority that most use.
const LetsEncrypt = acme.LetsEncryptURL

// Files in the directory of the Config.
const (
	CertificateFile = "certificate.pem" // with its chain and its key
	accountFile     = "account.pem"
	attemptFile     = "last-attempt"
	roomFile        = "room" // there while an order is under way
)

// Ways to prove a name, as RFC 8555 and RFC 8737 call them.
const (
	ProofHTTP = "http-01"
	ProofTLS  = "tls-alpn-01"
)

const (
	orderTime    = 10 * time.Minute // for an order, from its beginning to the certificate
	firstWait    = 5 * time.Minute  // Let's Encrypt counts five failures of a name in an hour
	longestWait  = 12 * time.Hour
	longestLook  = time.Hour        // between looks at the clock, which may be set
	leastBetween = time.Hour        // between two certificates, unless they live for less than three of these
	restartWait  = 15 * time.Minute // the longest wait after a failure before a restart
	cutOffWait   = 2 * time.Minute  // likewise, after an order that the end of the server cut off
	longestSpare = 30 * 24 * time.Hour
)

// Config says what to ask for, and of whom.
type Config struct {
	Dir       string   // for the files, made with mode 0700
	Names     []string // host names of the one certificate, at least one
	Email     string   // of whom the authority may write to; "" for nobody
	Directory string   // URL of the authority; "" is LetsEncrypt
	Roots     *x509.CertPool
	Log       *slog.Logger
}

// File is where the certificate is, when there is one.
func (c Config) File() string { return filepath.Join(c.Dir, CertificateFile) }

// Client gets and renews the certificate. It is safe for concurrent use.
type Client struct {
	config Config
	now    func() time.Time
	opened chan struct{} // closed by the first call of Listening

	mu         sync.Mutex
	proofs     []string                    // that can be given
	responses  map[string]string           // to HTTP-01, by path
	challenges map[string]*tls.Certificate // of TLS-ALPN-01, by name
}

// New makes a Client that waits for Run.
func New(c Config) (*Client, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the ACME certificate: %w", err)
	}
	if c.Directory == "" {
		c.Directory = LetsEncrypt
	}
	return &Client{
		config: c, now: time.Now, opened: make(chan struct{}),
		responses: make(map[string]string), challenges: make(map[string]*tls.Certificate),
	}, nil
}

// Listening tells that there is a listener for this proof from now on. Run asks for
// nothing before the first one: to fail costs one of the few tries in an hour.
func (c *Client) Listening(proof string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.proofs) == 0 {
		close(c.opened)
	}
	c.proofs = append(c.proofs, proof)
}

// HTTPHandler answers HTTP-01 challenges, and nothing else.
func (c *Client) HTTPHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		response, ok := c.responses[r.URL.Path]
		c.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write([]byte(response)) // who asked has gone
	})
}

var errNoChallenge = errors.New("acme: no challenge under way for this name")

// TLSConfig answers TLS-ALPN-01 challenges, and refuses every other handshake.
func (c *Client) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{acme.ALPNProto},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			cert := c.challenges[strings.ToLower(hello.ServerName)]
			if cert == nil || !slices.Contains(hello.SupportedProtos, acme.ALPNProto) {
				return nil, errNoChallenge
			}
			return cert, nil
		},
	}
}

// Run gets the certificate and renews it until ctx ends. After each time it calls
// renewed.
func (c *Client) Run(ctx context.Context, renewed func()) {
	select {
	case <-c.opened:
	case <-ctx.Done():
		return
	}
	failures := 0
	wait, ended := c.untilRestart()
	if wait > 0 {
		c.config.Log.Warn("the last try to get a certificate "+ended+", the next waits", "next_try", c.now().Add(wait).Format(time.RFC3339))
	}
	for {
		due, _ := c.due()
		wait = max(wait, min(due.Sub(c.now()), longestLook))
		if !sleep(ctx, wait) {
			return
		}
		wait = 0
		due, why := c.due()
		if c.now().Before(due) {
			continue
		}
		c.config.Log.Info("asking for a certificate", "names", strings.Join(c.config.Names, " "), "authority", c.config.Directory, "because", why)
		err := c.attempt(ctx)
		if err == nil || errors.Is(err, errStillDue) {
			renewed()
		}
		if err == nil {
			failures, wait = 0, c.rest()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait = max(backOff(failures), asked(err))
		failures++
		c.config.Log.Error("no certificate from the authority", "names", strings.Join(c.config.Names, " "), "error", err,
			"next_try", c.now().Add(wait).Format(time.RFC3339))
	}
}

// rest is the least time between a certificate and the order of the next one.
func (c *Client) rest() time.Duration {
	leaf, _, err := c.current()
	if err != nil {
		return leastBetween
	}
	return min(leaf.NotAfter.Sub(leaf.NotBefore)/3, leastBetween)
}

// backOff is how long to wait after some failures: longer each time, and not at
// the same moment as all other servers.
func backOff(before int) time.Duration {
	wait := min(firstWait<<min(before, 16), longestWait)
	return wait - time.Duration(rand.Int64N(int64(wait/5)))
}

// asked is how long the authority wants us to wait, if it says that we came too
// often.
func asked(err error) time.Duration {
	var refusal *acme.Error
	if !errors.As(err, &refusal) {
		return 0
	}
	wait, _ := acme.RateLimit(refusal)
	return wait
}

// What became of a try that got nothing. A mark with nothing in it is one that failed.
const (
	hasFailed = "has failed"
	wasCutOff = "was cut off" // by the end of the process, whatever that was
)

// untilRestart is what is left to wait of the try before a restart, if that got nothing,
// and how it ended: a server that ends and starts again must not hammer.
func (c *Client) untilRestart() (wait time.Duration, ended string) {
	st, err := os.Stat(filepath.Join(c.config.Dir, attemptFile))
	if err != nil {
		return 0, ""
	}
	ended = hasFailed
	if st.Size() > 0 {
		ended = wasCutOff
	}
	return min(max(restartWait-c.now().Sub(st.ModTime()), 0), restartWait), ended
}

// errStillDue is a certificate that does not end the need for one.
var errStillDue = errors.New("the new certificate is due for renewal at once")

// attempt is one order. What it leaves when it fails tells the next process; after one
// that the end of the server cuts off, that waits a little only.
func (c *Client) attempt(serving context.Context) error {
	ctx, cancel := context.WithTimeout(serving, orderTime)
	defer cancel()
	mark := filepath.Join(c.config.Dir, attemptFile)
	if err := os.WriteFile(mark, []byte(wasCutOff), 0o600); err != nil {
		return err
	}
	now := c.now()
	err := errors.Join(os.Chtimes(mark, now, now), c.order(ctx))
	if due, why := c.due(); err == nil && !c.now().Before(due) {
		err = fmt.Errorf("%w: %s; is the clock of this machine right?", errStillDue, why)
	}
	switch {
	case err == nil:
		_ = os.Remove(mark) // a mark that stays makes the next start wait
	case serving.Err() != nil:
		cut := now.Add(cutOffWait - restartWait)
		err = errors.Join(err, os.Chtimes(mark, cut, cut))
	default:
		err = errors.Join(err, os.Truncate(mark, 0), os.Chtimes(mark, now, now))
	}
	return err
}

// due is when to ask for a certificate, and why.
func (c *Client) due() (at time.Time, why string) {
	leaf, authority, err := c.current()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return time.Time{}, "there is none yet"
	case err != nil:
		return time.Time{}, "the one there is cannot be read: " + err.Error()
	case !sameNames(leaf.DNSNames, c.config.Names):
		return time.Time{}, "it is for other names"
	case authority != "" && authority != c.config.Directory:
		return time.Time{}, "it is from another authority"
	}
	spare := min(leaf.NotAfter.Sub(leaf.NotBefore)/3, longestSpare)
	return leaf.NotAfter.Add(-spare), "it expires on " + leaf.NotAfter.Format(time.DateOnly)
}

func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// current is the certificate there is, and the authority that it is from; "" if that
// was not written down.
func (c *Client) current() (leaf *x509.Certificate, authority string, err error) {
	text, err := os.ReadFile(c.config.File())
	if err != nil {
		return nil, "", err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, "", err
	}
	if first, _, _ := strings.Cut(string(text), "\n"); strings.HasPrefix(first, fromPrefix) {
		authority = strings.TrimPrefix(first, fromPrefix)
	}
	return pair.Leaf, authority, nil
}

// sleep waits; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
