// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// atWaypoint asks the waypoint of a Service's port, and then the pods that it may send to, as which it comes.
func (w *walk) atWaypoint(port model.ServicePort) {
	binding := w.ingest.Binding.Get(nil, port.ServiceName())
	waypoint := w.ingest.Waypoint.Get(nil, binding.Waypoint)
	at := "waypoint " + binding.Waypoint.String()
	if waypoint == nil {
		w.end(at, Decision{Verdict: Denied, Reason: "the waypoint does not exist"})
		return
	}
	table := w.ingest.Table.Get(nil, model.Attachment{Port: port})
	caller := Caller{identity: w.answer.Identity, port: port.Port, request: w.question.Request}
	if !table.Protocol.HTTP() {
		w.passOn(at, decideAll(w.tcpGuards(binding.Waypoint, port), caller), port, waypoint.Identity)
		return
	}
	rules, any := w.rulesFor(table)
	if !any {
		w.passOn(at+", no route", decideAll(table.Guards, caller), port, waypoint.Identity)
		return
	}
	if caller.request == nil {
		w.end(at, Decision{Verdict: Depends, Reason: "routes decide by the request: say --method and --path"})
		return
	}
	for _, r := range rules {
		if matchesRule(r.Match, *caller.request) {
			w.byRule(at, r, caller, waypoint.Identity)
			return
		}
	}
	w.end(at, Decision{Verdict: Denied, Reason: "no rule of a route matches: the answer is 404"})
}

// rulesFor the caller: those of its own namespace, or the default.
func (w *walk) rulesFor(t *model.RouteTable) (rules []model.Rule, any bool) {
	_, ns, _, ok := names.ParseSPIFFEID(w.answer.Identity)
	for _, c := range t.Callers {
		if ok && c.Namespace == ns {
			return c.Rules, true
		}
	}
	return t.Default, t.Default != nil
}

func (w *walk) byRule(at string, r model.Rule, caller Caller, waypoint string) {
	at = fmt.Sprintf("%s, rule %s of %s %s/%s", at, r.Label(), r.Source.Kind, r.Source.Namespace, r.Source.Name)
	for _, b := range r.Backends {
		switch {
		case b.Weight == 0:
		case b.Invalid:
			w.end(at, Decision{Verdict: Denied, Reason: "the backend is invalid: its share of requests gets an error"})
		default:
			w.passOn(at+", to Service "+b.Port.ServiceName().String(), decideAll(b.Guards, caller), b.Port, waypoint)
		}
	}
	if len(r.Backends) == 0 {
		w.end(at, Decision{Verdict: Allowed, Reason: "the waypoint answers by itself"})
	}
}

// passOn tells what the waypoint decides, and goes on to the pods unless it refuses.
func (w *walk) passOn(at string, d Decision, port model.ServicePort, waypoint string) {
	if !w.step(at, d) {
		w.ends = append(w.ends, Denied)
		return
	}
	began := len(w.ends)
	w.atPods(port, waypoint)
	if d.Verdict == Depends {
		for n := range w.ends[began:] {
			w.ends[began+n] = Depends
		}
	}
}

func (w *walk) tcpGuards(gateway types.NamespacedName, port model.ServicePort) []model.Guard {
	for _, g := range w.ingest.TCPGuards.Get(nil, gateway) {
		if g.ServicePort == port {
			return g.Guards
		}
	}
	return nil
}

// matchesRule tells whether a rule takes the request.
func matchesRule(m model.Match, q Request) bool {
	if m.Method != "" && m.Method != q.Method || m.Path != nil && !isPath(*m.Path, q.Path) {
		return false
	}
	if m.GRPCService != "" || m.GRPCMethod != "" {
		service, method, _ := strings.Cut(strings.TrimPrefix(q.Path, "/"), "/")
		is := func(want, got string) bool {
			return want == "" || isValue(model.StringMatch{Type: m.GRPCType, Value: want}, got)
		}
		if !is(m.GRPCService, service) || !is(m.GRPCMethod, method) {
			return false
		}
	}
	for _, h := range m.Headers {
		if !isValue(h.StringMatch, strings.Join(q.Headers.Values(h.Name), ",")) {
			return false
		}
	}
	return len(m.Query) == 0 // queries aren't asked about
}
