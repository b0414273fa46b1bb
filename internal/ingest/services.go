// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

func (i *Ingest) service(c *memo.Ctx, key cluster.Key) *model.Service {
	s, ok := i.store.Services.Get(c, key)
	if !ok {
		return nil
	}
	out := &model.Service{
		Name: key, Enrolled: member.Enrolled(i.namespace(c, key.Namespace)),
		External: s.Spec.Type == corev1.ServiceTypeExternalName,
		ClientIP: s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		Local: s.Spec.InternalTrafficPolicy != nil &&
			*s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
	}
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out.VIPs = append(out.VIPs, a)
		}
	}
	for _, p := range s.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		out.Ports = append(out.Ports, model.Port{Number: portNumber(p.Port), Name: p.Name, Protocol: portProtocol(p)})
	}
	slices.SortFunc(out.Ports, func(a, b model.Port) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// portNumber converts a port as the API has it; the API server has checked its range.
func portNumber(n int32) uint16 {
	if n < 0 || n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}

// protocolGRPCWeb is the one protocol with a dash in its name; browsers speak it over HTTP/1.1.
const protocolGRPCWeb = "grpc-web"

// portProtocol reads appProtocol (GEP-1911, KEP-1422) and, where it is not set, the name of the port by the convention
// <protocol>[-suffix] that meshes have in common.
func portProtocol(p corev1.ServicePort) model.Protocol {
	var declared string
	if p.AppProtocol != nil {
		declared = strings.ToLower(*p.AppProtocol)
	} else if declared = strings.ToLower(p.Name); declared != protocolGRPCWeb &&
		!strings.HasPrefix(declared, protocolGRPCWeb+"-") {
		declared, _, _ = strings.Cut(declared, "-")
	} else {
		declared = protocolGRPCWeb
	}
	switch declared {
	case "http", "ws", "kubernetes.io/ws", protocolGRPCWeb:
		return model.ProtocolHTTP
	case "http2", "h2c", "grpc", "kubernetes.io/h2c":
		return model.ProtocolHTTP2
	case "tls", "https", "wss", "kubernetes.io/wss":
		return model.ProtocolTLS
	case "tcp", "mongo", "mysql", "postgres", "redis":
		return model.ProtocolTCP
	}
	if p.AppProtocol != nil {
		return model.ProtocolTCP // declared, and nothing that we terminate
	}
	return model.ProtocolUndeclared
}

func (i *Ingest) workload(c *memo.Ctx, addr netip.Addr) *model.Workload {
	claims := i.Claims.Get(c, addr)
	pod, ok := i.store.Pods.Get(c, claims.holder)
	switch {
	case claims.closed:
		return &model.Workload{Closed: true}
	case !ok:
		return nil
	}
	return &model.Workload{MTLS: i.takesMTLS(c, pod), Identity: member.Identity(i.trustDomain(c), pod)}
}

// waypointOf finds the waypoint that a port is the mTLS port of.
func (i *Ingest) waypointOf(c *memo.Ctx, port model.ServicePort) (cluster.Key, bool) {
	if port.Port != names.PortMTLS {
		return cluster.Key{}, false
	}
	key := cluster.Key{Namespace: port.Namespace, Name: names.WaypointGateway(port.Service)}
	return key, i.ownService(c, port.ServiceName())
}

func (i *Ingest) destination(c *memo.Ctx, addr netip.AddrPort) *model.Destination {
	out := &model.Destination{Address: addr, Kind: model.DestinationPassthrough}
	if svc := i.serviceAt(c, addr.Addr()); svc != nil {
		port := model.ServicePort{Namespace: svc.Name.Namespace, Service: svc.Name.Name, Port: addr.Port()}
		if _, ok := svc.Port(addr.Port()); !ok {
			// kube-proxy would reject it, too, but says so once a second at most (ICMP's rate limit), and by silence else.
			out.Kind, out.Reason = model.DestinationRefused, "the Service has no such TCP port"
			return out
		}
		i.serviceDestination(c, out, port)
		return out
	}
	switch w := i.Workload.Get(c, addr.Addr()); {
	case w == nil:
	case w.Closed:
		out.Kind, out.Reason = model.DestinationRefused, "a pod claims the address but can't have it: see condition "+
			v1alpha1.MeshConditionAddressesReady+" of the Mesh"
	case w.MTLS:
		out.Kind, out.Identities = model.DestinationWorkload, []string{w.Identity}
	}
	return out
}

func (i *Ingest) serviceDestination(c *memo.Ctx, out *model.Destination, port model.ServicePort) {
	b := i.Binding.Get(c, port.ServiceName())
	open := b.unserved() || b.Pending
	switch {
	case open, len(b.Callers) > 0:
		out.Kind, out.Port, out.IPv6 = model.DestinationService, port, out.Address.Addr().Is6()
		out.Identities = i.identitiesOf.Get(c, port)
		out.ClientIP = i.Service.Get(c, port.ServiceName()).ClientIP
		if !open {
			out.Callers, out.Waypoint = b.Callers, i.WaypointIdentity(c, b.Waypoint)
		}
	case b.Problem != "":
		out.Kind, out.Reason = model.DestinationRefused, b.Problem
	default:
		own := waypointMTLS(b.Waypoint)
		if i.Service.Get(c, own.ServiceName()) != nil && !i.ownService(c, own.ServiceName()) {
			// Its pods are somebody else's, and nothing meant for the waypoint may reach them.
			out.Kind, out.Reason = model.DestinationRefused, "another Service has the name of the waypoint's Service"
			return
		}
		out.Kind, out.Port, out.Service = model.DestinationWaypoint, own, port
		out.IPv6 = waypointFamily(i.Service.Get(c, own.ServiceName()), out.Address.Addr()).Is6()
		out.Identities = []string{i.WaypointIdentity(c, b.Waypoint)}
	}
}

// waypointMTLS is the port at which the pods of a waypoint are reached.
func waypointMTLS(gateway cluster.Key) model.ServicePort {
	return model.ServicePort{
		Namespace: gateway.Namespace, Service: names.WaypointResource(gateway.Name),
		Port: names.PortMTLS,
	}
}

// callerEndpoints are the endpoints of a waypoint that only callers of some namespaces go to. They are refused where
// there is none.
func (i *Ingest) callerEndpoints(c *memo.Ctx, svc cluster.Key) []model.Endpoint {
	b := i.Binding.Get(c, svc)
	if b.unserved() || b.Pending {
		return nil
	}
	callers := b.Callers
	if callers == nil {
		// All go there now. A proxy that is about to switch must not open the Service meanwhile to those who went there
		// before.
		callers = i.callersOf.Get(c, svc)
	}
	if len(callers) == 0 {
		return nil
	}
	var out []model.Endpoint
	own := waypointMTLS(b.Waypoint)
	if b.Problem == "" && i.ownService(c, own.ServiceName()) {
		for _, e := range i.Endpoints.Get(c, own) {
			family := waypointFamily(i.Service.Get(c, own.ServiceName()), e.Address.Addr())
			if e.Address.Addr().Is6() == family.Is6() {
				e.Callers = callers
				out = append(out, e)
			}
		}
	}
	if len(out) == 0 {
		return []model.Endpoint{{Callers: callers, Absent: true}}
	}
	return out
}

func (i *Ingest) serviceAt(c *memo.Ctx, addr netip.Addr) *model.Service {
	for _, k := range i.store.Services.By(c, cluster.ByAddress, addr.String()) {
		if s := i.Service.Get(c, k); s != nil {
			return s
		}
	}
	return nil
}

// waypointFamily is an address of the family in which a waypoint is reached, whatever its Services were dialled by: the
// primary one of its own Service, which its pods listen on.
func waypointFamily(svc *model.Service, dialled netip.Addr) netip.Addr {
	if svc == nil || len(svc.VIPs) == 0 {
		return dialled
	}
	return svc.VIPs[0]
}
