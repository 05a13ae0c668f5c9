package auth

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// worker is set in the environment of processes that the tests start: they do
// the work that it names instead of the tests.
const worker = "AUTH_TEST_WORKER"

func TestMain(m *testing.M) {
	switch os.Getenv(worker) {
	case "":
		os.Exit(m.Run())
	case "contend":
		fail(contend(os.Args[1], os.Args[2], 10))
	case "disable":
		fail(disable(os.Args[1], os.Args[2]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// start runs the test binary as a worker.
func start(t *testing.T, work string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), worker+"="+work)
	c.Stderr = os.Stderr
	return c
}

// contend makes n users of its own and quarrels with its like over a common
// user, a common alias and common domains. Losing is no error, breaking is.
func contend(path, name string, n int) error {
	ctx := context.Background()
	d, err := Open(ctx, path, Options{Hash: cheap})
	if err != nil {
		return err
	}
	defer d.Close()
	secret, err := PlainSecret("secret")
	if err != nil {
		return err
	}
	losing := func(err error) error {
		if errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	for i := range n {
		own := fmt.Sprintf("%s-%d@example.org", name, i)
		_, add := d.AddUser(ctx, own, secret)
		_, common := d.AddUser(ctx, "common@example.org", secret)
		domain := d.AddDomain(ctx, fmt.Sprintf("d%d.example", i), "")
		alias := d.AddAlias(ctx, "all@example.org", []string{own})
		_, remove := d.RemoveUser(ctx, "common@example.org")
		_, resolve := d.Resolve(ctx, "all", "example.org")
		_, login := d.Authenticate(ctx, as(own, "secret"))
		err := errors.Join(add, losing(common), losing(domain), alias, losing(remove), resolve, login)
		if err != nil {
			return fmt.Errorf("%s, round %d: %w", name, i, err)
		}
	}
	return nil
}

// check that contenders lost nothing.
func checkContended(t *testing.T, d *Directory, contenders, n int) {
	t.Helper()
	ctx := context.Background()
	users, err := d.Users(ctx, "example.org")
	must(t, err)
	own := 0
	for _, u := range users {
		if u.Address != "common@example.org" {
			own++
		}
	}
	r, err := d.Resolve(ctx, "all", "example.org")
	must(t, err)
	domains, err := d.Domains(ctx)
	must(t, err)
	if own != contenders*n || len(r.Mailboxes) != contenders*n || len(domains) != n+1 {
		t.Errorf("%d users, %d targets, %d domains; want %d, %d, %d", own, len(r.Mailboxes), len(domains), contenders*n, contenders*n, n+1)
	}
	var verdict string
	must(t, d.db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict))
	rows, err := d.db.Query(`PRAGMA foreign_key_check`)
	must(t, err)
	defer rows.Close()
	if verdict != "ok" || rows.Next() {
		t.Errorf("the database is broken: %s", verdict)
	}
}

func TestHandlesContend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	must(t, d.AddDomain(context.Background(), "example.org", ""))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := contend(path, fmt.Sprintf("h%d", i), 5); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkContended(t, d, 4, 5)
}

func TestProcessesContend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	must(t, d.AddDomain(context.Background(), "example.org", ""))
	var all []*exec.Cmd
	for i := range 3 {
		c := start(t, "contend", path, fmt.Sprintf("p%d", i))
		must(t, c.Start())
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	checkContended(t, d, 3, 10)
}

// Processes and handles that find no file make one schema.
func TestOpenAtOnce(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "restante.db")
		var all []*exec.Cmd
		for range 3 {
			c := start(t, "disable", path, "nobody@example.org")
			must(t, c.Start())
			all = append(all, c)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				d, err := Open(context.Background(), path, Options{Hash: cheap})
				if err != nil {
					t.Error(err)
					return
				}
				d.Close()
			})
		}
		for _, c := range all {
			must(t, c.Wait()) // told nothing, it ends
		}
		wg.Wait()
	}
}

// disable says that it is open, and disables a user at its next input.
func disable(path, addr string) error {
	ctx := context.Background()
	d, err := Open(ctx, path, Options{Hash: cheap})
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Println("open")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil
	}
	if err := d.SetEnabled(ctx, addr, false); err != nil {
		return err
	}
	fmt.Println("disabled")
	return nil
}

// A change that another process has made is seen at the next call, by what is
// open and warm.
func TestChangeByAnotherProcess(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	d := open(t, path)
	must(t, d.AddDomain(ctx, "example.org", ""))
	addUsers(t, d, "alice@example.org")
	const password = "secret of alice@example.org"
	account, err := d.Authenticate(ctx, as("alice@example.org", password))
	must(t, err)

	c := start(t, "disable", path, "alice@example.org")
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	said := bufio.NewScanner(out)
	if said.Scan(); said.Text() != "open" {
		t.Fatalf("the process says %q", said.Text())
	}
	if _, err := d.Resolve(ctx, "alice", "example.org"); err != nil || !account.Alive(ctx) {
		t.Fatalf("before: %v, alive %v", err, account.Alive(ctx))
	}
	_, err = in.Write([]byte("now\n"))
	must(t, err)
	if said.Scan(); said.Text() != "disabled" {
		t.Fatalf("the process says %q", said.Text())
	}
	if account.Alive(ctx) {
		t.Error("alive")
	}
	_, err = d.Resolve(ctx, "alice", "example.org")
	wantErr(t, "resolve", err, ErrDisabled)
	_, err = d.Authenticate(ctx, as("alice@example.org", password))
	wantErr(t, "log in", err, ErrBadCredentials)
	must(t, c.Wait())
}

// Readers do not wait for a change; another change says why it gave up.
func TestLockHeld(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "restante.db")
	d, other := open(t, path), open(t, path)
	must(t, d.AddDomain(ctx, "example.org", ""))
	addUsers(t, d, "alice@example.org")
	tx, err := other.db.BeginTx(ctx, nil)
	must(t, err)
	if _, err := d.Resolve(ctx, "alice", "example.org"); err != nil {
		t.Errorf("resolve beside a change: %v", err)
	}
	if _, err := d.Authenticate(ctx, as("alice@example.org", "secret of alice@example.org")); err != nil {
		t.Errorf("log in beside a change: %v", err)
	}
	d.db.SetMaxOpenConns(2)                       // the other one holds the wal-index
	_, err = d.db.Exec(`PRAGMA busy_timeout = 1`) // of that one connection
	must(t, err)
	err = d.SetEnabled(ctx, "alice@example.org", false)
	if err == nil || !strings.Contains(err.Error(), "another program, try again") {
		t.Errorf("change beside a change: %v", err)
	}
	must(t, tx.Rollback())
	must(t, d.SetEnabled(ctx, "alice@example.org", false))
}
