package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"restante/auth"
	"restante/cmd/restante/internal/config"
	"restante/storage"
)

const (
	defaultConfigFile = "/etc/restante/restante.toml"
	directoryFile     = "restante.db"
)

// app is what every command shares: its streams and where its settings are.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string
	configFlag     string
}

// getenv looks a variable up in the environment that the program was given.
func (a *app) getenv(name string) string {
	for i := len(a.env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// configFile is the file in use, by flag, environment, default.
func (a *app) configFile() string {
	switch {
	case a.configFlag != "":
		return a.configFlag
	case a.getenv("RESTANTE_CONFIG") != "":
		return a.getenv("RESTANTE_CONFIG")
	}
	return defaultConfigFile
}

// loadConfig reads the settings. A file that is missing is an error that says
// how to get one.
func (a *app) loadConfig() (*config.Config, error) {
	file := a.configFile()
	c, err := config.Load(file, config.LoadOptions{Env: a.env})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no configuration file %s; make one with \"restante init\", or name yours with --config", file)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to read the configuration file %s; run the command with sudo", file)
	}
	if err != nil {
		return nil, err
	}
	if err := hashParams(c).Check(); err != nil {
		return nil, fmt.Errorf("auth.argon2_memory, auth.argon2_time and auth.argon2_threads do not go together: %w", err)
	}
	return c, nil
}

// installation is the data directory as the commands that manage it see it.
type installation struct {
	config *config.Config
	users  *auth.Directory
	mail   *storage.Store
}

// open reads the settings, becomes the owner of the data directory and opens
// what is in it. The caller closes it.
func (a *app) open(ctx context.Context) (*installation, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if err := becomeOwner(c.DataDir); err != nil {
		return nil, err
	}
	return openInstallation(ctx, c)
}

// openInstallation opens the directory and the mail under c.DataDir.
func openInstallation(ctx context.Context, c *config.Config) (*installation, error) {
	if err := checkDataDir(c.DataDir); err != nil {
		return nil, err
	}
	mail, err := storage.Open(c.DataDir, storage.Options{Hostname: c.Hostname})
	if err != nil {
		return nil, err
	}
	users, err := openDirectory(ctx, c, nil)
	if err != nil {
		return nil, errors.Join(err, mail.Close())
	}
	return &installation{config: c, users: users, mail: mail}, nil
}

// openDirectory opens the database of domains and users; log may be nil.
func openDirectory(ctx context.Context, c *config.Config, log *slog.Logger) (*auth.Directory, error) {
	return auth.Open(ctx, filepath.Join(c.DataDir, directoryFile), directoryOptions(c, log))
}

func directoryOptions(c *config.Config, log *slog.Logger) auth.Options {
	return auth.Options{Hash: hashParams(c), Log: log}
}

func (i *installation) Close() error {
	return errors.Join(i.users.Close(), i.mail.Close())
}

// with opens the installation for one command and closes it again. An address
// that cannot be one is a wrong command line.
func (a *app) with(ctx context.Context, do func(*installation) error) error {
	i, err := a.open(ctx)
	if err != nil {
		return err
	}
	err = i.suggest(ctx, do(i))
	if errors.Is(err, auth.ErrBadAddress) {
		err = usageError{err}
	}
	return errors.Join(err, i.Close())
}

// checkDataDir tells a data directory that is missing or not ours in words
// that say what to do.
func checkDataDir(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no data directory %s; make it with \"restante init\"", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to reach the data directory %s; run the command with sudo", dir)
	case err != nil:
		return fmt.Errorf("the data directory cannot be used: %w", err)
	case !st.IsDir():
		return fmt.Errorf("the data directory %s is not a directory; move what is there away, or set data_dir in the configuration", dir)
	}
	err = unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("no permission to use the data directory %s; run the command as its owner%s, or with sudo", dir, ownerName(st))
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be used: %w", dir, err)
	}
	return nil
}
