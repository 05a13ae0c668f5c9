package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// foreignPassword is what foreignHashes are of. libxcrypt and Dovecot made them.
const foreignPassword = "päss wörd-1"

var foreignHashes = map[string]string{
	"md5":      "$1$WEo2WLuW$UNkHHdyw4qf//e3fK6bg81",
	"sha256":   "$5$tgNtXUmTUUNpkff6$zRSXMHMeTDlbg4C9wFo/1BZnfhoBGgHyVLCLV.7QBc/",
	"sha512":   "$6$.seKifOKsDe//88l$fp0jYHi2VPcBuaL5sQwJX4HG4su/8sHIUBnbg9/92PTAwV3LGfjUf6xAa56Iau4shakCFLvnlOUELdZnlPMcC1",
	"rounds":   "$6$rounds=1000$saltsalt$kVknPS.vPbhq7OOEQKNAT0dYZiwuhtVc1aNLEyx568p.8FOsRAfUZUQqksC7OmPxutfW72Z1E3KtUcHPjImN4.",
	"yescrypt": "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
	"bcrypt":   "$2y$04$abcdefghijklmnopqrstuuxygXvq/b7PdNI.eGMW26/Vdw6uS6nhC",
	"ssha":     "{SSHA}Tq0/J1N0lqXepCgiPZulPcMwQXzgIE6X",
	"ssha256":  "{SSHA256}XhUpXEK/W7wLYnaxCixteO5SlwzjMeodHdXwheowzJH5AWgC",
	"ssha512":  "{SSHA512}9WX/sVPGUuQbFWEeTEA80fvg0hnHOeqxDqxWUM2mbNVDIDjgvlmfJ+ANkwVTSIkmNEW4UB5tt/DLl3vkwEYOsIjMe5U=",
	"plainmd5": "{PLAIN-MD5}513bf8085dc0bb9adfd796a2187cc9e1",
	"blf":      "{BLF-CRYPT}$2y$05$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
	"crypt":    "{CRYPT}$2y$05$BaE2hPHm84aKbXTVsAbtgeG3WA1i./Uw5coB.JJU/.j1iXTt4MyrO",
	"sha512c":  "{SHA512-CRYPT}$6$SESRj08sUyKjgmDh$jf8gZ43AleDY4zdMN2vlBHWo6xXxPDuHoLGnP0UPCyVisNZhNKK5PRxALiOAqksbGPD0MlGOU9GvIYiCZBjXh1",
	"md5c":     "{MD5-CRYPT}$1$R.AeWN7F$0T0uY/jiMTzqvr89UjqeE1",
	"ssha256h": "{ssha256.hex}97386aedb9bac1c14108e60e33520aeafd934d39d0cd6ce51d4066ab8074d0395e5ef07f",
	"argon2id": "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$TIZhLmYK9fEGie3t4d10gw$Y2jCrxrmJ9snx2o3KsStGf/A2G/cOV1pYR08GnPhrOo",
	"plain":    "{PLAIN}" + foreignPassword,
}

// TestAttackForeignHashes: users of other systems log in with the passwords that they
// had, and no hash that is weaker than ours is kept after that.
func TestAttackForeignHashes(t *testing.T) {
	client(t, "sqlite3")
	s := prepareServer(t, serverOptions{})
	var file strings.Builder
	for name, hash := range foreignHashes {
		fmt.Fprintf(&file, "%s.i@%s:%s\n", name, testDomain, hash)
		if out := restante(t, s.config, hash+"\n", "user", "add", name+".a@"+testDomain, "--password-stdin", "--password-hash"); strings.Contains(out, hash) {
			t.Errorf("the hash is printed: %s", out)
		}
	}
	restante(t, s.config, file.String(), "user", "import", "-")
	s.start(serverOptions{})
	for name := range foreignHashes {
		for _, how := range []string{".a", ".i"} {
			user := name + how + "@" + testDomain
			d := s.talk(t, "pop3s")
			d.want("USER "+user, "+OK")
			d.want("PASS "+foreignPassword+"x", "-ERR [AUTH] wrong")
			for range 2 { // with the hash that was brought, and with ours
				d = s.talk(t, "pop3s")
				d.want("USER "+user, "+OK")
				d.want("PASS "+foreignPassword, "+OK maildrop")
				d.want("QUIT", "+OK")
			}
		}
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	kept, err := exec.Command("sqlite3", filepath.Join(s.dir, "data", "restante.db"), "SELECT credential FROM users").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(kept)), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "$argon2id$v=19$") {
			t.Errorf("kept: %q", line)
		}
	}
	if len(lines) != 2*len(foreignHashes) {
		t.Errorf("%d hashes are kept", len(lines))
	}
	s.start(serverOptions{}) // a process that has proven nobody yet
	d := s.talk(t, "pop3s")
	d.want("USER md5.i@"+testDomain, "+OK")
	d.want("PASS "+foreignPassword, "+OK maildrop")
}

