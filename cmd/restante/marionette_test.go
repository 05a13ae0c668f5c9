package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// marionette is a connection to Mozilla's protocol for steering its programs: each
// packet is a length in octets, a colon and a list in JSON.
type marionette struct {
	conn net.Conn
	in   *bufio.Reader
	last int // the number of the last command
}

func dialMarionette(address string) (*marionette, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		return nil, err
	}
	m := &marionette{conn: conn, in: bufio.NewReader(conn)}
	var hello struct{ MarionetteProtocol int }
	if err := m.receive(&hello); err != nil || hello.MarionetteProtocol != 3 {
		return nil, fmt.Errorf("greeting of version %d: %w", hello.MarionetteProtocol, err)
	}
	return m, nil
}

func (m *marionette) receive(into any) error {
	length, err := m.in.ReadString(':')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
	if err != nil {
		return err
	}
	packet := make([]byte, n)
	if _, err := io.ReadFull(m.in, packet); err != nil {
		return err
	}
	return json.Unmarshal(packet, into)
}

// do sends a command and returns its result.
func (m *marionette) do(command string, parameters map[string]any) (map[string]any, error) {
	m.last++
	packet, err := json.Marshal([]any{0, m.last, command, parameters})
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(packet), packet); err != nil {
		return nil, err
	}
	var reply [4]any // type, number, error, result
	if err := m.receive(&reply); err != nil {
		return nil, err
	}
	if reply[2] != nil {
		return nil, fmt.Errorf("%s: %v", command, reply[2])
	}
	result, _ := reply[3].(map[string]any)
	return result, nil
}

func (p *thunderbird) call(command string, parameters map[string]any) map[string]any {
	p.t.Helper()
	result, err := p.do(command, parameters)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// run runs the body of an asynchronous function inside the program, with arguments
// under their names, and returns its result.
func (p *thunderbird) run(body string, arguments map[string]any) any {
	p.t.Helper()
	names := slices.Sorted(maps.Keys(arguments))
	var values []any
	for _, name := range names {
		values = append(values, arguments[name])
	}
	script := fmt.Sprintf(`const done = arguments[arguments.length - 1];
		(async (%s) => {%s})(...Array.prototype.slice.call(arguments, 0, -1))
			.then(value => done({ value }), error => done({ error: error + "\n" + error.stack }));`, strings.Join(names, ", "), body)
	result, _ := p.call("WebDriver:ExecuteAsyncScript", map[string]any{
		"script": script, "args": values, "newSandbox": true, "sandbox": "system", "scriptTimeout": slowly.Milliseconds(),
	})["value"].(map[string]any)
	if result["error"] != nil {
		p.t.Fatalf("%v\nin %s", result["error"], body)
	}
	return result["value"]
}
