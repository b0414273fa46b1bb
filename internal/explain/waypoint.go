// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
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
	if !w.served(binding.Waypoint) {
		w.end(at, Decision{
			Verdict: Denied, Reason: "no proxy of it is ready, and nobody gets past it: see the conditions of its Gateway",
		})
		return
	}
	v := &visit{
		walk: w, at: at, port: port,
		table:  *w.ingest.Table.Get(nil, model.Attachment{Port: port}),
		tokens: *w.ingest.Authentications.Get(nil, binding.Waypoint), traffic: w.ingest.TrafficPolicyAt(nil, port),
		caller: Caller{identity: w.answer.Identity, port: port.Port, claims: unknown},
	}
	v.pods = func(to model.ServicePort) { w.behindWaypoint(to, waypoint, v.table.Protocol) }
	if !v.table.Protocol.HTTP() {
		v.send(decideAll(w.tcpGuards(binding.Waypoint, port), v.caller), port)
		return
	}
	if w.question.Request != nil {
		v.caller.request, v.caller.sent = w.question.Request.by(w.answer.Identity), w.question.Request.Headers
	} else if w.hasRules(&v.table) {
		w.end(at, Decision{
			Verdict: Depends, DependsOn: "the request",
			Reason: "routes decide by the request: say --method and --path",
		})
		return
	}
	v.take(w.ingest.Settings.Get(nil, struct{}{}).TrustDomain)
}

// served tells whether a waypoint has a proxy that callers could be sent to.
func (w *walk) served(gateway types.NamespacedName) bool {
	return len(w.ingest.Endpoints.Get(nil, model.ServicePort{
		Namespace: gateway.Namespace, Service: names.WaypointResource(gateway.Name), Port: names.PortMTLS,
	})) > 0
}

// behindWaypoint asks the pods that a waypoint sends to, and no others that the Service has: it leaves some endpoints
// out, and knows only some of a large Service of another namespace.
func (w *walk) behindWaypoint(port model.ServicePort, waypoint *model.Waypoint, protocol model.Protocol) {
	endpoints := upstream.Answering(w.ingest.EndpointsAt(nil, waypoint, port))
	if len(endpoints) > 0 || !protocol.HTTP() {
		w.atEndpoints(port, endpoints, waypoint.Identity)
		return
	}
	const status = http.StatusServiceUnavailable
	w.end("Service "+port.ServiceName().String(), Decision{
		Verdict: Answered, Status: status, Reason: answers(status, "the port has no ready endpoint"),
	})
}

// AtTable is what becomes of a request at a waypoint, by a table alone, as far as some application.
func AtTable(trustDomain string, t model.RouteTable, tokens model.Authentications, identity string, q Request) Answer {
	w := &walk{question: Question{Request: &q}, answer: Answer{Identity: identity}}
	v := &visit{
		walk: w, at: "waypoint", port: t.Port, table: t, tokens: tokens,
		pods:   func(model.ServicePort) { w.ends = append(w.ends, Allowed) },
		caller: Caller{identity: identity, port: t.Port.Port, claims: unknown, request: q.by(identity), sent: q.Headers},
	}
	v.take(trustDomain)
	w.answer.Verdict = together(w.ends)
	w.answer.summarize()
	return w.answer
}

// hasRules tells whether rules decide for the caller: those of its own namespace, or the default.
func (w *walk) hasRules(t *model.RouteTable) bool {
	_, ns, _, ok := names.ParseSPIFFEID(w.answer.Identity)
	own := func(c model.CallerRules) bool { return ok && c.Namespace == ns }
	return t.Default != nil || slices.ContainsFunc(t.Callers, own)
}

func (w *walk) tcpGuards(gateway types.NamespacedName, port model.ServicePort) []model.Guard {
	for _, g := range w.ingest.TCPGuards.Get(nil, gateway) {
		if g.ServicePort == port {
			return g.Guards
		}
	}
	return nil
}

// visit is the way of a request through a waypoint. It goes by stages in the order of Envoy's filters (route.Filters).
type visit struct {
	*walk
	at string
	// port that is asked for.
	port   model.ServicePort
	table  model.RouteTable
	tokens model.Authentications
	// pods asks those behind a port.
	pods func(model.ServicePort)
	// traffic is the name of the TrafficPolicy for the port.
	traffic string
	caller  Caller
	// answers: the request goes no further than the table.
	answers bool
	// depends: something on the way depends on what isn't known here.
	depends bool
}

// take a request in: find the rule for it, and go on by that.
func (v *visit) take(trustDomain string) {
	if v.caller.request == nil {
		v.at += ", no route"
		v.goOn(v.table.Guards, nil, func(d Decision) { v.send(d, v.port) })
		return
	}
	if why := v.question.Request.sentBy(v.caller.identity).Malformed(); why != "" {
		v.end(v.at, Decision{Verdict: Answered, Status: http.StatusBadRequest, Reason: answers(http.StatusBadRequest, why)})
		return
	}
	v.byVersion()
	o := route.OutcomeOf(trustDomain, v.table, *v.caller.request)
	r := o.Rule
	switch {
	case r != nil:
		v.at = fmt.Sprintf("%s, rule %s of %s %s/%s", v.at, r.Label(), r.Source.Kind, r.Source.Namespace, r.Source.Name)
	case o.Status == 0:
		v.at += ", no route"
	case o.Unmatched():
		v.end(v.at, answered(o))
		return
	}
	v.answers = o.Status != 0
	if r != nil && !v.ofRule(o) {
		return
	}
	switch {
	case o.Status != 0:
		v.goOn(v.table.Guards, nil, func(Decision) { v.finish(v.at, answered(o)) })
	case r == nil:
		v.goOn(v.table.Guards, new(o.Leaves(0)), func(d Decision) { v.send(d, v.port) })
	default:
		v.byBackends(o)
	}
}

