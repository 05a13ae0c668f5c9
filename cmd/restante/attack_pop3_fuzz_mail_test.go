package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fuzzedServer is the whole server in this process, with a user whose mailbox has the
// same messages before each session.
type fuzzedServer struct {
	*server
	pop3Address string
	maildir     string
	files       []fuzzedFile // in the order of the maildrop
	faults      faultLog
}

type fuzzedFile struct {
	name    string // below the Maildir
	content []byte
}

const fuzzedUser = "fuzz@" + testDomain

// faultLog keeps what is logged as an error.
type faultLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *faultLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *faultLog) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, l.lines = l.lines, nil
	return lines
}

func startFuzzed(f *testing.F) *fuzzedServer {
	f.Helper()
	prepared := prepareServer(f, serverOptions{settings: allowPlaintext})
	for _, name := range []string{"FAILURE_DELAY=0s", "ARGON2_MEMORY=1MiB"} {
		key, value, _ := strings.Cut(name, "=")
		f.Setenv("RESTANTE_AUTH_"+key, value)
	}
	f.Setenv("RESTANTE_LIMITS_PAUSE", "0s")
	restante(f, prepared.config, testPassword+"\n", "user", "add", fuzzedUser, "--password-stdin")
	for _, body := range []string{".\n..\n+OK forged\n.\n", strings.Repeat("0123456789\n", 9000)} {
		restante(f, prepared.config, "Subject: ours\n\n"+body, "mailbox", "deliver", fuzzedUser)
	}
	s := &fuzzedServer{maildir: prepared.maildir("fuzz")}
	for name, content := range map[string]string{"new/1.foreign": "Subject: foreign\r\n\r\n.\rbare\r\n", "cur/2.foreign:2,S": "no header\n", "cur/3.last:2,": "Subject: no line end\n\nend"} {
		if err := os.WriteFile(filepath.Join(s.maildir, name), []byte(content), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	c, err := (&app{configFlag: prepared.config, env: os.Environ()}).loadConfig()
	if err != nil {
		f.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&s.faults, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, stop := context.WithCancel(context.Background())
	if s.server, err = start(ctx, c, log, new(slog.LevelVar)); err != nil {
		f.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, nil, nil) }()
	f.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})
	for _, l := range s.listeners {
		if l.protocol == protocolPOP3 {
			s.pop3Address = l.Addr().String()
		}
	}
	s.learn(f)
	return s
}

// learn finds out which file is which message, by what POP3 serves.
func (s *fuzzedServer) learn(f *testing.F) {
	f.Helper()
	drop, err := s.mail.OpenMaildrop(f.Context(), fuzzedUser)
	if err != nil {
		f.Fatal(err)
	}
	defer drop.Close()
	for i := range drop.Len() {
		r, err := drop.Message(i)
		if err != nil {
			f.Fatal(err)
		}
		wire, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		r.Close()
		for name, content := range s.present(f) {
			if bytes.Equal(wireForm(content), wire) {
				s.files = append(s.files, fuzzedFile{name, content})
			}
		}
	}
	if len(s.files) != 5 {
		f.Fatalf("%d messages", len(s.files))
	}
}

// present are the files of the mailbox; tmp/ among them.
func (s *fuzzedServer) present(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, sub := range []string{"new", "cur", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(s.maildir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.Join(sub, e.Name())
			if all[name], err = os.ReadFile(filepath.Join(s.maildir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// settle waits for the end of the session, compares what is left with what should be,
// and puts back what was removed.
func (s *fuzzedServer) settle(t *testing.T, removed []bool) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(100 * time.Microsecond) {
		drop, err := s.mail.OpenMaildrop(t.Context(), fuzzedUser)
		if err == nil {
			err = drop.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the lock is not released: %v", err)
		}
	}
	left := s.present(t)
	for i, f := range s.files {
		content, there := left[f.name]
		if there == removed[i] || there && !bytes.Equal(content, f.content) {
			t.Errorf("message %d, removed %t: there %t, %.60q", i+1, removed[i], there, content)
		}
		delete(left, f.name)
		if !there {
			if err := os.WriteFile(filepath.Join(s.maildir, f.name), f.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("more files: %q", left)
	}
	if drafts, err := os.ReadDir(filepath.Join(s.config.DataDir, "mail", ".tmp")); len(drafts) > 0 || err != nil {
		t.Errorf("drafts: %v, %v", drafts, err)
	}
	if faults := s.faults.take(); len(faults) > 0 {
		t.Errorf("errors in the log: %q", faults)
	}
}