// TestAttackHashCosts: a hash that would take the server's time or memory is refused at
// once, in words that do not show it.
func TestAttackHashCosts(t *testing.T) {
	s := prepareServer(t, serverOptions{})
	digits := strings.Repeat("a", 86)
	const salt = "c2FsdHNhbHRzYWx0"
	argon := func(costs string) string {
		return "{ARGON2ID}$argon2id$v=19$" + costs + "$" + salt + "$" + strings.Repeat("a", 43)
	}
	for _, c := range []struct{ hash, why string }{
		{"$6$rounds=999999999$saltsalt$" + digits, "its rounds must be 1000 to 1000000"},
		{"$5$rounds=4294967295$saltsalt$" + digits[:43], "its rounds must be 1000 to 1000000"},
		{"{SHA512-CRYPT}$6$rounds=18446744073709551617$saltsalt$" + digits, "its rounds must be"},
		{"$6$rounds=-1$saltsalt$" + digits, "its rounds must be"},
		{"$2y$31$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy", "its cost is over 14"},
		{"{BLF-CRYPT}$2y$20$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy", "its cost is over 14"},
		{"{CRYPT}$2b$31$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy", "its cost is over 14"},
		{"$y$jzz$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB", "its costs are out of bounds: 128 MiB of memory at most"},
		{"$y$jT5$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB", "its costs are out of bounds"},
		{argon("m=4294967295,t=1,p=1"), "argon2 memory must be"},
		{argon("m=4294967296,t=1,p=1"), "its costs have no number m="}, // 4 TiB
		{argon("m=65536,t=4294967295,p=1"), "argon2 time must be"},
		{argon("m=65536,t=1,p=255"), "argon2 threads must be"},
		{argon("m=65536,t=1,p=256"), "its costs have no number p="},
		{argon("m=0,t=0,p=0"), "argon2 threads must be"},
		{"{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$ojFdRbehMhmoyP902rnxtw$SqM3usTvDh00srlxOjlVq70k3WC2T19Gq2Wt0Tujeik", "hashes of the scheme {ARGON2I} cannot be checked here; set a new password"},
		{"{NTLM}0123456789abcdef0123456789abcdef", "hashes of the scheme {NTLM} cannot be checked here"},
		{"{SCRAM-SHA-256}4096,c2FsdA==,a,b", "cannot be checked here"},
		{"$7$CU..../....SodiumChloride$" + digits[:43], "hashes that begin with $7$ cannot be checked here"},
		{"abJnggxhB/yWI", "it is no hash that begins with $ or {"},
		{"{SSHA512}" + strings.Repeat("QUFB", 1000), "it is not one line of at most 512 octets"},
		{"{SSHA}!", "it is not Base64"},
		{"{" + strings.Repeat("X", 400) + "}", "the scheme in braces is unknown"},
		{strings.Replace(argon("m=1048576,t=4,p=1"), digits[:43], digits[:42]+"8", 1), "its costs are out of bounds: m is at most 131072"},
		{"", "it is no hash"},
	} {
		for what, run := range map[string]func() (string, string, int){
			"add": func() (string, string, int) {
				return restanteStatus(t, s.config, c.hash+"\n", "user", "add", "x@"+testDomain, "--password-stdin", "--password-hash")
			},
			"import": func() (string, string, int) {
				return restanteStatus(t, s.config, "x@"+testDomain+":"+c.hash+"\n", "user", "import", "-")
			},
		} {
			if what == "import" && !strings.HasPrefix(c.hash, "$") && !strings.HasPrefix(c.hash, "{") {
				continue // it says in its own words what may follow the colon
			}
			began := time.Now()
			_, stderr, code := run()
			if code != 1 || !strings.Contains(stderr, c.why) || len(stderr) > 300 {
				t.Errorf("%s of %.60q: exit status %d: %.400s", what, c.hash, code, stderr)
			}
			if took := time.Since(began); took > deadline/2 {
				t.Errorf("%s of %.60q: refused after %v", what, c.hash, took)
			}
			for _, secret := range []string{digits[:43], "TjwLju5a", "SqM3usTv", salt} {
				if strings.Contains(stderr, secret) {
					t.Errorf("%s of %.60q: it is shown: %s", what, c.hash, stderr)
				}
			}
		}
	}
	if out := restante(t, s.config, "", "user", "list", "--json"); out != "[]\n" {
		t.Errorf("users: %s", out)
	}
}
