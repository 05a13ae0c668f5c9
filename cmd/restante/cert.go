package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"restante/cmd/restante/internal/certs"
	"restante/cmd/restante/internal/config"
)

func (a *app) certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show the certificates",
		RunE:  group,
	}
	cmd.AddCommand(a.certList())
	return cmd
}

// certRow is one certificate in "cert list --json".
type certRow struct {
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days"`   // until then
	Source   string    `json:"source"` // acme, file, self-signed
	File     string    `json:"file"`
	Warnings []string  `json:"warnings"`
}

func (a *app) certList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificates: for which names, by whom, until when",
		Long: `List the certificates that the server uses: for which names each is, who has issued
it, until when it is valid, and where it comes from. The first is for clients that
do not say which name they want.`,
		Args: arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			infos, err := certs.Check(certificateOptions(c))
			if err != nil {
				return err
			}
			var rows []certRow
			for _, info := range infos {
				rows = append(rows, newCertRow(c, info, time.Now()))
			}
			err = list(a, asJSON, rows, "no certificate yet; the server makes a self-signed one when it starts",
				"NAMES | ISSUER | VALID UNTIL | DAYS | SOURCE", func(r certRow) []string {
					return []string{strings.Join(r.Names, " "), r.Issuer, r.NotAfter.Format(time.DateOnly), strconv.Itoa(r.Days), r.Source + " " + r.File}
				})
			for _, r := range rows {
				for _, w := range r.Warnings {
					fmt.Fprintln(a.stderr, "warning:", w)
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func newCertRow(c *config.Config, info certs.Info, now time.Time) certRow {
	r := certRow{
		Names: info.Names, Issuer: info.Issuer, NotAfter: info.NotAfter.UTC(), File: info.Source, Warnings: info.Warnings,
		Days: int(math.Floor(info.NotAfter.Sub(now).Hours() / 24)), Source: "file",
	}
	switch {
	case c.TLS.ACME && info.Source == acmeConfig(c).File():
		r.Source = "acme"
	case info.SelfSigned:
		r.Source = "self-signed"
	}
	if r.Warnings == nil {
		r.Warnings = []string{}
	}
	return r
}
