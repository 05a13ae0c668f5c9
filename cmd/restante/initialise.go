package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"

	"github.com/spf13/cobra"

	"restante/auth"
	"restante/cmd/restante/internal/config"
)

// serviceUser owns the data directory that init makes as root, if it exists.
const serviceUser = "restante"

// dataDirVariable is the environment variable of the setting data_dir.
const dataDirVariable = "RESTANTE_DATA_DIR"

// initOptions are the flags of "restante init".
type initOptions struct {
	domain, hostname, dataDir, user string
	password                        passwordFlags
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init --domain DOMAIN --hostname HOST",
		Short: "Set up: configuration, data directory, first domain and user",
		Long: `Set up a server: write a commented configuration file, make the data directory,
add the first domain and its first user, and print what to publish in the DNS,
which ports to open and how to set up mail programs. The user gets a generated
password unless --password-stdin is given.

What is there already is kept: given again, it changes nothing. Started by root
it makes the data directory for the user "restante" if there is one.`,
		Example: "  restante init --domain example.org --hostname mail.example.org --user alice",
		Args:    arguments(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.initialise(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.domain, "domain", "", "the `DOMAIN` of the mail addresses, as in example.org")
	f.StringVar(&o.hostname, "hostname", "", "the full name of this `HOST` in the DNS, as in mail.example.org")
	f.StringVar(&o.dataDir, "data-dir", "", "the `DIRECTORY` to keep the mail in (default $"+dataDirVariable+", else "+config.Default().DataDir+")")
	f.StringVar(&o.user, "user", "postmaster", "the `NAME` before the @ in the first user's address")
	o.password.register(cmd)
	return cmd
}

// initialise does the steps one by one; each keeps what it finds.
func (a *app) initialise(cmd *cobra.Command, o initOptions) error {
	first, err := o.check(cmd)
	if err != nil {
		return err
	}
	// The service's user must be able to read the configuration and to reach the
	// data directory, however careful root's shell is.
	syscall.Umask(0o022)
	var s setUp
	if s.config, err = a.prepare(o, &s.done); err != nil {
		return err
	}
	err = a.with(cmd.Context(), func(i *installation) error {
		return a.firstAccount(cmd.Context(), i, first, o.password, &s)
	})
	if err != nil {
		return err
	}
	for _, line := range s.done {
		fmt.Fprintln(a.stdout, line)
	}
	if len(s.done) > 0 {
		return a.printNextSteps(&s, first)
	}
	fmt.Fprintf(a.stdout, "Nothing was changed: %s, %s and the domain %s with a user are there already.\n", a.configFile(), s.config.DataDir, first.Domain)
	if cmd.Flags().Changed("user") && !s.userExists {
		fmt.Fprintf(a.stdout, "To add the user %s: restante user add %s\n", first, first)
	}
	return nil
}

// setUp is what init did and found.
type setUp struct {
	config     *config.Config
	done       []string // a line each
	userAdded  bool
	userExists bool   // before
	generated  string // the password, if it was made here
}

// check makes the address of the first user of the flags.
func (o *initOptions) check(cmd *cobra.Command) (auth.Address, error) {
	if o.domain == "" || o.hostname == "" {
		return auth.Address{}, usagef(cmd, "--domain and --hostname are needed, as in \"restante init --domain example.org --hostname mail.example.org\"")
	}
	if err := o.password.check(cmd); err != nil {
		return auth.Address{}, err
	}
	var err error
	if o.hostname, err = parseDomain(o.hostname); err != nil {
		return auth.Address{}, usagef(cmd, "--hostname: %w", err)
	}
	if o.domain, err = parseDomain(o.domain); err != nil {
		return auth.Address{}, usagef(cmd, "--domain: %w", err)
	}
	first, err := auth.ParseUser(o.user + "@" + o.domain)
	if err != nil {
		return auth.Address{}, usagef(cmd, "--user: %w", err)
	}
	if o.dataDir != "" {
		o.dataDir, err = filepath.Abs(o.dataDir)
	}
	return first, err
}

// prepare sees to the configuration and the data directory. A configuration
// that it wrote does not stay when the rest fails.
func (a *app) prepare(o initOptions, done *[]string) (_ *config.Config, err error) {
	wrote, err := a.writeConfig(o)
	if err != nil {
		return nil, err
	}
	if wrote {
		*done = append(*done, "wrote the configuration "+a.configFile())
		defer func() {
			if err != nil {
				err = errors.Join(err, os.Remove(a.configFile()))
			}
		}()
	}
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if err := o.agree(c); err != nil {
		return nil, err
	}
	made, err := makeDataDir(c.DataDir)
	if made != "" {
		*done = append(*done, made)
	}
	return c, err
}

// agree refuses flags that say other than the settings in use.
func (o *initOptions) agree(c *config.Config) error {
	for _, s := range c.Settings() {
		flag, given := "--hostname", o.hostname
		if s.Key == "data_dir" {
			flag, given = "--data-dir", o.dataDir
		} else if s.Key != "hostname" {
			continue
		}
		if given != "" && given != s.Value {
			return fmt.Errorf("%s is %s, but %s in use is %s (%s); change it there, or give the same here", flag, given, s.Key, s.Value, s.Origin)
		}
	}
	return nil
}

// writeConfig writes the configuration unless there is one.
func (a *app) writeConfig(o initOptions) (wrote bool, err error) {
	file := a.configFile()
	dir := cmp.Or(o.dataDir, a.getenv(dataDirVariable), config.Default().DataDir)
	if dir, err = filepath.Abs(dir); err != nil {
		return false, err
	}
	const place = "give the command with sudo, or name a file of yours with --config"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, fmt.Errorf("there is no place for the configuration: %w; %s", err, place)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the configuration cannot be written: %w; %s", err, place)
	}
	_, err = f.Write(config.Template(o.hostname, dir))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, errors.Join(err, os.Remove(file))
	}
	return true, nil
}

