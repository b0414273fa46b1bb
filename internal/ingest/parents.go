// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Parent is one parentRef of a route that names a Service.
type Parent struct {
	Ref     gwv1.ParentReference
	Service cluster.Key
	// Ports that the route asks for; empty if refused. Which of them it gets depends on other routes: see claims.
	Ports   []model.ServicePort
	Refused *Verdict
	// Foreign: the parent's namespace is not in the mesh.
	Foreign bool
}

func (r *Route) attachesToPort(port model.ServicePort) bool {
	return slices.ContainsFunc(r.Parents, func(p Parent) bool { return slices.Contains(p.Ports, port) })
}

func (b *routeBuilder) parents(m metav1.ObjectMeta, refs []gwv1.ParentReference) {
	b.route.UID, b.route.Generation, b.route.Created = m.UID, m.Generation, m.CreationTimestamp.Time
	for _, ref := range refs {
		if !cluster.IsService(ref.Group, ref.Kind) {
			continue // somebody else's parent
		}
		p := Parent{Ref: ref, Service: cluster.Key{Namespace: b.route.Ref.Namespace, Name: string(ref.Name)}}
		if ref.Namespace != nil {
			p.Service.Namespace = string(*ref.Namespace)
		}
		p.Foreign = !b.i.enrolled(b.c, p.Service.Namespace)
		p.Ports, p.Refused = b.attach(p)
		b.route.Parents = append(b.route.Parents, p)
	}
}

// attach finds the ports that a parentRef asks for, or says why there are none.
func (b *routeBuilder) attach(p Parent) ([]model.ServicePort, *Verdict) {
	refuse := func(reason gwv1.RouteConditionReason, format string, args ...any) ([]model.ServicePort, *Verdict) {
		return nil, &Verdict{string(reason), fmt.Sprintf(format, args...)}
	}
	svc := b.i.Service.Get(b.c, p.Service)
	switch {
	case svc == nil:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s does not exist", p.Service)
	case !svc.Enrolled:
		return refuse(ReasonNotEnrolled, "namespace %s is not in the mesh: label it %s=%s", p.Service.Namespace, names.LabelMesh, names.MeshEnabled)
	case svc.External:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s is of type ExternalName: it is another name for a host, and no route can apply to what its clients dial", p.Service)
	case len(svc.VIPs) == 0:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no cluster IP, so its clients dial pods directly and no route can apply", p.Service)
	}
	named := p.Ref.Port != nil || sectionOf(p.Ref) != ""
	var ports []model.ServicePort
	var tls *model.Port
	for _, port := range svc.Ports {
		if !selects(p.Ref, port) {
			continue
		}
		switch {
		case port.Protocol == model.ProtocolTLS:
			tls = &port
		case named || port.Protocol != model.ProtocolTCP:
			// A route that names no port takes those that speak, or may speak, HTTP; one that names a port means it.
			ports = append(ports, model.ServicePort{Namespace: p.Service.Namespace, Service: p.Service.Name, Port: port.Number})
		}
	}
	switch {
	case len(ports) > 0:
		return ports, nil
	case named && tls != nil:
		return refuse(gwv1.RouteReasonUnsupportedProtocol, "port %d of Service %s carries TLS from its clients to its pods, and no route can read that", tls.Number, p.Service)
	case named:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no TCP port%s", p.Service, portAsked(p.Ref))
	}
	return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no port that speaks HTTP: set appProtocol, or name a port in parentRef.port", p.Service)
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
