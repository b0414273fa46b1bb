// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/model"
)

const (
	// identity is who the peer has proved to be.
	identity = "connection.uri_san_peer_certificate"
	// serverName is what the peer asks for.
	serverName = "connection.requested_server_name"
)

// caller is how expressions ask about one.
type caller struct {
	// proved is the condition that the caller has an identity; "" if all have.
	proved string
	// port is the number of the destination's port that is asked for.
	port string
}

// rows of the policies of a level that are in force, those that are tried only among them or not.
func (c caller) rows(l model.GuardLevel, tried bool) (out phase) {
	closed := condition{never: !l.DefaultDeny}
	var denies, allows phase
	everybody := map[string]bool{} // where a row has denied all already, as policies do that are too much
	for _, p := range l.Policies {
		if p.DryRun && !tried {
			continue
		}
		if !p.Deny {
			closed = closed.or(p.Ports)
		}
		for _, r := range p.Rules {
			conditions := c.matches(p, r)
			switch {
			case len(conditions) == 0:
			case p.Deny && r.Sources == nil && everybody[conditions[0]]:
			case p.Deny:
				everybody[conditions[0]] = r.Sources == nil
				denies = append(denies, row{conditions, model.Denied(p.RuleLabel(r))})
			case len(allows) == 0:
				allows = phase{{any: conditions}}
			default:
				allows[0].any = append(allows[0].any, conditions...)
			}
		}
	}
	out = denies
	if closed.never {
		return out
	}
	out = append(out, allows...)
	return append(out, row{[]string{all(c.at(closed.ports))}, l.NoAllow()})
}

// condition is about ports: never, or at some, or (nil) at all.
type condition struct {
	never bool
	ports []uint16
}

func (c condition) or(ports []uint16) condition {
	switch {
	case c.never:
		return condition{ports: ports}
	case c.ports == nil || ports == nil:
		return condition{}
	}
	more := slices.Concat(c.ports, ports)
	slices.Sort(more)
	return condition{ports: slices.Compact(more)}
}

// at is the condition that one of the ports is asked for; nil: "", all.
func (c caller) at(ports []uint16) string {
	if ports == nil {
		return ""
	}
	return oneOf(c.port, numbers(ports))
}

// matches are the conditions any of which must hold for a rule to match; none: it never does.
func (c caller) matches(p model.AccessPolicy, r model.AccessRule) (out []string) {
	ports := r.Ports
	if ports == nil {
		ports = p.Ports
	}
	switch {
	case r.Request != nil: // there is none
		return nil
	case ports != nil && len(ports) == 0:
		return nil
	case r.Sources == nil:
		return []string{all(c.at(ports))}
	}
	for _, sources := range pieces(r.Sources) {
		out = append(out, all(c.proved, c.at(ports), isOneOf(sources)))
	}
	return out
}

// pieces of a list of sources, so short that each finds room in an expression.
func pieces(sources []model.AccessSource) (out [][]model.AccessSource) {
	bytes := 0
	for n, s := range sources {
		size := len(s.Identity) + len(identity)
		if n == 0 || bytes+size > mostBytes/4 {
			out, bytes = append(out, nil), 0
		}
		last := len(out) - 1
		out[last], bytes = append(out[last], s), bytes+size
	}
	return out
}

func isOneOf(sources []model.AccessSource) string {
	var exact, conditions []string
	for _, s := range sources {
		if s.Prefix {
			conditions = append(conditions, identity+".startsWith("+quote(s.Identity)+")")
		} else {
			exact = append(exact, quote(s.Identity))
		}
	}
	if len(exact) > 0 {
		conditions = append(conditions, oneOf(identity, exact))
	}
	return either(conditions)
}
