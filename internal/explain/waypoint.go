// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
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
	if caller.request == nil && !w.hasRules(table) {
		w.passOn(at+", no route", decideAll(table.Guards, caller), port, waypoint.Identity)
		return
	}
	if caller.request == nil {
		w.end(at, Decision{Verdict: Depends, Reason: "routes decide by the request: say --method and --path"})
		return
	}
	domain := w.ingest.Settings.Get(nil, struct{}{}).TrustDomain
	switch rule, refused := route.RuleFor(domain, *table, caller.request.by(caller.identity)); {
	case rule != nil:
		w.byRule(at, *rule, caller, waypoint.Identity)
	case refused != "":
		w.end(at, Decision{Verdict: Denied, Reason: "the answer is " + refused})
	default:
		w.passOn(at+", no route", decideAll(table.Guards, caller), port, waypoint.Identity)
	}
}

// hasRules tells whether rules decide for the caller: those of its own namespace, or the default.
func (w *walk) hasRules(t *model.RouteTable) bool {
	_, ns, _, ok := names.ParseSPIFFEID(w.answer.Identity)
	own := func(c model.CallerRules) bool { return ok && c.Namespace == ns }
	return t.Default != nil || slices.ContainsFunc(t.Callers, own)
}

// changes tells whether a rule changes what policies look at.
func changes(r model.Rule) bool {
	return slices.ContainsFunc(r.Filters, func(f model.Filter) bool { return f.Rewrite != nil || f.RequestHeaders != nil })
}

// leaving is the caller with its request as guards see it: what comes of a rule's changes is unknown, and a host
// outside is named in place of what the caller named.
func leaving(r model.Rule, b model.Backend, caller Caller) Caller {
	switch {
	case changes(r):
		caller.request = nil
	case b.External != nil:
		request := *caller.request
		request.Host = b.External.Authority()
		caller.request = &request
	}
	return caller
}

func (w *walk) byRule(at string, r model.Rule, caller Caller, waypoint string) {
	at = fmt.Sprintf("%s, rule %s of %s %s/%s", at, r.Label(), r.Source.Kind, r.Source.Namespace, r.Source.Name)
	for _, b := range r.Backends {
		switch {
		case b.Weight == 0:
		case b.Invalid:
			w.end(at, Decision{Verdict: Denied, Reason: "the backend is invalid: its share of requests gets an error"})
		default:
			decision := decideAll(b.Guards, leaving(r, b, caller))
			if b.External != nil { // no pod is there that would decide
				out := fmt.Sprintf("%s, out of the cluster to %s by XBackend %s", at, b.External.Address(), b.External.Name)
				w.end(out, decision)
				continue
			}
			w.passOn(at+", to Service "+b.Port.ServiceName().String(), decision, b.Port, waypoint)
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
