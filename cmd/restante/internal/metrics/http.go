package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// checkTime is how long the server may take to be ready.
	checkTime = 2 * time.Second
	// checkEvery keeps those who ask often from loading the disk.
	checkEvery = time.Second
	// requestTime bounds each part of a request.
	requestTime = 10 * time.Second
)

// Server answers GET /metrics, /healthz and /readyz.
type Server struct{ http *http.Server }

// NewServer makes a server. ready tells why mail cannot be taken or fetched now; it
// is given two seconds.
func NewServer(m *Metrics, ready func(context.Context) error, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.Handle("GET /readyz", &readiness{ready: ready, log: log})
	return &Server{&http.Server{
		Handler:           mux,
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      requestTime,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
}

// Serve answers on l until Shutdown, and returns http.ErrServerClosed then.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(l) }

// Shutdown ends Serve, when the answers under way are given or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	return errors.Join(s.http.Shutdown(ctx), s.http.Close())
}

// readiness remembers for a moment whether the server is ready.
type readiness struct {
	ready func(context.Context) error
	log   *slog.Logger

	mu    sync.Mutex
	asked time.Time
	err   error
	under chan error // where the answer to a question comes, nil: nothing is asked
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if err := r.check(); err != nil {
		http.Error(w, "not ready, see the log", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

func (r *readiness) check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asked.IsZero() && time.Since(r.asked) < checkEvery {
		return r.err
	}
	before := r.err
	r.err = r.ask()
	r.asked = time.Now()
	switch {
	case r.err != nil && before == nil:
		r.log.Error("not ready", "error", r.err)
	case r.err == nil && before != nil:
		r.log.Info("ready again")
	}
	return r.err
}

// ask waits for an answer for so long. A disk that hangs cannot be interrupted, so
// there is one question at a time; the answer to an earlier one tells nothing of now.
func (r *readiness) ask() error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	for {
		mine := r.under == nil
		if mine {
			answer := make(chan error, 1)
			r.under = answer
			go func() { answer <- r.ready(ctx) }()
		}
		select {
		case err := <-r.under:
			r.under = nil
			if mine {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v", checkTime)
		}
	}
}
