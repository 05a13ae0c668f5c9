package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a program on it.
type terminal struct {
	cmd    *exec.Cmd
	person *os.File // the side of keyboard and screen
	slave  *os.File
	ended  chan error // the exit of the program
	gone   chan struct{}

	mu     sync.Mutex
	screen bytes.Buffer
	seen   int // what the person has waited for already, in octets
	more   chan struct{}
}

// startOnTerminal starts cmd as the foreground of a new terminal, which is its
// standard input, output and error.
func startOnTerminal(cmd *exec.Cmd) (*terminal, error) {
	person, slave, err := openTerminal()
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	t := &terminal{
		cmd: cmd, person: person, slave: slave,
		ended: make(chan error, 1), gone: make(chan struct{}), more: make(chan struct{}, 1),
	}
	if err := cmd.Start(); err != nil {
		person.Close()
		slave.Close()
		return nil, err
	}
	go t.look()
	go func() { t.ended <- cmd.Wait() }()
	return t, nil
}

// openTerminal makes a pseudo-terminal as pts(4) tells.
func openTerminal() (person, slave *os.File, err error) {
	if person, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	raw, err := person.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var number int
	var errUnlock, errNumber error
	err = raw.Control(func(fd uintptr) {
		errUnlock = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		number, errNumber = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	})
	for _, e := range []error{err, errUnlock, errNumber} {
		if e != nil {
			person.Close()
			return nil, nil, e
		}
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		person.Close()
		return nil, nil, err
	}
	return person, slave, nil
}

// look collects what the program shows until the terminal is closed.
func (t *terminal) look() {
	defer close(t.gone)
	b := make([]byte, 4096)
	for {
		n, err := t.person.Read(b)
		t.mu.Lock()
		t.screen.Write(b[:n])
		t.mu.Unlock()
		select {
		case t.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// step is a line of what the person does: "< text" waits until text is shown,
// "hidden" until what is typed is not shown, "echo" until it is; "> text" types
// text and Enter, "^C" and "^D" press these keys.
func (t *terminal) step(line string) error {
	what, text, _ := strings.Cut(line, " ")
	switch what {
	case "":
		return nil
	case "<":
		return t.expect(text)
	case "hidden":
		return t.echo(false)
	case "echo":
		return t.echo(true)
	case ">":
		return t.press(text + "\n")
	case "^C":
		return t.press("\x03")
	case "^D":
		return t.press("\x04")
	}
	return fmt.Errorf("a person cannot do %q", line)
}

func (t *terminal) press(keys string) error {
	_, err := t.person.WriteString(keys)
	return err
}

// expect waits for text on the screen, after what was waited for before.
func (t *terminal) expect(text string) error {
	late := time.After(deadline)
	for {
		t.mu.Lock()
		i := strings.Index(t.screen.String()[t.seen:], text)
		if i >= 0 {
			t.seen += i + len(text)
		}
		t.mu.Unlock()
		if i >= 0 {
			return nil
		}
		select {
		case <-t.more:
		case <-late:
			return fmt.Errorf("%q is not shown", text)
		}
	}
}

// wait waits for the end of the program, and until all it wrote is shown.
func (t *terminal) wait() error {
	var err error
	select {
	case err = <-t.ended:
	case <-time.After(deadline):
		return fmt.Errorf("the program does not end")
	}
	t.slave.Close() // the last one: reading ends
	<-t.gone
	return err
}

// shown is the screen with plain line ends.
func (t *terminal) shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(t.screen.String(), "\r\n", "\n")
}

// echo waits until the terminal shows what is typed, or does not.
func (t *terminal) echo(want bool) error {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		settings, err := unix.IoctlGetTermios(int(t.slave.Fd()), unix.TCGETS)
		if err != nil {
			return err
		}
		if want == (settings.Lflag&unix.ECHO != 0) {
			return nil
		}
	}
	return fmt.Errorf("the terminal never came to echo: %t", want)
}

func (t *terminal) close() {
	_ = t.cmd.Process.Kill() // it may have ended
	t.slave.Close()
	t.person.Close()
}
