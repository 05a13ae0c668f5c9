package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// deliverers is how many messages are delivered at the same time: the disk syncs
// several for hardly more than one.
const deliverers = 16

func (a *app) mailboxDeliver() *cobra.Command {
	return &cobra.Command{
		Use:   "deliver ADDRESS [FILE...]",
		Short: "Put messages into a mailbox",
		Long: `Put messages into the mailbox of a user: the files that are named, one message in
each, or the one on standard input. They are stored as they are. Files that cannot
be delivered are named, and the others are delivered all the same.

It may be used beside a running server, and returns when the messages are safe on
the disk.`,
		Example: `  restante mailbox deliver alice@example.org < message.eml
  restante mailbox deliver alice@example.org old-mail/*.eml`,
		Args: arguments(1, -1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // the names of files
			}
			return a.completeUsers(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			// With the rights of whoever gives the command: the owner of the data
			// directory may not be able to read the files.
			files, unread := openAll(args[1:])
			defer files.close()
			err := a.with(cmd.Context(), func(i *installation) error {
				return a.deliver(cmd.Context(), i, args[0], len(args) > 1, files)
			})
			return errors.Join(err, unread)
		},
	}
}

// openFiles are messages to deliver, opened only when they are read.
type openFiles []*os.File

// openAll opens the files that can be, and tells which cannot.
func openAll(names []string) (files openFiles, err error) {
	var errs []error
	for _, name := range names {
		f, err := os.Open(name)
		if err == nil {
			var st os.FileInfo
			if st, err = f.Stat(); err == nil && st.IsDir() {
				err = fmt.Errorf("%s is a directory; name the files in it", name)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("not delivered: %w", err))
			continue
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

func (f openFiles) close() {
	for _, file := range f {
		file.Close() // may be closed already
	}
}

// deliver puts the files into a mailbox, or standard input when none was named.
func (a *app) deliver(ctx context.Context, i *installation, address string, named bool, files openFiles) error {
	u, err := i.users.User(ctx, address)
	if err != nil {
		return err
	}
	if !named {
		size, err := interruptible(ctx, func() (int64, error) { return deliverOne(ctx, i, u.Address, a.stdin) })
		if err == nil {
			fmt.Fprintf(a.stdout, "delivered 1 message (%s) to %s\n", octets(size), u.Address)
		}
		return err
	}
	return a.deliverFiles(ctx, i, u.Address, files)
}

func (a *app) deliverFiles(ctx context.Context, i *installation, mailbox string, files openFiles) error {
	var mu sync.Mutex
	var errs []error
	var done int
	var size int64
	bar := a.progress(len(files))
	var work errgroup.Group
	work.SetLimit(deliverers)
	for _, f := range files {
		work.Go(func() error {
			n, err := deliverOne(ctx, i, mailbox, f)
			f.Close()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("not delivered: %s: %w", f.Name(), err))
			} else {
				done++
				size += n
			}
			bar(done + len(errs))
			return nil
		})
	}
	_ = work.Wait() // the errors are in errs
	fmt.Fprintf(a.stdout, "delivered %s (%s) to %s\n", plural(done, "message"), octets(size), mailbox)
	if ctx.Err() != nil {
		return fmt.Errorf("%w with %s left", errInterrupted, plural(len(errs), "message"))
	}
	return errors.Join(errs...)
}

// progress draws a bar on a terminal as often as what it returns is called.
func (a *app) progress(all int) func(done int) {
	f, ok := a.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || all < 2 {
		return func(int) {}
	}
	const width = 40
	drawn := -1
	return func(done int) {
		if percent := 100 * done / all; percent > drawn {
			drawn = percent
			full := width * done / all
			fmt.Fprintf(f, "\r[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat(" ", width-full), percent)
		}
		if done == all {
			fmt.Fprintln(f)
		}
	}
}

// errEmpty: a message has at least a header.
var errEmpty = errors.New("it is empty")

// deliverOne puts one message into a mailbox, and returns its octets on disk.
func deliverOne(ctx context.Context, i *installation, mailbox string, message io.Reader) (int64, error) {
	var first [1]byte
	n, err := io.ReadFull(message, first[:])
	if n == 0 {
		if err == io.EOF {
			err = errEmpty
		}
		return 0, fmt.Errorf("the message cannot be used: %w", err)
	}
	return i.mail.Deliver(ctx, newMessageID(), []string{mailbox}, io.MultiReader(bytes.NewReader(first[:]), message))
}

// newMessageID is the id of a message that did not come by SMTP.
func newMessageID() string { return strings.ToLower(rand.Text()[:16]) }
