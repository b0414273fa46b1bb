// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// MostPorts is how many ports of a pod may have another mode than the rest: each costs its listener a filter chain.
// Beyond, all ports are strict.
const MostPorts = 64

// said is what policies for the same pods say together: where any says Strict, that holds.
type said struct {
	whole *bool
	ports map[uint16]bool
}

func (s *said) add(m *v1alpha1.MTLSAuthentication) {
	if m.Mode != "" {
		s.whole = stricter(s.whole, m.Mode)
	}
	for _, p := range m.Ports {
		at := uint16(p.Port) //nolint:gosec // the schema bounds it
		var before *bool
		if v, ok := s.ports[at]; ok {
			before = &v
		}
		if s.ports == nil {
			s.ports = map[uint16]bool{}
		}
		s.ports[at] = *stricter(before, p.Mode)
	}
}

// strict is everything, whatever else is said: a policy can't be understood.
func (s *said) strict() {
	s.whole, s.ports = new(true), nil
}

func stricter(before *bool, mode v1alpha1.MTLSMode) *bool {
	is := mode != v1alpha1.MTLSModePermissive || before != nil && *before
	return &is
}

// at is what is said of a port, or of all; nil: nothing.
func (s *said) at(port uint16) *bool {
	if v, ok := s.ports[port]; ok {
		return &v
	}
	return s.whole
}

// saidOf a pod, by policies of its namespace: first those that select it, then those for the namespace.
func saidOf(pod *corev1.Pod, policies []v1alpha1.AuthenticationPolicy) (out [2]said) {
	bad := false
	for n := range policies {
		p := &policies[n]
		if p.Spec.MTLS == nil || p.Namespace != pod.Namespace {
			continue
		}
		if p.OfNamespace() {
			out[1].add(p.Spec.MTLS)
		}
		selectors, err := p.OfPods()
		bad = bad || err != nil // whom it is meant for can't be known
		if slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(pod.Labels)) }) {
			out[0].add(p.Spec.MTLS)
		}
	}
	if bad {
		out[0].strict()
	}
	return out
}

// modes are those of a pod's ports: of policies before labels before the Mesh. Who writes a policy may be another than
// who writes pods and their labels, and has a status that says what holds. except are the ports whose mode is the
// other one, sorted.
func modes(
	pod *corev1.Pod, namespace *corev1.Namespace, mesh *v1alpha1.Mesh, policies []v1alpha1.AuthenticationPolicy,
) (isStrict bool, except []uint16, problem string) {
	isStrict, problem = strict(pod, namespace, mesh)
	tiers := saidOf(pod, policies)
	byLabel := isStrict
	at := func(port uint16) bool {
		for n := range tiers {
			if v := tiers[n].at(port); v != nil {
				return *v
			}
		}
		return byLabel
	}
	for n := range tiers {
		if v := tiers[n].whole; v != nil {
			isStrict, problem = *v, ""
			break
		}
	}
	for n := range tiers {
		for port := range tiers[n].ports {
			if at(port) != isStrict {
				except = append(except, port)
			}
		}
	}
	slices.Sort(except)
	if except = slices.Compact(except); len(except) > MostPorts {
		return true, nil, problem
	}
	return isStrict, except, problem
}

// StrictAt tells whether plain text is refused at a port.
func (d Decision) StrictAt(port uint16) bool { return d.Strict != slices.Contains(d.Except, port) }

// mode says so for people, in the same words for the same modes: by them the operator knows what an agent carries out.
func (d Decision) mode() string {
	is, other := "plaintext is accepted too (permissive)", "refused"
	if d.Strict {
		is, other = "plaintext is refused (strict)", "accepted"
	}
	if len(d.Except) == 0 {
		return is + "."
	}
	ports := make([]string, 0, len(d.Except))
	for _, p := range d.Except {
		ports = append(ports, fmt.Sprint(p))
	}
	what := "port"
	if len(ports) > 1 {
		what = "ports"
	}
	return fmt.Sprintf("%s, but %s at %s %s.", is, other, what, strings.Join(ports, ", "))
}

// SaidMode is what the agent of a pod's node says of what the pod refuses; empty of one that isn't captured.
func SaidMode(pod *corev1.Pod) string {
	if !Captured(pod) {
		return ""
	}
	return Condition(pod).Message
}

// Carries tells whether the agent of a pod's node says that it carries out the modes of a decision.
func Carries(pod *corev1.Pod, d Decision) bool {
	return strings.Contains(SaidMode(pod), d.mode())
}
