package main

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"restante/cmd/restante/internal/config"
)

// newLog makes the log of a server; its level can be changed later. Durations
// are in seconds in JSON.
func newLog(w io.Writer, c *config.Config) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.Log.Level)
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format != "json" {
		return slog.New(slog.NewTextHandler(w, o)), level
	}
	o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value.Any().(type) {
		case time.Duration:
			a.Value = slog.Float64Value(v.Seconds())
		case string:
			a.Value = slog.StringValue(harmless(v))
		case error:
			a.Value = slog.StringValue(harmless(v.Error()))
		}
		return a
	}
	return slog.New(slog.NewJSONHandler(w, o)), level
}

// harmless escapes what JSON leaves as it is and a terminal obeys: DEL, the C1
// controls, what turns the direction of text. The text format quotes them by
// itself.
func harmless(s string) string {
	obeyed := func(r rune) bool { return r >= 0x7f && !strconv.IsPrint(r) }
	if strings.IndexFunc(s, obeyed) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if obeyed(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
