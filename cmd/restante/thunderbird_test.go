package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// thunderbird is a running Thunderbird that this test steers from within.
type thunderbird struct {
	t *testing.T
	*marionette
}

// A thunderbirdAccount is fetched over one port, which encrypts at once or by STLS.
type thunderbirdAccount struct {
	user     string
	port     int
	implicit bool
}

// TestThunderbird has Thunderbird, in a window, fetch and leave, see nothing twice,
// and remove from the server what is deleted in its window.
func TestThunderbird(t *testing.T) {
	client(t, "thunderbird")
	client(t, "Xvfb")
	s := newServer(t, serverOptions{})
	accounts := []thunderbirdAccount{
		{"alice", portNumber(t, s.pop3), false},
		{"bob", portNumber(t, s.pop3s), true},
	}
	messages := [][]byte{
		[]byte("From: Carol <carol@example.net>\r\nTo: you\r\nSubject: first\r\nMessage-Id: <1@example.net>\r\n\r\n.dots\r\n..\r\n\r\n.\tand more\r\n"),
		[]byte("From: Carol <carol@example.net>\r\nTo: you\r\nSubject: second\r\nMessage-Id: <2@example.net>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nBriefkästen, für immer ☃\r\n"),
		[]byte("From: Carol <carol@example.net>\r\nTo: you\r\nSubject: third\r\nMessage-Id: <3@example.net>\r\n\r\n" + strings.Repeat(strings.Repeat("long ", 190)+"\r\n", 300)),
	}
	for _, m := range messages {
		s.deliver(t, m, "alice@"+testDomain, "bob@"+testDomain)
	}
	program := startThunderbird(t, s, accounts)
	for _, a := range accounts {
		t.Run(a.user, func(t *testing.T) {
			program.t = t
			program.fetches(s, a)
		})
	}
}

func (p *thunderbird) fetches(s *testServer, a thunderbirdAccount) {
	t := p.t
	t.Helper()
	want := s.peekAll(t, a.user)
	if got := p.fetch(a); got != len(want) {
		t.Fatalf("%d messages in its inbox, want %d", got, len(want))
	}
	logins := s.log.find("login", map[string]any{"user": a.user + "@" + testDomain})
	if last := logins[len(logins)-1]; !strings.HasPrefix(fmt.Sprint(last["tls"]), "TLS 1.") {
		t.Errorf("it logged in over %q", last["tls"])
	}
	for i, m := range p.messages(a) {
		got := bytes.ReplaceAll(m, []byte("\r"), nil)
		if w := bytes.ReplaceAll(want[i], []byte("\r"), nil); !bytes.HasSuffix(got, w) {
			t.Errorf("message %d is\n%.600q\nin its inbox, want at the end\n%.600q", i, got, w)
		}
	}
	p.picture(a, "fetched")
	if n, left := p.fetch(a), len(s.files(a.user)); n != len(want) || left != len(want) {
		t.Errorf("after a second look: %d in its inbox and %d on the server, want %d", n, left, len(want))
	}
	p.remove(a, "second")
	if n, left := p.fetch(a), len(s.files(a.user)); n != len(want)-1 || left != len(want)-1 {
		t.Errorf("after it deleted one: %d in its inbox and %d on the server, want %d", n, left, len(want)-1)
	}
	for _, m := range s.peekAll(t, a.user) {
		if bytes.Contains(m, []byte("Subject: second")) {
			t.Error("the one that was deleted is still on the server")
		}
	}
	p.picture(a, "deleted")
}