// byVersion tells what is a request in one version of HTTP only.
func (v *visit) byVersion() {
	q := v.question.Request.sentBy(v.caller.identity)
	const inHTTP1 = " in HTTP/1.1 and answers 400; in HTTP/2 the request goes on"
	for _, s := range []struct {
		name, why string
		odd       bool
	}{
		{"method", "Envoy knows no such method" + inHTTP1, q.OddMethod()},
		{"path", "Envoy takes no path with characters that must be escaped" + inHTTP1, q.OddPath()},
		{
			"host", "Envoy takes no host with a user (@) in HTTP/2 and ends the connection; in HTTP/1.1 the request goes on",
			q.OddHost(),
		},
	} {
		if s.odd {
			v.stage(s.name, &Decision{
				Verdict: Depends, DependsOn: "the version of HTTP", MayAnswer: []int{http.StatusBadRequest}, Reason: s.why,
			})
		}
	}
}

// ofRule has the filters of the rule itself see the request; false: it gets no further.
func (v *visit) ofRule(o route.Outcome) bool {
	r := *o.Rule
	if o.CORS && preflight(*v.caller.request) {
		return v.stage("CORS", &Decision{
			Verdict: Answered, Status: http.StatusOK, Reason: answers(http.StatusOK, "it is a preflight request of CORS"),
		})
	}
	if o.ExternalAuth {
		a := r.ExternalAuth()
		if !v.stage("ExternalAuth of the rule", asked(*a, "")) {
			return false
		}
	}
	for n, e := range r.Extensions() {
		if n < o.Extensions && !v.stage("extension "+e.Name, extension(r.Source.Namespace, e)) {
			return false
		}
	}
	return true
}

// byBackends goes on by each that may be chosen.
func (v *visit) byBackends(o route.Outcome) {
	for n, b := range o.Rule.Backends {
		way, status := *v, http.StatusInternalServerError
		if o.Rule.GRPC {
			status = http.StatusServiceUnavailable
		}
		switch {
		case b.Weight == 0:
		case b.Invalid:
			way.goOn(v.table.Guards, nil, func(Decision) {
				way.finish(v.at, Decision{
					Verdict: Answered, Status: status,
					Reason: answers(status, "the share of a backend that is invalid: see the status of the route"),
				})
			})
		default:
			way.goOn(b.Guards, new(o.Leaves(n)), func(d Decision) { way.leave(b, d) })
		}
	}
}

// leave for a backend.
func (v *visit) leave(b model.Backend, d Decision) {
	if e := b.External; e != nil { // no pod is there that would decide
		v.at = fmt.Sprintf("%s, out of the cluster to %s by XBackend %s", v.at, e.Address(), e.Name)
		if passes(d) {
			v.hold()
		}
		v.finish(v.at, d)
		return
	}
	v.at += ", to Service " + b.Port.ServiceName().String()
	v.send(d, b.Port)
}

// goOn from where the way is known: by what its guards have asked, and by what the Service's owner asks for, to what
// the guards decide about the request as it leaves.
func (v *visit) goOn(guards []model.Guard, leaves *route.Asked, then func(Decision)) {
	if !v.verify(guards) || !v.ask(guards) || !v.limits() {
		return
	}
	if leaves != nil {
		v.caller.request = leaves
	}
	d := decideAll(guards, v.caller)
	if d.Verdict == Denied {
		d.Status = http.StatusForbidden
	}
	then(d)
}

// send on to the pods behind a port, unless it is refused.
func (v *visit) send(d Decision, port model.ServicePort) {
	if !passes(d) {
		v.finish(v.at, d)
		return
	}
	v.step(v.at, d)
	v.hold()
	v.depends = v.depends || d.Verdict == Depends
	began := len(v.ends)
	v.pods(port)
	v.qualify(began)
}

func passes(d Decision) bool { return d.Verdict == Allowed || d.Verdict == Depends }

// finish is the end of a way at the waypoint.
func (v *visit) finish(at string, d Decision) {
	began := len(v.ends)
	v.end(at, d)
	v.qualify(began)
}

// qualify what has come of a way since: nobody is let in whom something before depends on.
func (v *visit) qualify(began int) {
	for n, verdict := range v.ends[began:] {
		if v.depends && verdict == Allowed {
			v.ends[began+n] = Depends
		}
	}
}

// stage tells what comes of one, if anything; false: the request gets no further.
func (v *visit) stage(name string, d *Decision) bool {
	if d == nil {
		return true
	}
	v.answer.Steps = append(v.answer.Steps, Step{At: v.at, Stage: name, Decision: *d})
	switch d.Verdict {
	case Denied, Answered:
		v.ends = append(v.ends, d.Verdict)
		return false
	case Depends:
		v.depends, v.caller.changed = true, true
	case Allowed:
	}
	return true
}
