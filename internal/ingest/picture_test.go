// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// picture writes down all that a world has decided.
type picture struct {
	strings.Builder
	*world
	domain string
}

func (p *picture) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// modelText is the model: what proxies are made from.
func (w *world) modelText() string {
	s := w.in.Settings.Get(nil, struct{}{})
	p := &picture{world: w, domain: s.TrustDomain}
	p.line("mesh %s: present %t, logs all %t, errors %t", s.TrustDomain, s.present, s.LogAll, s.LogErrors)
	for _, svc := range w.services() {
		p.service(svc)
	}
	for _, gw := range w.gateways() {
		p.waypoint(gw)
	}
	if keys := keysOf[*gwxv1alpha1.XBackend](w); len(keys) > 0 {
		p.line("\nnot outside: %v", w.in.NotOutside.Get(nil, struct{}{}))
	}
	p.addresses()
	p.podGuards()
	return p.String()
}

func (p *picture) service(key cluster.Key) {
	svc := p.in.Service.Get(nil, key)
	p.line("\nService %s%s", key, flags(map[string]bool{
		"not in the mesh": !svc.Enrolled, "ExternalName": svc.External, "client IP": svc.ClientIP, "local": svc.Local,
		"partial": p.in.LeftOut.Get(nil, key).TooMany,
	}))
	p.line("  %s", bindingWords(p.in.Binding.Get(nil, key)))
	p.tables(svc)
	for _, port := range svc.Ports {
		at := model.ServicePort{Namespace: key.Namespace, Service: key.Name, Port: port.Number}
		list := p.in.Endpoints.Get(nil, at)
		for _, e := range list {
			p.line("  port %d endpoint %s", port.Number, p.endpoint(e))
		}
		p.leftOut(at)
		if p.in.Spread.Get(nil, at) {
			continue
		}
		for _, node := range p.nodes() {
			p.line("  port %d from %s: %s", port.Number, node, distances(p.in.NodeEndpoints.Get(nil, NodePort{at, node})))
		}
	}
	for _, e := range p.in.CallerEndpoints.Get(nil, key) {
		to := p.endpoint(e)
		if e.Absent {
			to = "nowhere"
		}
		p.line("  where callers are told apart, those of %s go to %s", strings.Join(e.Callers, ", "), to)
	}
}

// leftOut are the endpoints of a port that waypoints leave out; the Service's Events name the first.
func (p *picture) leftOut(at model.ServicePort) {
	whose := map[Word]string{
		OfOwner: "waypoints", OfSender: "waypoints of other namespaces", OfConsumer: "waypoints by consumers' routes alone",
	}
	for _, word := range p.in.wordsFor(nil, at) {
		for _, a := range p.in.strays.Get(nil, Sent{at, word}) {
			p.line("  port %d is not at %s for %s", at.Port, a, whose[word])
		}
		if word == OfConsumer {
			for _, a := range p.in.outsiders.Get(nil, at) {
				p.line("  port %d is not outside, at %s, for %s", at.Port, a, whose[word])
			}
		}
	}
}

// tables of a Service, those that are the same once.
func (p *picture) tables(svc *model.Service) {
	of := map[string][]string{}
	for _, port := range svc.Ports {
		at := svc.Attachment(port)
		t, up := p.in.Table.Get(nil, at), p.in.Upstream.Get(nil, at.Port)
		text := string(t.Protocol)
		if t.Protocol != port.Protocol {
			text += fmt.Sprintf(" (declared %s)", port.Protocol)
		}
		if up.Protocol != t.Protocol {
			text += ", to waypoints " + string(up.Protocol)
		}
		text += tlsWords(up.TLS) + policyWords("sending", up.Sending) + policyWords("requests", t.Requests)
		if t.Session != nil {
			text += "\n    " + sessionWords(*t.Session)
		}
		for _, c := range t.Callers {
			text += ruleLines("callers of "+c.Namespace, c.Rules)
		}
		if t.Default != nil {
			text += ruleLines("all callers", t.Default)
		}
		text += p.tableGuards(t)
		of[text] = append(of[text], strings.TrimSpace(fmt.Sprintf("%d %s", port.Number, port.Name)))
	}
	first := func(a, b string) int { return strings.Compare(of[a][0], of[b][0]) }
	for _, text := range slices.SortedFunc(maps.Keys(of), first) {
		p.line("  port %s: %s", strings.Join(of[text], ", "), text)
	}
}

func ruleLines(who string, rules []*model.Rule) string {
	out := "\n    " + who + ":"
	if len(rules) == 0 {
		out += " 404"
	}
	for _, r := range rules {
		out += "\n      " + ruleLine(*r)
	}
	return out
}