// makeDataDir makes the data directory unless there is one, for the service's
// user when root does it, and says what it did.
func makeDataDir(dir string) (made string, err error) {
	if _, err := os.Stat(dir); err == nil {
		return "", checkDataDir(dir)
	}
	const place = "give the command with sudo, or choose a place of yours with --data-dir"
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("there is no place for the data directory: %w; %s", err, place)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("the data directory cannot be made: %w; %s", err, place)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return "", fmt.Errorf("the data directory cannot be made: %w", err)
	}
	made = "made the data directory " + dir
	if os.Geteuid() != 0 {
		return made, nil
	}
	u, err := user.Lookup(serviceUser)
	if err != nil {
		return made + `, which is root's, as there is no user "` + serviceUser + `"`, nil
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID, os.Chown(dir, uid, gid)); err != nil {
		return "", fmt.Errorf("the data directory cannot be given to the user %s: %w", serviceUser, err)
	}
	return made + " for the user " + serviceUser, nil
}

// syncDir puts the entries of a directory on stable storage.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// firstAccount adds the domain, and a user when the domain has none.
func (a *app) firstAccount(ctx context.Context, i *installation, first auth.Address, p passwordFlags, s *setUp) error {
	switch err := i.users.AddDomain(ctx, first.Domain, ""); {
	case err == nil:
		s.done = append(s.done, "added the domain "+first.Domain)
	case !errors.Is(err, auth.ErrExists):
		return err
	}
	users, err := i.users.Users(ctx, first.Domain)
	if err != nil || len(users) > 0 {
		s.userExists = slices.ContainsFunc(users, func(u auth.User) bool { return u.Address == first.String() })
		return err
	}
	if err := refuseOldMail(ctx, i, first.String()); err != nil {
		return err
	}
	p.generate = !p.fromStdin
	secret, generated, err := a.password(ctx, p, first.String())
	if err != nil {
		return err
	}
	u, err := i.users.AddUser(ctx, first.String(), secret)
	if err != nil {
		return err
	}
	s.done = append(s.done, "added the user "+u.Address)
	s.userAdded, s.generated = true, generated
	return i.mail.CreateMailbox(ctx, u.Address)
}

