package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"restante/cmd/restante/internal/replace"
)

const (
	requestTime = time.Minute // for one request to the authority
	maxTries    = 5           // of a request that met a fault of the authority
	room        = 64 << 10    // octets, more than any chain and its key
	// fromPrefix begins the first line of the certificate's file, before the PEM (RFC 7468
	// has such text); the URL of the authority follows.
	fromPrefix = "Authority: "
)

// order gets a certificate with a new key, and keeps it.
func (c *Client) order(ctx context.Context) error {
	release, err := c.reserve()
	if err != nil {
		return fmt.Errorf("making room for the certificate: %w", err)
	}
	defer release()
	client, err := c.register(ctx)
	if err != nil {
		return fmt.Errorf("registering with the authority: %w", err)
	}
	defer client.HTTPClient.CloseIdleConnections()
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(c.config.Names...))
	if err != nil {
		return fmt.Errorf("ordering: %w", err)
	}
	for _, url := range order.AuthzURLs {
		if err := c.authorize(ctx, client, url); err != nil {
			return err
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return fmt.Errorf("waiting for the order: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: c.config.Names}, key)
	if err != nil {
		return err
	}
	chain, _, err := client.CreateCertFromOrder(ctx, order, request, true)
	if err != nil {
		return fmt.Errorf("getting the certificate: %w", err)
	}
	release()
	return c.keep(chain, key)
}

// reserve takes the room on the disk that the certificate needs until release is
// called: a full disk must be seen before the authority counts one more order.
func (c *Client) reserve() (release func(), err error) {
	file := filepath.Join(c.config.Dir, roomFile)
	filler := make([]byte, room)
	if _, err := rand.Read(filler); err != nil { // nothing that a file system makes small
		return nil, err
	}
	return func() { _ = os.Remove(file) }, replace.File(file, filler) // a second release finds nothing
}

// register makes a client of the account, which is made when there is none.
func (c *Client) register(ctx context.Context) (*acme.Client, error) {
	key, err := c.accountKey()
	if err != nil {
		return nil, err
	}
	client := &acme.Client{Key: key, DirectoryURL: c.config.Directory, UserAgent: "restante", RetryBackoff: again, HTTPClient: &http.Client{
		Timeout:   requestTime,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: c.config.Roots}},
	}}
	account := &acme.Account{}
	if c.config.Email != "" {
		account.Contact = []string{"mailto:" + c.config.Email}
	}
	_, err = client.Register(ctx, account, acme.AcceptTOS)
	if errors.Is(err, acme.ErrAccountAlreadyExists) {
		err = nil
	}
	return client, err
}

// again is how long to wait before the request is sent once more; below 0 it is
// not. The library's own way goes on until the order has no time left.
func again(tries int, _ *http.Request, response *http.Response) time.Duration {
	if tries > maxTries || response.StatusCode == http.StatusTooManyRequests {
		return -1
	}
	return time.Second << (tries - 1)
}

// authorize proves one name.
func (c *Client) authorize(ctx context.Context, client *acme.Client, url string) error {
	z, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("asking what to prove: %w", err)
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	name := z.Identifier.Value
	challenge := c.pick(z.Challenges)
	if challenge == nil {
		return fmt.Errorf("the authority offers no way to prove %s that is listened for; see tls.acme_http and tls.acme_tls", name)
	}
	done, err := c.present(client, challenge, name)
	if err != nil {
		return err
	}
	defer done()
	if _, err := client.Accept(ctx, challenge); err != nil {
		return fmt.Errorf("proving %s by %s: %w", name, challenge.Type, err)
	}
	if _, err := client.WaitAuthorization(ctx, z.URI); err != nil {
		return fmt.Errorf("proving %s by %s: %w", name, challenge.Type, reasonOf(err))
	}
	return nil
}

// reasonOf is what the authority says about a name that it did not find proven.
func reasonOf(err error) error {
	var failed *acme.AuthorizationError
	if !errors.As(err, &failed) || len(failed.Errors) == 0 {
		return err
	}
	return errors.Join(failed.Errors...)
}

// pick chooses a challenge that a listener is there for.
func (c *Client) pick(offered []*acme.Challenge) *acme.Challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, proof := range []string{ProofTLS, ProofHTTP} {
		for _, challenge := range offered {
			if challenge.Type == proof && slices.Contains(c.proofs, proof) {
				return challenge
			}
		}
	}
	return nil
}

// present has the listeners answer the challenge until done is called.
func (c *Client) present(client *acme.Client, challenge *acme.Challenge, name string) (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if challenge.Type == ProofHTTP {
		path := client.HTTP01ChallengePath(challenge.Token)
		if c.responses[path], err = client.HTTP01ChallengeResponse(challenge.Token); err != nil {
			return nil, err
		}
		return func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.responses, path)
		}, nil
	}
	cert, err := client.TLSALPN01ChallengeCert(challenge.Token, name)
	if err != nil {
		return nil, err
	}
	name = strings.ToLower(name)
	c.challenges[name] = &cert
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.challenges, name)
	}, nil
}

// accountKey reads the key of the account, or makes one.
func (c *Client) accountKey() (*ecdsa.PrivateKey, error) {
	file := filepath.Join(c.config.Dir, accountFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		block, err := keyBlock(key)
		if err != nil {
			return nil, err
		}
		return key, replace.File(file, pem.EncodeToMemory(block))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key; remove it, and another account is made", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	own, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no key of an account; remove it, and another account is made", file)
	}
	return own, nil
}

func keyBlock(key *ecdsa.PrivateKey) (*pem.Block, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
}

// keep writes certificate, chain and key into one file: it is replaced whole, so
// that a key without its certificate is never seen.
func (c *Client) keep(chain [][]byte, key *ecdsa.PrivateKey) error {
	var text bytes.Buffer
	text.WriteString(fromPrefix + c.config.Directory + "\n")
	for _, der := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
	}
	block, err := keyBlock(key)
	if err != nil {
		return err
	}
	if err := pem.Encode(&text, block); err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(text.Bytes(), text.Bytes()); err != nil {
		return fmt.Errorf("what the authority gave cannot be used: %w", err)
	}
	return replace.File(c.config.File(), text.Bytes())
}