func bindingWords(b Binding) string {
	switch {
	case b.None():
		return "no waypoint"
	case b.Unsupported != "":
		return "no waypoint can serve it: " + b.Unsupported
	}
	out := "waypoint " + b.Waypoint.String() + flags(map[string]bool{
		"automatic": b.Automatic, "pending": b.Pending, "spreads what should be local": b.Spreads,
	})
	if len(b.Callers) > 0 {
		out += " for callers of " + strings.Join(b.Callers, ", ")
	}
	if b.Problem != "" {
		out += ", refused: " + b.Problem
	}
	return out
}

func (p *picture) waypoint(key cluster.Key) {
	w := p.in.Waypoint.Get(nil, key)
	if w == nil {
		p.line("\nGateway %s is no waypoint", key)
		return
	}
	p.line("\nwaypoint %s as %s listens on %v, headers of %d KiB, %d of them",
		key, p.identity(w.Identity), w.Listen, w.Headers.KiB, w.Headers.Count)
	var http, tcp []model.ServicePort
	for _, port := range w.Ports {
		if port.Protocol.HTTP() {
			http = append(http, port.ServicePort)
		} else {
			tcp = append(tcp, port.ServicePort)
		}
	}
	for _, of := range []struct{ name, ports string }{
		{"HTTP", portList(http)}, {"TCP", portList(tcp)}, {"backends", portList(w.Backends)},
	} {
		if of.ports != "" {
			p.line("  %s: %s", of.name, of.ports)
		}
	}
	for _, name := range w.Externals {
		e := p.in.External.Get(nil, name)
		p.line("  outside by %s: %s in %s%s", name, e.Address(), e.Protocol, tlsWords(e.TLS))
	}
	for _, g := range p.in.TCPGuards.Get(nil, key) {
		if len(g.Guards) == 0 {
			continue
		}
		p.line("  let in to %s:%s", portWords(g.ServicePort), p.guards(g.Guards, "    "))
	}
	p.authentications(p.in.Authentications.Get(nil, key))
}

// addresses are those of Services and pods: who has them, and where a connection to them goes.
func (p *picture) addresses() {
	if len(p.podAddresses()) > 0 {
		p.line("")
	}
	for _, addr := range p.podAddresses() {
		p.line("%s is %s", addr, p.workload(addr))
		for _, r := range p.in.Claims.Get(nil, addr).Refused {
			p.line("  not that of pod %s: %s", r.Pod, r.Why)
		}
	}
	p.line("")
	for _, addr := range p.dialled() {
		p.line("%s → %s", addr, p.destination(p.in.Destination.Get(nil, addr)))
	}
}

func (p *picture) workload(addr netip.Addr) string {
	w := p.in.Workload.Get(nil, addr)
	switch {
	case w == nil:
		return "nobody's"
	case w.Closed:
		return "closed"
	}
	out := "pod " + p.in.Claims.Get(nil, addr).holder.String()
	if w.Identity != "" {
		out += " as " + p.identity(w.Identity)
	}
	return out + flags(map[string]bool{"mTLS": w.MTLS})
}

func (p *picture) destination(d *model.Destination) string {
	switch d.Kind {
	case model.DestinationRefused:
		return "refused: " + d.Reason
	case model.DestinationPassthrough:
		return "itself in plaintext"
	case model.DestinationWorkload:
		return "its pod by mTLS as " + p.identities(d.Identities)
	case model.DestinationService, model.DestinationWaypoint:
	}
	out := string(d.Kind) + " " + portWords(d.Port)
	if d.Kind == model.DestinationWaypoint {
		out += " for " + portWords(d.Service)
	}
	out += flags(map[string]bool{"IPv6": d.IPv6, "client IP": d.ClientIP})
	if len(d.Identities) > 0 {
		out += " as " + p.identities(d.Identities)
	}
	if len(d.Callers) > 0 {
		out += "; callers of " + strings.Join(d.Callers, ", ") + " to a waypoint as " + p.identity(d.Waypoint)
	}
	return out
}

func (p *picture) endpoint(e model.Endpoint) string {
	out := e.Address.String()
	if e.MTLS {
		out += " by mTLS as " + p.identity(e.Identity)
	}
	for _, part := range []struct{ name, value string }{
		{"on", e.Node},
		{"in zone", e.Zone},
		{"meant for nodes", strings.Join(e.ForNodes, ",")},
		{"meant for zones", strings.Join(e.ForZones, ",")},
	} {
		if part.value != "" {
			out += ", " + part.name + " " + part.value
		}
	}
	return out + flags(map[string]bool{"draining": e.Draining})
}