// startThunderbird starts it with accounts in the files of its profile, as its own
// settings write them. It trusts the server's certificate as by "Confirm Security
// Exception".
func startThunderbird(t *testing.T, s *testServer, accounts []thunderbirdAccount) *thunderbird {
	t.Helper()
	profile := t.TempDir()
	writeFile(t, filepath.Join(profile, "user.js"), thunderbirdSettings(accounts))
	cmd := exec.Command("thunderbird", "--profile", profile, "--no-remote", "--marionette", "--remote-allow-system-access")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "DISPLAY="+startDisplay(t), "MOZ_CRASHREPORTER_DISABLE=1")
	startBeside(t, cmd)
	p := &thunderbird{t: t}
	until(t, slowly, "Thunderbird can be steered", func() bool {
		port, err := os.ReadFile(filepath.Join(profile, "MarionetteActivePort"))
		if err != nil || len(port) == 0 {
			return false
		}
		p.marionette, err = dialMarionette(net.JoinHostPort("127.0.0.1", string(port)))
		return err == nil
	})
	t.Cleanup(func() { _ = p.conn.Close() })
	p.call("WebDriver:NewSession", map[string]any{"capabilities": map[string]any{}})
	p.call("Marionette:SetContext", map[string]any{"value": "chrome"})
	text, err := os.ReadFile(s.cert)
	if err != nil {
		t.Fatal(err)
	}
	certificate, _ := pem.Decode(text)
	for _, a := range accounts {
		p.run(`const db = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
			Cc["@mozilla.org/security/certoverride;1"].getService(Ci.nsICertOverrideService)
				.rememberValidityOverride("localhost", port, {}, db.constructX509FromBase64(der), false);
			const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
			login.init("mailbox://localhost", null, "mailbox://localhost", user, password, "", "");
			await Services.logins.addLoginAsync(login);`,
			map[string]any{"port": a.port, "der": base64.StdEncoding.EncodeToString(certificate.Bytes),
				"user": a.user + "@" + testDomain, "password": testPassword})
	}
	return p
}

func portNumber(t *testing.T, address string) int {
	t.Helper()
	n, err := strconv.Atoi(portOf(t, address))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// thunderbirdSettings are accounts that leave messages on the server until they are
// deleted, and what keeps the program from asking things and from other servers.
func thunderbirdSettings(accounts []thunderbirdAccount) []byte {
	var b bytes.Buffer
	set := func(key string, value any) {
		if text, ok := value.(string); ok {
			value = fmt.Sprintf("%q", text)
		}
		fmt.Fprintf(&b, "user_pref(%q, %v);\n", key, value)
	}
	var names []string
	for i, a := range accounts {
		address := a.user + "@" + testDomain
		name := fmt.Sprintf("account%d", i+1)
		names = append(names, name)
		set("mail.account."+name+".server", fmt.Sprintf("server%d", i+1))
		set("mail.account."+name+".identities", fmt.Sprintf("id%d", i+1))
		identity := fmt.Sprintf("mail.identity.id%d.", i+1)
		set(identity+"useremail", address)
		set(identity+"valid", true)
		server := fmt.Sprintf("mail.server.server%d.", i+1)
		set(server+"type", "pop3")
		set(server+"hostname", "localhost")
		set(server+"port", a.port)
		set(server+"socketType", map[bool]int{false: 2, true: 3}[a.implicit])
		set(server+"authMethod", 3) // "Normal password"
		set(server+"userName", address)
		set(server+"name", address)
		set(server+"directory-rel", "[ProfD]Mail/"+a.user)
		set(server+"leave_on_server", true)
		set(server+"delete_mail_left_on_server", true)
		for _, off := range []string{"login_at_startup", "check_new_mail", "download_on_biff"} {
			set(server+off, false)
		}
	}
	set("mail.accountmanager.accounts", strings.Join(names, ","))
	set("mail.accountmanager.defaultaccount", names[0])
	for _, key := range []string{"mail.provider.suppress_dialog_on_startup", "mail.spotlight.firstRunDone",
		"mail.winsearch.firstRunDone", "datareporting.policy.dataSubmissionPolicyBypassNotification"} {
		set(key, true)
	}
	for _, key := range []string{"mail.shell.checkDefaultClient", "mailnews.start_page.enabled", "toolkit.telemetry.enabled",
		"datareporting.policy.dataSubmissionEnabled", "app.update.enabled", "extensions.update.enabled"} {
		set(key, false)
	}
	set("mail.rights.version", 1)
	set("marionette.port", 0)
	// Whatever else it would ask on the web goes to a port where nobody answers.
	set("network.proxy.type", 1)
	for _, kind := range []string{"http", "ssl"} {
		set("network.proxy."+kind, "127.0.0.1")
		set("network.proxy."+kind+"_port", 9)
	}
	return b.Bytes()
}

// startDisplay starts an X server without a screen and returns its name.
func startDisplay(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	startBeside(t, cmd)
	_ = w.Close()
	number, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("the display: %v", err)
	}
	return ":" + strings.TrimSpace(number)
}

