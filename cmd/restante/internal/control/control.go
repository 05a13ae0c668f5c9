// Package control lets the owner of a running server ask it questions, by HTTP
// over a socket in the data directory. Who may reach the socket owns the mail
// already, so there are no passwords.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Directory and Socket are where the server listens, in the data directory.
const (
	Directory = "run"
	Socket    = "restante.sock"
)

// maxRequest bounds the body of a request, in octets.
const maxRequest = 64 << 10

// Status is how the server is.
type Status struct {
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Since     time.Time      `json:"since"`
	Hostname  string         `json:"hostname"`
	DataDir   string         `json:"data_dir"`
	Listening []Listener     `json:"listening"`
	Open      map[string]int `json:"open"`    // connections, by protocol
	Refused   map[string]int `json:"refused"` // likewise, since the start
	Bans      int            `json:"bans"`    // who is refused to log in
	Trouble   string         `json:"trouble"` // why mail cannot be taken or fetched; "" if it can
}

// Listener is a port.
type Listener struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
}

// Session is a connection.
type Session struct {
	ID          string    `json:"id"` // as in the log
	Protocol    string    `json:"protocol"`
	Client      string    `json:"client"` // IP address
	Since       time.Time `json:"since"`
	TLS         string    `json:"tls"`
	User        string    `json:"user"` // "" before the login, and for SMTP
	AppPassword string    `json:"app_password"`
	Helo        string    `json:"helo"`     // of SMTP
	Messages    int       `json:"messages"` // likewise: accepted so far
}

// Ban is who has failed to log in lately.
type Ban struct {
	Kind     string     `json:"kind"` // address, network, account; exempt: an address that is never refused
	Name     string     `json:"name"`
	Failures float64    `json:"failures"` // to a tenth
	Until    *time.Time `json:"until"`    // null: it was not refused
	Refused  bool       `json:"refused"`  // now
}

// Backend is what the server can be asked. Its methods are called from any
// goroutine.
type Backend interface {
	Status(ctx context.Context) Status
	Sessions() []Session
	// Kick ends the sessions with this id, client or user, and counts them.
	Kick(who string) int
	Bans() []Ban
	// ClearBans forgets the failures of an address and its network, of a network, or
	// of an account, and counts them; ClearAllBans those of everybody.
	ClearBans(who string) int
	ClearAllBans() int
}

// Server answers on the socket.
type Server struct {
	http     *http.Server
	listener net.Listener
	path     string
}

// Listen makes the socket in the data directory, for its owner only. What a server
// that was killed has left is replaced: the caller holds the lock of the server.
func Listen(dataDir string, b Backend, log *slog.Logger) (*Server, error) {
	dir := filepath.Join(dataDir, Directory)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory of the control socket cannot be made: %w", err)
	}
	path := filepath.Join(dir, Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the control socket of an earlier server cannot be removed: %w", err)
	}
	var l *net.UnixListener
	err := within(dir, func(short string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the control socket %s cannot be made: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it knows another name
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Server{listener: l, path: path, http: &http.Server{
		Handler:           newHandler(b),
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

// within calls f with a name for the socket in dir that is short enough for one:
// 107 octets are all that a socket may have.
func within(dir string, f func(short string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f("/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + Socket)
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serving the control socket: %w", err)
	}
	return nil
}

// Close ends at once, and removes the socket.
func (s *Server) Close() error {
	err := errors.Join(s.http.Close(), s.listener.Close(), os.Remove(s.path))
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// whoRequest names somebody.
type whoRequest struct {
	Who string `json:"who"`
}

// countReply tells of how many.
type countReply struct {
	Count int `json:"count"`
}

func newHandler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { answer(w, b.Status(r.Context())) })
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) { answer(w, b.Sessions()) })
	mux.HandleFunc("POST /sessions/kick", count(b.Kick))
	mux.HandleFunc("GET /bans", func(w http.ResponseWriter, _ *http.Request) { answer(w, b.Bans()) })
	mux.HandleFunc("POST /bans/clear", count(b.ClearBans))
	mux.HandleFunc("POST /bans/clear-all", func(w http.ResponseWriter, _ *http.Request) { answer(w, countReply{b.ClearAllBans()}) })
	return mux
}

func count(do func(who string) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var who whoRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&who); err != nil {
			http.Error(w, "malformed request", http.StatusBadRequest)
			return
		}
		if who.Who == "" {
			http.Error(w, "nobody is named", http.StatusBadRequest)
			return
		}
		answer(w, countReply{do(who.Who)})
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}
