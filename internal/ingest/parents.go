// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// coreOfOthers is what Linkerd takes for the core group's name, and what Flagger's documents have. In the Gateway API,
// "core" is the name of some other group. Were a route served by it, it would do nothing with implementations that keep
// to the API. Where the namespace is not in the mesh, such a route is Linkerd's, and nothing is said.
const coreOfOthers = "core"

// parent is one parentRef of a route that is the mesh's to answer: it names a Service, or what can't be a parent here.
type parent struct {
	ref gwv1.ParentReference
	// service that is named; none for what can't be a parent.
	service cluster.Key
	// attachments that the route asks for, sorted; none if refused. Which of them it gets depends on other routes: see
	// claims.
	attachments []model.Attachment
	refused     *Verdict
	// foreign: somebody else may be responsible for the parent, for its namespace is not in the mesh.
	foreign bool
}

// onlyParent tells whether a Service is the only one that the route names as parent.
func (r *Route) onlyParent(svc cluster.Key) bool {
	found := false
	for _, p := range r.parents {
		switch p.service {
		case svc:
			found = true
		case cluster.Key{}: // no Service: no requests come from there
		default:
			return false
		}
	}
	return found
}

func (b *routeBuilder) parents(refs []gwv1.ParentReference) {
	for _, ref := range refs {
		t := policy.Parent(b.route.ref.Namespace, ref)
		if t.GroupKind != policy.Service {
			if p := b.noService(ref, t.Object); p != nil {
				b.route.parents = append(b.route.parents, *p)
			}
			continue
		}
		p := parent{ref: ref, service: t.NamespacedName}
		p.foreign = !member.Enrolled(b.i.namespace(b.c, p.service.Namespace))
		p.attachments, p.refused = b.attach(p)
		b.route.parents = append(b.route.parents, p)
	}
}

// noService refuses a parent that is no Service, where the user expects the mesh to answer; nil for somebody else's
// parent.
func (b *routeBuilder) noService(ref gwv1.ParentReference, o policy.Object) *parent {
	p := &parent{ref: ref}
	switch {
	case o.GroupKind == policy.Gateway && b.i.gateway(b.c, o.NamespacedName) != nil:
		p.refused = &Verdict{Reason: string(gwv1.RouteReasonNotAllowedByListeners), Message: fmt.Sprintf(
			"Gateway %s is a waypoint, but mesh routes attach to Services: "+
				`name the Service in parentRefs, with group "" and kind Service`, o.NamespacedName)}
	case o.Group == gwv1.GroupName && o.Kind == policy.Service.Kind:
		// There is no such kind, so nobody else will answer either.
		p.foreign = true
		p.refused = &Verdict{Reason: string(gwv1.RouteReasonNoMatchingParent), Message: fmt.Sprintf(
			"there is no kind Service in group %s, which is the default group of parentRefs: "+
				`for Service %s, set group to ""`, o.Group, o.NamespacedName)}
	case o.Group == coreOfOthers && o.Kind == policy.Service.Kind && member.Enrolled(b.i.namespace(b.c, o.Namespace)):
		p.refused = &Verdict{Reason: string(gwv1.RouteReasonNoMatchingParent), Message: fmt.Sprintf(
			`there is no API group %q: for Service %s, set group to "", which is the core group's name`,
			o.Group, o.NamespacedName)}
	default:
		return nil
	}
	return p
}

// attach finds the ports that a parentRef asks for, or says why there are none.
func (b *routeBuilder) attach(p parent) ([]model.Attachment, *Verdict) {
	refuse := func(reason gwv1.RouteConditionReason, format string, args ...any) ([]model.Attachment, *Verdict) {
		return nil, &Verdict{Reason: string(reason), Message: fmt.Sprintf(format, args...)}
	}
	svc := b.i.Service.Get(b.c, p.service)
	switch {
	case svc == nil:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s does not exist", p.service)
	case !svc.Enrolled:
		return refuse(v1alpha1.EntryReasonNotEnrolled, "namespace %s is not in the mesh: label it %s=%s", p.service.Namespace,
			names.LabelMesh, names.MeshEnabled)
	case svc.External:
		return refuse(gwv1.RouteReasonNoMatchingParent,
			"Service %s is of type ExternalName: it is only an alias of a host name, so no route can apply", p.service)
	case len(svc.VIPs) == 0:
		return refuse(gwv1.RouteReasonNoMatchingParent,
			"Service %s has no cluster IP, so its clients dial pods directly and no route can apply", p.service)
	}
	named := p.ref.Port != nil || sectionOf(p.ref) != ""
	ports := b.i.routable.Get(b.c, p.service)
	var opaque *model.Port
	if named {
		ports = nil
		for _, port := range svc.Ports {
			switch {
			case !selects(p.ref, port):
			case port.Protocol.Opaque():
				opaque = &port
			default:
				ports = append(ports, svc.Attachment(port))
			}
		}
	}
	switch {
	case len(ports) > 0:
		return ports, nil
	case opaque != nil && opaque.Protocol == model.ProtocolTLS:
		return refuse(gwv1.RouteReasonUnsupportedProtocol,
			"port %d of Service %s carries TLS between clients and pods, which routes can't read", opaque.Number, p.service)
	case opaque != nil:
		return refuse(gwv1.RouteReasonUnsupportedProtocol,
			"port %d of Service %s is declared to have a protocol other than HTTP, by appProtocol or its name, "+
				"so no route can apply: if it speaks HTTP, declare that", opaque.Number, p.service)
	case named:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no TCP port%s", p.service, portAsked(p.ref))
	}
	return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no port that speaks HTTP: set appProtocol", p.service)
}

// routablePorts are all that do not speak something else than HTTP. Routes that name no port share the list.
func (i *Ingest) routablePorts(c *memo.Ctx, service cluster.Key) []model.Attachment {
	svc := i.Service.Get(c, service)
	if svc == nil {
		return nil
	}
	var out []model.Attachment
	for _, port := range svc.Ports {
		if !port.Protocol.Opaque() {
			out = append(out, svc.Attachment(port))
		}
	}
	return out
}

// selects tells whether a parentRef means a port. Where it gives both a number and a name, both must be the port's.
func selects(ref gwv1.ParentReference, port model.Port) bool {
	if ref.Port != nil && portNumber(*ref.Port) != port.Number {
		return false
	}
	section := sectionOf(ref)
	return section == "" || section == port.Name
}

// sectionOf is the port's name in a parentRef; empty means the same as absent.
func sectionOf(ref gwv1.ParentReference) string { return deref(ref.SectionName) }

func portAsked(ref gwv1.ParentReference) (out string) {
	if ref.Port != nil {
		out = fmt.Sprintf(" %d", *ref.Port)
	}
	if name := sectionOf(ref); name != "" {
		out += fmt.Sprintf(" named %q (sectionName)", name)
	}
	return out
}