// printNextSteps says what is left to do outside of this program.
func (a *app) printNextSteps(s *setUp, first auth.Address) error {
	password := "the one that you gave"
	if s.generated != "" {
		password = s.generated + "   (shown only now)"
	}
	file, serve := a.configFile(), "restante serve"
	if file != defaultConfigFile {
		serve = "restante --config " + shellWord(file) + " serve"
	}
	width := max(len(first.Domain)+len("_dmarc."), len(s.config.Hostname)) + 1
	return nextText.Execute(a.stdout, map[string]any{
		"Hostname":   s.config.Hostname,
		"Domain":     first.Domain,
		"User":       first.String(),
		"Added":      s.userAdded,
		"Password":   password,
		"File":       file,
		"Serve":      serve,
		"SelfSigned": len(s.config.TLS.Certificates) == 0,
		"Ports":      strings.Join(portNumbers(s.config, protocolSMTP, protocolPOP3, protocolPOP3S), ", "),
		"POP3":       strings.Join(portNumbers(s.config, protocolPOP3), " or "),
		"POP3S":      strings.Join(portNumbers(s.config, protocolPOP3S), " or "),
		"MX":         fmt.Sprintf("%-*s MX    10 %s.", width, first.Domain+".", s.config.Hostname),
		"A":          fmt.Sprintf("%-*s A     192.0.2.1", width, s.config.Hostname+"."),
		"AAAA":       fmt.Sprintf("%-*s AAAA  2001:db8::1", width, s.config.Hostname+"."),
		"SPF":        fmt.Sprintf("%-*s TXT   \"v=spf1 -all\"", width, first.Domain+"."),
		"DMARC":      fmt.Sprintf("%-*s TXT   \"v=DMARC1; p=reject\"", width, "_dmarc."+first.Domain+"."),
	})
}

// portNumbers are the ports on which these protocols are spoken.
func portNumbers(c *config.Config, of ...protocol) []string {
	var numbers []string
	for _, p := range ports(c) {
		n := p.address[strings.LastIndexByte(p.address, ':')+1:]
		if slices.Contains(of, p.protocol) && !slices.Contains(numbers, n) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

var nextText = template.Must(template.New("next").Parse(`
{{if .Added}}Your first account
  address and user name   {{.User}}
  password                {{.Password}}

{{end}}1. Publish in the DNS (with the addresses of this machine for 192.0.2.1 and
   2001:db8::1; without IPv6, leave the AAAA line out):

     {{.MX}}
     {{.A}}
     {{.AAAA}}

   This server receives mail and sends none. If nothing else sends mail for the
   domain, say so, and forgers are refused:

     {{.SPF}}
     {{.DMARC}}

2. Open these TCP ports to the internet: {{.Ports}}

{{if .SelfSigned}}   The server makes a self-signed certificate, which mail programs ask about once.
   With one of a certificate authority they do not. To have the server get one, set
   acme = true in the section [tls] of {{.File}} and open port 80;
   or name the files of one there.

{{end}}3. Start it:  {{.Serve}}
   As a service that starts with the machine: see "restante help install".

4. Set up mail programs:

     Incoming   POP3, server {{.Hostname}}
{{- if .POP3S}}
                port {{.POP3S}} with SSL/TLS{{end}}
{{- if .POP3}}
                port {{.POP3}} with STARTTLS{{end}}
     User name  the whole address{{if .Added}}, {{.User}}{{end}}
     Password   "normal password"
     Outgoing   that of your provider: this server sends no mail

The settings are in {{.File}}, each with a word on what it does.
`))
