package foreign

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// made are hashes of one password, by libxcrypt and by Dovecot.
var made = []string{
	"$1$WEo2WLuW$UNkHHdyw4qf//e3fK6bg81",
	"$5$tgNtXUmTUUNpkff6$zRSXMHMeTDlbg4C9wFo/1BZnfhoBGgHyVLCLV.7QBc/",
	"$6$.seKifOKsDe//88l$fp0jYHi2VPcBuaL5sQwJX4HG4su/8sHIUBnbg9/92PTAwV3LGfjUf6xAa56Iau4shakCFLvnlOUELdZnlPMcC1",
	"$6$rounds=1000$saltsalt$kVknPS.vPbhq7OOEQKNAT0dYZiwuhtVc1aNLEyx568p.8FOsRAfUZUQqksC7OmPxutfW72Z1E3KtUcHPjImN4.",
	"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
	"$2y$04$abcdefghijklmnopqrstuuxygXvq/b7PdNI.eGMW26/Vdw6uS6nhC",
	"{SSHA}Tq0/J1N0lqXepCgiPZulPcMwQXzgIE6X",
	"{SSHA256}XhUpXEK/W7wLYnaxCixteO5SlwzjMeodHdXwheowzJH5AWgC",
	"{SSHA512}9WX/sVPGUuQbFWEeTEA80fvg0hnHOeqxDqxWUM2mbNVDIDjgvlmfJ+ANkwVTSIkmNEW4UB5tt/DLl3vkwEYOsIjMe5U=",
	"{SMD5}yaV4JWFBnfyqcgRrNPrJ98z6DA8=",
	"{PLAIN-MD5}513bf8085dc0bb9adfd796a2187cc9e1",
	"{LDAP-MD5}UTv4CF3Au5rf15aiGHzJ4Q==",
	"{SHA}xVQFpHIUDYqyb4llRBGpCQCuV3s=",
	"{SHA256}FhpXUObOMRUg4voM+9fD4/dKIZIiEDTNyWS+WHPfFhk=",
	"{SHA512}wZNc5cTS2XuJ7aaB8aJB60s0Gewwxv8zpBjEhLgxO2qTfZLM2lUtlKnqwjaL+EsAmxxeTzuLGzQL5ZNuTGr89g==",
	"{SHA512-CRYPT}$6$SESRj08sUyKjgmDh$jf8gZ43AleDY4zdMN2vlBHWo6xXxPDuHoLGnP0UPCyVisNZhNKK5PRxALiOAqksbGPD0MlGOU9GvIYiCZBjXh1",
	"{SHA256-CRYPT}$5$Okv5.1EHmzXKoTWZ$bHdh4osSEGgc2cnFds1C6qm70FQ3kJyhL8S5mI4BnM3",
	"{MD5-CRYPT}$1$R.AeWN7F$0T0uY/jiMTzqvr89UjqeE1",
	"{BLF-CRYPT}$2y$05$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
	"{CRYPT}$2y$05$BaE2hPHm84aKbXTVsAbtgeG3WA1i./Uw5coB.JJU/.j1iXTt4MyrO",
	"{ssha256.hex}97386aedb9bac1c14108e60e33520aeafd934d39d0cd6ce51d4066ab8074d0395e5ef07f",
	"{SSHA.B64}bzKfJzDb4NKQrjIw1GW39YJ0jcTSYFXs",
	"{SSHA512.HEX}0a97b419ff86dd69b3deac225ff63dff7bfb73419626a3b05062391bf09d938d4cb4e5b937c0ec1b28e7e64070ce32ad7e2dd953bb6eec8ac8c1a5e1e96c274fc3f3becb",
}

const password = "päss wörd-1"

func TestMatches(t *testing.T) {
	for _, s := range made {
		h, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if h.String() != s {
			t.Errorf("%s reads as %s", s, h)
		}
		if !h.Matches(password) {
			t.Errorf("%s: the right password was refused", s)
		}
		for _, wrong := range []string{"", "päss wörd-2", password + " ", strings.ToUpper(password)} {
			if h.Matches(wrong) {
				t.Errorf("%s: %q was taken", s, wrong)
			}
		}
	}
}