func distances(list []model.Endpoint) string {
	if len(list) == 0 {
		return "none"
	}
	out := map[uint8][]string{}
	for _, e := range list {
		out[e.Distance] = append(out[e.Distance], e.Address.String())
	}
	var text []string
	for _, d := range slices.Sorted(maps.Keys(out)) {
		text = append(text, strings.Join(out[d], " "))
	}
	return strings.Join(text, ", then ")
}

// identity leaves out the mesh's own trust domain.
func (p *picture) identity(id string) string {
	if domain, ns, account, ok := names.ParseSPIFFEID(id); ok && domain == p.domain {
		return ns + "/" + account
	}
	return id
}

func (p *picture) identities(ids []string) string {
	var out []string
	for _, id := range ids {
		out = append(out, p.identity(id))
	}
	return strings.Join(out, ", ")
}

// flags are those that are set, sorted.
func flags(set map[string]bool) (out string) {
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] {
			out += ", " + name
		}
	}
	return out
}

// statusText is what statuses are to say.
func (w *world) statusText() string {
	p := &picture{world: w}
	for _, ref := range w.routes() {
		if r := w.in.Report.Get(nil, ref); r != nil {
			p.report(r)
		}
	}
	for _, key := range w.services() {
		if b := w.in.Bound.Get(nil, key); !b.None() {
			p.line("Service %s: %s", key, bindingWords(b))
		}
	}
	for _, key := range w.gateways() {
		p.gateway(key)
	}
	for _, ns := range w.namespaces() {
		if w.in.NeedsAutomatic.Get(nil, ns) {
			p.line("namespace %s needs an automatic waypoint", ns)
		}
	}
	return p.String()
}

func (p *picture) report(r *Report) {
	p.line("%s %s/%s%s", r.Ref.Kind, r.Ref.Namespace, r.Ref.Name,
		flags(map[string]bool{"says nothing": len(r.Parents) == 0}))
	for _, parent := range r.Parents {
		p.line("  %s%s", parentWords(parent.Ref), flags(map[string]bool{"foreign": parent.Foreign}))
		for _, c := range parent.Conditions {
			p.line("    %s %s %s: %s", c.Type, c.Status, c.Reason, c.Message)
		}
		condition := "Programmed"
		if parent.Enforcement != nil {
			condition = "Enforced"
		}
		switch u := parent.Unprogrammed; {
		case u != nil:
			p.line("    %s False %s: %s", condition, u.Reason, u.Message)
		case parent.Enforcement != nil:
			p.enforcement(*parent.Enforcement)
		default:
			pending := flags(map[string]bool{"pending": parent.Pending, "stalled": parent.Stalled})
			var ports []model.ServicePort
			for _, at := range parent.Attachments {
				ports = append(ports, at.Port)
			}
			clusters := flags(map[string]bool{"in clusters " + fmt.Sprint(parent.Clusters): parent.Clusters != nil})
			p.line("    Programmed by waypoint %s%s, at %v, with %s, leading to [%s]%s",
				parent.Waypoint, pending, parent.Dialled, portList(ports), clusterList(parent.Backends), clusters)
		}
	}
}

func parentWords(ref gwv1.ParentReference) string {
	out := string(ref.Name)
	if ref.Kind != nil {
		out = string(*ref.Kind) + " " + out
	}
	if ref.Namespace != nil {
		out += " of " + string(*ref.Namespace)
	}
	if asked := portAsked(ref); asked != "" {
		out += ", port" + asked
	}
	return out
}

func (p *picture) gateway(key cluster.Key) {
	g, _ := p.store.Gateways.Get(nil, key)
	if p.in.gateway(nil, key) == nil {
		return
	}
	p.line("Gateway %s: %s", key, verdictWords(JudgeWaypoint(g)))
	for n, v := range JudgeListeners(g) {
		p.line("  listener %s: %s", g.Spec.Listeners[n].Name, verdictWords(v))
	}
}

func verdictWords(v *Verdict) string {
	if v == nil {
		return "Accepted"
	}
	return v.Reason + ": " + v.Message
}

// dialled are the addresses of all ports of Services, whatever they carry, and one of each pod.
func (w *world) dialled() (out []netip.AddrPort) {
	for _, key := range w.services() {
		s, _ := w.store.Services.Get(nil, key)
		for _, vip := range w.in.Service.Get(nil, key).VIPs {
			for _, port := range s.Spec.Ports {
				out = append(out, netip.AddrPortFrom(vip, portNumber(port.Port)))
			}
		}
	}
	for _, addr := range w.podAddresses() {
		out = append(out, netip.AddrPortFrom(addr, 8080))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

func (w *world) podAddresses() (out []netip.Addr) {
	for _, o := range w.objects {
		if pod, ok := o.(*corev1.Pod); ok {
			for _, ip := range pod.Status.PodIPs {
				if addr, err := netip.ParseAddr(ip.IP); err == nil {
					out = append(out, addr)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