// startBeside runs a program until the test ends; then it shows what a failed one said.
func startBeside(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%.5000s", cmd.Path, out.String())
		}
	})
}

// inbox is the beginning of each script: the account's server, inbox and window.
const inbox = `const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
	const server = MailServices.accounts.accounts.map(a => a.incomingServer).find(s => s.username == user);
	const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
	const window = Services.wm.getMostRecentWindow("mail:3pane");
	const sorted = () => [...inbox.messages].sort((a, b) => a.messageId < b.messageId ? -1 : 1);
`

func (p *thunderbird) inInbox(a thunderbirdAccount, script string, more map[string]any) any {
	p.t.Helper()
	arguments := map[string]any{"user": a.user + "@" + testDomain}
	for k, v := range more {
		arguments[k] = v
	}
	return p.run(inbox+script, arguments)
}

// fetch is "Get Messages". It returns how many messages are in the inbox then.
func (p *thunderbird) fetch(a thunderbirdAccount) int {
	p.t.Helper()
	n, _ := p.inInbox(a, `const status = await new Promise(done => server.getNewMessages(inbox, window.msgWindow,
			{ OnStartRunningUrl() {}, OnStopRunningUrl(url, status) { done(status) } }));
		if (status != 0) throw new Error("status " + status);
		return inbox.getTotalMessages(false);`, nil).(float64)
	return int(n)
}

// messages are the texts in the inbox as the program keeps them, by Message-ID.
func (p *thunderbird) messages(a thunderbirdAccount) (texts [][]byte) {
	p.t.Helper()
	list, _ := p.inInbox(a, `const text = message => new Promise((done, failed) => {
			const uri = inbox.getUriForMsg(message);
			let all = "";
			MailServices.messageServiceFromURI(uri).streamMessage(uri, {
				QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
				onStartRequest() {},
				onDataAvailable(request, stream, offset, count) {
					const binary = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
					binary.setInputStream(stream);
					all += binary.readBytes(count);
				},
				onStopRequest(request, status) { status == 0 ? done(btoa(all)) : failed(new Error("status " + status)); },
			}, null, null, false, "");
		});
		return Promise.all(sorted().map(text));`, nil).([]any)
	for _, item := range list {
		text, err := base64.StdEncoding.DecodeString(fmt.Sprint(item))
		if err != nil {
			p.t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

// remove deletes the message with this subject, as by its key.
func (p *thunderbird) remove(a thunderbirdAccount, subject string) {
	p.t.Helper()
	p.inInbox(a, `const before = inbox.getTotalMessages(false);
		inbox.deleteMessages(sorted().filter(m => m.subject == subject), window.msgWindow, false, true, null, false);
		while (inbox.getTotalMessages(false) == before) await new Promise(r => window.setTimeout(r, 20));`,
		map[string]any{"subject": subject})
}

// picture writes what its window shows to a file that go test -artifacts keeps.
func (p *thunderbird) picture(a thunderbirdAccount, name string) {
	p.t.Helper()
	p.inInbox(a, `const pane = window.document.getElementById("tabmail").currentAbout3Pane;
		pane.displayFolder(inbox.URI);
		while (pane.threadTree.view?.rowCount != inbox.getTotalMessages(false)) await new Promise(r => window.setTimeout(r, 20));
		pane.threadTree.selectedIndex = 0;
		const body = () => pane.messageBrowser.contentDocument?.getElementById("messagepane")?.contentDocument?.body?.textContent;
		while (!body()?.trim()) await new Promise(r => window.setTimeout(r, 20));`, nil)
	shot, _ := p.call("WebDriver:TakeScreenshot", map[string]any{"full": false, "hash": false})["value"].(string)
	image, err := base64.StdEncoding.DecodeString(shot)
	if err != nil || !slices.Equal(image[:min(len(image), 4)], []byte("\x89PNG")) {
		p.t.Fatalf("no picture: %v", err)
	}
	writeFile(p.t, filepath.Join(p.t.ArtifactDir(), name+".png"), image)
}
