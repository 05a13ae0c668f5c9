package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"restante/cmd/restante/internal/control"
)

// ask asks the server that runs on the data directory.
func (a *app) ask(ctx context.Context, question func(context.Context, *control.Client) error) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if err := becomeOwner(c.DataDir); err != nil {
		return err
	}
	if err := checkDataDir(c.DataDir); err != nil {
		return err
	}
	err = question(ctx, control.Dial(c.DataDir))
	if errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("no server is running on the data directory %s; start it with \"restante serve\", or see \"systemctl status restante\"", c.DataDir)
	}
	return err
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask the running server how it is",
		Long: `Ask the running server how it is: since when it runs, where it listens, how many
connections are open, and whether it can take mail now. The exit status is 1 when
it runs but cannot, and when none runs.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					err = writeJSON(a.stdout, s)
				} else {
					err = a.tellStatus(s)
				}
				if err == nil && s.Trouble != "" {
					err = fmt.Errorf("the server runs, but cannot take mail now: %s", s.Trouble)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) tellStatus(s control.Status) error {
	rows := [][]string{
		{"process", strconv.Itoa(s.PID)},
		{"running since", day(s.Since)},
		{"hostname", s.Hostname},
		{"data directory", s.DataDir},
	}
	for _, l := range s.Listening {
		rows = append(rows, []string{"listening", l.Protocol + " on " + l.Address})
	}
	rows = append(rows,
		[]string{"connections", fmt.Sprintf("%d SMTP, %d POP3", s.Open["smtp"], s.Open["pop3"])},
		[]string{"turned away", fmt.Sprintf("%d SMTP, %d POP3, since the start", s.Refused["smtp"], s.Refused["pop3"])},
		[]string{"refused to log in", plural(s.Bans, "address, network or account")},
	)
	if s.Bans != 1 {
		rows[len(rows)-1][1] = fmt.Sprintf("%d addresses, networks or accounts", s.Bans)
	}
	return table(a.stdout, "restante | "+s.Version, rows)
}

func (a *app) sessionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List and end the connections of the running server",
		RunE:  group,
	}
	cmd.AddCommand(a.sessionsList(), a.sessionsKick())
	return cmd
}

func (a *app) sessionsList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the connections, the oldest first",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				all, err := c.Sessions(ctx)
				if err != nil {
					return err
				}
				slices.SortFunc(all, func(x, y control.Session) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.ID, y.ID)) })
				now := time.Now()
				return list(a, asJSON, all, "no connections", "ID | PROTOCOL | FROM | FOR | TLS | WHO", func(s control.Session) []string {
					return []string{s.ID, s.Protocol, s.Client, now.Sub(s.Since).Round(time.Second).String(), s.TLS, sessionOwner(s)}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// sessionOwner is as whom a client has introduced itself.
func sessionOwner(s control.Session) string {
	who := cmp.Or(s.User, s.Helo, "-")
	if s.AppPassword != "" {
		who += " (" + s.AppPassword + ")"
	}
	if s.Messages > 0 {
		who += ", " + plural(s.Messages, "message")
	}
	return who
}

func (a *app) sessionsKick() *cobra.Command {
	return &cobra.Command{
		Use:   "kick ID|CLIENT|USER",
		Short: "End connections",
		Long: `End connections: the one with an ID that "restante sessions list" shows, those of a
client, by its IP address, or those of a user. Nothing is lost: a message that was
not answered yet comes again, and one that was not deleted stays. Who was ended may
connect again.`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				n, err := c.Kick(ctx, strings.TrimSpace(args[0]))
				if err == nil && n == 0 {
					err = fmt.Errorf("there is no session %s; \"restante sessions list\" shows what there is", args[0])
				}
				if err == nil {
					_, err = fmt.Fprintf(a.stdout, "ended %s\n", plural(n, "connection"))
				}
				return err
			})
		},
	}
}

func (a *app) authCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auth",
		Short: "See and forgive failed logins",
		RunE:  group,
	}
	bans := &cobra.Command{
		Use:   "bans",
		Short: "See who is refused after failed logins, and forgive it",
		RunE:  group,
	}
	bans.AddCommand(a.bansList(), a.bansClear())
	cmd.AddCommand(bans)
	return cmd
}

func (a *app) bansList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List who has failed to log in lately",
		Long: `List the addresses, networks and accounts with failed logins, and until when they
are refused. Of the failures half are forgotten each hour. The topic "security" has
the rules.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				all, err := c.Bans(ctx)
				if err != nil {
					return err
				}
				return list(a, asJSON, all, "no failed logins", "WHO | KIND | FAILURES | REFUSED UNTIL", func(b control.Ban) []string {
					until := "-"
					if b.Refused {
						until = b.Until.Local().Format(time.DateTime)
					}
					return []string{b.Name, b.Kind, strconv.FormatFloat(b.Failures, 'f', 1, 64), until}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func (a *app) bansClear() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "clear ADDRESS|NETWORK|USER",
		Short: "Forget failed logins, so that who is refused may log in again",
		Long: `Forget the failed logins of an address and of its network, of a network, or of a
user, so that who is refused may log in again.`,
		Example: `  restante auth bans clear 192.0.2.7
  restante auth bans clear alice@example.org
  restante auth bans clear --all`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			who := strings.TrimSpace(strings.Join(args, ""))
			if all == (who != "") {
				return usagef(cmd, "name one address, network or user, or give --all")
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				clear := func() (int, error) { return c.ClearBans(ctx, who) }
				if all {
					clear = func() (int, error) { return c.ClearAllBans(ctx) }
				}
				n, err := clear()
				if err == nil && n == 0 && !all {
					err = fmt.Errorf("there are no failed logins of %s; \"restante auth bans list\" shows those there are", who)
				}
				if err == nil {
					_, err = fmt.Fprintf(a.stdout, "forgot the failed logins of %d\n", n)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "of everybody")
	return cmd
}
