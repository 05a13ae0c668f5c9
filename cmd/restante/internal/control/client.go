package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNotRunning: nobody listens on the socket.
var ErrNotRunning = errors.New("no server is running")

// Client asks a running server.
type Client struct{ http *http.Client }

// Dial returns a Client of the server that runs on the data directory.
func Dial(dataDir string) *Client {
	dir := filepath.Join(dataDir, Directory)
	return &Client{&http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			err = within(dir, func(short string) (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, "unix", short)
				return err
			})
			return conn, err
		},
	}}}
}

// Status asks how the server is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, "GET", "status", nil, &s)
}

// Sessions asks for the connections.
func (c *Client) Sessions(ctx context.Context) (all []Session, err error) {
	return all, c.ask(ctx, "GET", "sessions", nil, &all)
}

// Kick ends sessions, by id, client or user, and counts them.
func (c *Client) Kick(ctx context.Context, who string) (int, error) {
	var n countReply
	err := c.ask(ctx, "POST", "sessions/kick", whoRequest{who}, &n)
	return n.Count, err
}

// Bans asks who has failed to log in lately.
func (c *Client) Bans(ctx context.Context) (all []Ban, err error) {
	return all, c.ask(ctx, "GET", "bans", nil, &all)
}

// ClearBans forgets the failures of an address and its network, of a network, or of an
// account.
func (c *Client) ClearBans(ctx context.Context, who string) (int, error) {
	var n countReply
	err := c.ask(ctx, "POST", "bans/clear", whoRequest{who}, &n)
	return n.Count, err
}

// ClearAllBans forgets the failures of everybody.
func (c *Client) ClearAllBans(ctx context.Context) (int, error) {
	var n countReply
	err := c.ask(ctx, "POST", "bans/clear-all", nil, &n)
	return n.Count, err
}

func (c *Client) ask(ctx context.Context, method, what string, body, reply any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://restante/"+what, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := c.http.Do(r)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNotRunning
	case err != nil:
		return fmt.Errorf("the server cannot be asked: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server does not understand the question (%s); is it of another version?", response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(reply); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return nil
}