// TestRefused: costs out of bounds, and what is no such hash. The error shows
// nothing of the hash.
func TestRefused(t *testing.T) {
	sha := strings.Repeat("a", 86)
	for _, s := range []string{
		"", "x", "$", "{", "{}", "{SSHA", "{SSHA}", "{NTLM}0123456789abcdef0123456789abcdef", "{CRAM-MD5}abc", "{PLAIN}secret",
		"$1$salt", "$1$saltsalt9$" + strings.Repeat("a", 22), "$1$salt$" + strings.Repeat("a", 21) + "!",
		"$3$$abc", "abJnggxhB/yWI", "$2x$05$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
		"$6$rounds=999$salt$" + sha, "$6$rounds=1000001$salt$" + sha, "$6$rounds=999999999999999999999$salt$" + sha,
		"$6$rounds=$salt$" + sha, "$6$salt$" + sha + "a", "$6$12345678901234567$" + sha, "$5$salt$" + sha,
		"$2y$15$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy", "$2y$31$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
		"$2y$03$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy", "$2y$05$short", "$2y$",
		"$y$jzz$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB", // 2^18 and more
		"$y$jFT$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
		"$y$j9T$F5Jx5fExrKuPp53xLKQ..1", "$y$k9T$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
		"$y$j9T$$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB", "$y$j9T$z$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
		"{SHA}AAAA", "{SHA}%%%", "{SHA.hex}zz", "{SHA.rot13}zz", "{MD5-CRYPT.hex}$1$x$y", "{SHA512-CRYPT}" + made[0], "{BLF-CRYPT}" + made[0],
		"{SSHA}xVQFpHIUDYqyb4llRBGpCQCuV3s=", // no salt
		made[0] + "\n", made[0] + "\x00", "{CRYPT}" + strings.Repeat("a", 600),
	} {
		_, err := Parse(s)
		if err == nil {
			t.Errorf("%q was taken", s)
		} else if len(s) > 30 && strings.Contains(err.Error(), s[10:]) {
			t.Errorf("%q: the error shows it: %v", s, err)
		}
	}
}

// TestRefusedShowsNothing: what somebody takes for a hash may be a password.
func TestRefusedShowsNothing(t *testing.T) {
	for _, s := range []string{"$uperSecret1", "$uperSecret1$x", "{uperSecret1}rest", "{SSHA.uperSecret1}AAAA", "{uperSecret1", "{SHA}uperSecret1", "$5$uperSecret1", "uperSecret1"} {
		if _, err := Parse(s); err == nil || strings.Contains(strings.ToLower(err.Error()), "upersecret1") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestLongPassword: a hash does not cost more than it says for a password of a
// stranger's length.
func TestLongPassword(t *testing.T) {
	for _, s := range made {
		h, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if h.Matches(strings.Repeat("x", 100_000)) {
			t.Errorf("%s takes any long password", s)
		}
	}
	long := strings.Repeat("x", maxPassword)
	sum := sha256.Sum256([]byte(long))
	h, err := Parse("{SHA256.HEX}" + hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	if !h.Matches(long) || h.Matches(long+"x") {
		t.Error("a password of the longest length is not taken, or a longer one is")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range made {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(h.String()); err != nil || again.String() != s {
			t.Fatalf("%q reads as %q, %v", s, again, err)
		}
	})
}

// BenchmarkDearest is the most that a hash may cost.
func BenchmarkDearest(b *testing.B) {
	for _, s := range []string{
		"$6$rounds=1000000$salt$" + strings.Repeat("a", 86),
		"$2y$14$TjwLju5a.oLbYlNsjNuEDuBqBpp0LH9Zv5.UM7T/kb746y9RTQOKy",
		"$y$jCT$F5Jx5fExrKuPp53xLKQ..1$PFf9MNOUz/C808Bc0lksJSUUMyLxs1VHBWAelTIC9uB",
	} {
		b.Run(s[:4], func(b *testing.B) {
			h, err := Parse(s)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				h.Matches(strings.Repeat("x", maxPassword))
			}
		})
	}
}
