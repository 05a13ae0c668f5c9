package pop3d

import (
	"context"
	"strings"
)

// The commands of RFC 6856. Names and passwords are UTF-8 whether or not UTF8 was
// said, and messages are sent as they are stored in both modes, so that there is
// nothing to switch.

func (s *session) utf8(context.Context, arguments) reply { return okay("UTF-8 it is") }

// Tags of the languages that reply texts can be in; both are English.
const (
	languageDefault = "i-default"
	languageEnglish = "en"
)

// lang lists the languages, or takes one (RFC 6856 section 3).
func (s *session) lang(_ context.Context, a arguments) reply {
	tag := strings.ToLower(strings.Trim(string(a.text), " "))
	switch {
	case tag == "":
		return listing("languages follow", languageDefault+" Default (English)\r\n"+languageEnglish+" English\r\n")
	case tag == "*" || tag == languageDefault:
		return okay(languageDefault + " replies are in English")
	case tag == languageEnglish || strings.HasPrefix(tag, languageEnglish+"-"):
		return okay(languageEnglish + " replies are in English")
	}
	return refuse("no such language, LANG without an argument lists them")
}
