// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"
	"strconv"
	"strings"

	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/google/cel-go/cel"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Caller is who opened a connection to a pod, and what its proxy went by when it decided.
type Caller struct {
	// Identity is the SPIFFE ID that the caller has proved; "": it came in plain text.
	Identity string
	// ServerName is what it asked for in the handshake; Port the one that it dialled in plain text.
	ServerName string
	Port       uint16
}

// Decider says of callers what a filter that Node or TCP made says of them: it evaluates the filter's own expressions.
type Decider struct {
	states []state
	// open: everybody is let in.
	open bool
	// services: what callers ask for are ports of Services, of a waypoint.
	services bool
}

// state is filter state that an expression gives, or a text.
type state struct {
	key, text string
	program   cel.Program
}

// Envoy's formatter has an expression between these.
const formatBefore, formatAfter = "%CEL(", ")%"

// noPort is the verdict about who asks for what is no port, and is connected nowhere.
const noPort = "no port is asked for"

// NewTCPDecider reads a filter that TCP made, as NewDecider does. About ports that a waypoint passes on no longer it
// says nothing, for no policy refuses those who are connected there.
func NewTCPDecider(filter *netstatev3.Config) (*Decider, error) {
	d, err := NewDecider(filter)
	if err != nil {
		return nil, err
	}
	d.services = true
	return d, nil
}

// NewDecider reads a filter. It fails for what Node of another version may make and this one doesn't know.
func NewDecider(filter *netstatev3.Config) (*Decider, error) {
	env, err := cel.NewEnv()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	d := &Decider{}
	for _, v := range filter.GetOnDownstreamTlsHandshake() {
		if v.GetObjectKey() != names.FilterStateVerdict {
			continue // what is only tried refuses nobody
		}
		s := state{key: v.GetObjectKey(), text: v.GetFormatString().GetTextFormatSource().GetInlineString()}
		if expression, ok := strings.CutPrefix(s.text, formatBefore); ok {
			ast, issues := env.Parse(strings.TrimSuffix(expression, formatAfter)) // unchecked, as Envoy has it
			if issues.Err() != nil {
				return nil, fmt.Errorf("guard: %w", issues.Err())
			}
			if s.program, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize)); err != nil {
				return nil, fmt.Errorf("guard: %w", err)
			}
		}
		d.states = append(d.states, s)
	}
	d.open = len(d.states) == 1 && d.states[0].text == formatBefore+quote("")+formatAfter
	return d, nil
}

// Open tells whether everybody is let in.
func (d *Decider) Open() bool { return d.open }

// Verdict is empty for who is let in, and says who refuses all others. An error is about an expression that this
// version doesn't know how to evaluate.
func (d *Decider) Verdict(c Caller) (said string, err error) {
	if d.open {
		return "", nil
	}
	kept := map[string]any{}
	seen := map[string]any{
		"filter_state": kept,
		"connection":   map[string]any{"mtls": false},
		"destination":  map[string]any{"port": int64(c.Port)},
	}
	if c.Identity != "" {
		if !d.services && !isPort(c.ServerName) {
			return noPort, nil
		}
		seen["connection"] = map[string]any{
			"mtls": true, "uri_san_peer_certificate": c.Identity, "requested_server_name": c.ServerName,
		}
		seen["destination"] = map[string]any{"port": int64(names.PortMTLS)}
	}
	said = undecided
	for _, s := range d.states {
		said = s.text
		if s.program != nil {
			if said, err = evaluate(s.program, seen); err != nil {
				return "", err
			}
		}
		kept[s.key] = []byte(said)
	}
	if d.services && said == notServed {
		return "", nil
	}
	return said, nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// evaluate is what Envoy's formatter makes of an expression.
func evaluate(p cel.Program, seen map[string]any) (string, error) {
	result, _, err := p.Eval(seen)
	if err != nil {
		return "", fmt.Errorf("guard: %w", err)
	}
	switch v := result.Value().(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	default:
		return "", fmt.Errorf("guard: an expression gives a %T", v)
	}
}
