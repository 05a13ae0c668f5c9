package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// mailProgram is a program that fetches mail into a Maildir and remembers what it
// has seen.
type mailProgram struct {
	name, mode string
	// configure writes its configuration into dir and returns its arguments.
	configure func(t *testing.T, s *testServer, dir, maildir string, keep bool) []string
}

func getmail(mode string) mailProgram {
	return mailProgram{"getmail", mode, func(t *testing.T, s *testServer, dir, maildir string, keep bool) []string {
		kind, port := "SimplePOP3Retriever", portOf(t, s.pop3)
		if mode == "implicit TLS" {
			kind, port = "SimplePOP3SSLRetriever", portOf(t, s.pop3s)
		}
		// It refuses to deliver as root, so somebody else must be able to read this.
		certificate, err := os.ReadFile(s.cert)
		if err != nil {
			t.Fatal(err)
		}
		cert := writeFile(t, filepath.Join(dir, "cert.pem"), certificate)
		rc := fmt.Sprintf("[retriever]\ntype = %s\nserver = localhost\nport = %s\nusername = alice@%s\npassword = %s\n",
			kind, port, testDomain, testPassword)
		if mode == "implicit TLS" {
			rc += "ca_certs = " + cert + "\n"
		}
		rc += fmt.Sprintf("[destination]\ntype = Maildir\npath = %s/\n[options]\ndelete = %t\nread_all = false\ndelivered_to = false\nreceived = false\n",
			maildir, !keep)
		writeFile(t, filepath.Join(dir, "rc"), []byte(rc))
		return []string{"--getmaildir", dir, "--rcfile", "rc"}
	}}
}

func mpop(mode string) mailProgram {
	return mailProgram{"mpop", mode, func(t *testing.T, s *testServer, dir, maildir string, keep bool) []string {
		onOff := map[bool]string{true: "on", false: "off"}
		port := portOf(t, s.pop3)
		if mode == "implicit TLS" {
			port = portOf(t, s.pop3s)
		}
		rc := fmt.Sprintf("account default\nhost localhost\nport %s\nuser alice@%s\npassword \"%s\"\nauth user\nreceived_header off\n"+
			"delivery maildir %s\nuidls_file %s/uidls\nkeep %s\ntls %s\n",
			port, testDomain, testPassword, maildir, dir, onOff[keep], onOff[mode != "plain"])
		if mode != "plain" {
			rc += "tls_starttls " + onOff[mode == "STLS"] + "\ntls_trust_file " + s.cert + "\n"
		}
		return []string{"-C", writeFile(t, filepath.Join(dir, "rc"), []byte(rc))}
	}}
}

// fetch runs the program and returns what came, sorted.
func (f mailProgram) fetch(t *testing.T, s *testServer, dir string, keep bool) []string {
	t.Helper()
	maildir := filepath.Join(t.TempDir(), "fetched")
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(maildir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.name, f.configure(t, s, dir, maildir, keep)...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if f.name == "getmail" && os.Geteuid() == 0 {
		actAs(t, cmd, nobody, dir, maildir)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", f.name, err, out)
	}
	files, err := filepath.Glob(filepath.Join(maildir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, file := range files {
		texts = append(texts, string(bytes.ReplaceAll(takeFile(t, file), []byte("\r"), nil)))
	}
	slices.Sort(texts)
	return texts
}

const nobody = 65534 // the user of that name on every Linux

// actAs lets a program run as another user, to whom the directories are given.
func actAs(t *testing.T, cmd *exec.Cmd, uid int, dirs ...string) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	for _, dir := range dirs {
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, uid, uid))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestClientsFetchInto has programs fetch and keep, fetch again, and delete.
func TestClientsFetchInto(t *testing.T) {
	for _, f := range []mailProgram{
		getmail("plain"), getmail("implicit TLS"), mpop("plain"), mpop("STLS"), mpop("implicit TLS"),
	} {
		t.Run(f.name+" "+f.mode, func(t *testing.T) {
			client(t, f.name)
			s := newServer(t, serverOptions{settings: allowPlaintext})
			messages := awkwardMessages()
			if f.name == "getmail" { // it completes a header, and makes a bare CR a line end
				messages = messagesExcept(t, "header only", "bare CR in the middle")
			}
			for _, m := range messages {
				s.deliver(t, []byte(m.text), "alice@"+testDomain)
			}
			var want []string
			for _, m := range s.peekAll(t, "alice") {
				want = append(want, string(bytes.ReplaceAll(m, []byte("\r"), nil)))
			}
			slices.Sort(want)
			dir := t.TempDir()
			compareTexts(t, "all", f.fetch(t, s, dir, true), want)
			compareTexts(t, "those seen before", f.fetch(t, s, dir, true), nil)
			late := []byte("Subject: late\r\n\r\nand deleted\r\n")
			s.deliver(t, late, "alice@"+testDomain)
			got := f.fetch(t, s, dir, false)
			if len(got) != 1 || !bytes.HasSuffix([]byte(got[0]), []byte("\nand deleted\n")) {
				t.Errorf("one new message: %.300q", got)
			}
			if left := len(s.files("alice")); left != 0 && left != len(want) { // some delete what they saw before
				t.Errorf("%d messages are left of %d", left, len(want)+1)
			}
		})
	}
}

func compareTexts(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d messages, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: message %d:\n got %.600q\nwant %.600q", what, i, got[i], want[i])
		}
	}
}

func TestClientsSendMsmtp(t *testing.T) {
	client(t, "msmtp")
	s := newServer(t, serverOptions{})
	for _, mode := range []string{"plain", "STARTTLS"} {
		t.Run(mode, func(t *testing.T) {
			rc := fmt.Sprintf("account default\nhost localhost\nport %s\nfrom sender@client.example\ndomain client.example\nauth off\nset_date_header off\nset_msgid_header off\n", portOf(t, s.smtp))
			if mode == "STARTTLS" {
				rc += "tls on\ntls_starttls on\ntls_trust_file " + s.cert + "\n"
			}
			file := writeFile(t, filepath.Join(t.TempDir(), "rc"), []byte(rc))
			for _, m := range messagesExcept(t, "header only") {
				cmd := exec.Command("msmtp", "-C", file, "--", "alice@"+testDomain)
				cmd.Stdin = bytes.NewReader([]byte(m.text))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", m.name, err, out)
				}
				got := s.fetchAll(t, "alice")
				if len(got) != 1 {
					t.Fatalf("%s: %d messages came", m.name, len(got))
				}
				sameOctets(t, withoutTrace(t, got[0]), wireForm([]byte(m.text)))
			}
		})
	}
}
