// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Binding says which waypoint serves a Service. The zero value: none does.
type Binding struct {
	Waypoint cluster.Key // of the Gateway
	// Callers are the namespaces whose callers alone go through the waypoint, sorted, for only their routes ask for it;
	// nil where all do. What becomes of the waypoint concerns nobody else.
	Callers []string
	// Automatic: the operator is to make the waypoint.
	Automatic bool
	// Pending: the automatic waypoint has never served yet, and no waypoint has served the Service. Until then,
	// connections go straight to the Service, so that a first route does not interrupt the traffic that is there.
	Pending bool
	// Problem says why the waypoint can't serve; connections to the Service are refused then, never let through.
	Problem string
	// OverBudget: the Problem is that the namespace has too many ports, so the waypoint serves none of this Service.
	OverBudget bool
	// Spreads: the Service asks for connections to stay on their node, which its waypoint can't do.
	Spreads bool
	// Unsupported says why no waypoint can ever serve the Service, though its label names one. Nothing changes for its
	// connections.
	Unsupported string
}

// None tells that no waypoint is asked for.
func (b Binding) None() bool {
	return b.Waypoint == (cluster.Key{}) && b.Problem == "" && b.Unsupported == ""
}

// Connections says in a sentence whose connections the binding is about.
func (b Binding) Connections() string {
	if len(b.Callers) == 0 {
		return "connections"
	}
	return "connections from namespaces " + strings.Join(b.Callers, ", ")
}

// unserved tells that connections to the Service have nothing to do with a waypoint.
func (b Binding) unserved() bool { return b.None() || b.Unsupported != "" }

// leadTo has a report speak of a waypoint.
func (i *Ingest) leadTo(c *memo.Ctx, b Binding, out *ParentReport) {
	out.Waypoint, out.Pending = b.Waypoint, b.Pending
	out.Stalled = cluster.GatewayStalled(i.gateway(c, b.Waypoint))
}

// bound is what a Service's status says of its binding: nothing while there is no Mesh.
func (i *Ingest) bound(c *memo.Ctx, key cluster.Key) Binding {
	if !i.Settings.Get(c, struct{}{}).present {
		return Binding{}
	}
	return i.Binding.Get(c, key)
}

// binding is what is asked for, unless the namespace has too many ports for it.
func (i *Ingest) binding(c *memo.Ctx, key cluster.Key) Binding {
	b := i.wantedBinding.Get(c, key)
	if b.unserved() || b.Problem != "" {
		return b
	}
	if older, over := i.overPorts.Get(c, key.Namespace)[key]; over {
		b.Pending, b.OverBudget = false, true
		b.Problem = fmt.Sprintf("the Services with waypoints in a namespace are limited to %d ports in total, and older "+
			"Services in namespace %s have %d: use fewer ports or several namespaces, or keep the Service off its waypoint "+
			"with label %s=%s",
			MostPortsOfNamespace, key.Namespace, older, names.LabelUseWaypoint, names.UseWaypointNone)
	}
	return b
}

// tooManyPorts are Services whose ports would cost a namespace's waypoints too much, with how many ports older ones
// have. The oldest come first, so that a new one takes nothing from those that work.
func (i *Ingest) tooManyPorts(c *memo.Ctx, namespace string) map[cluster.Key]int {
	var bills []*bill
	for _, key := range i.store.Services.By(c, cluster.ByNamespace, namespace) {
		if b := i.wantedBinding.Get(c, key); b.unserved() || b.Problem != "" {
			continue
		}
		if s, ok := i.store.Services.Get(c, key); ok {
			bills = append(bills, &bill{
				ref:     model.ObjectRef{Kind: policy.Service.Kind, Namespace: key.Namespace, Name: key.Name},
				created: s.CreationTimestamp.Time,
				all:     cost{rules: len(i.Service.Get(c, key).Ports)},
			})
		}
	}
	out := map[cluster.Key]int{}
	spend(bills, func(b *bill) cost { return b.all }, cost{rules: MostPortsOfNamespace}, func(b *bill, older cost) {
		out[cluster.Key{Namespace: b.ref.Namespace, Name: b.ref.Name}] = older.rules
	})
	return out
}

// wanted is the binding that a Service's labels and routes ask for.
func (i *Ingest) wanted(c *memo.Ctx, key cluster.Key) Binding {
	svc := i.Service.Get(c, key)
	if svc == nil || !svc.Enrolled {
		return Binding{}
	}
	use := i.useWaypoint(c, key)
	if use.None() {
		return Binding{}
	}
	if why := i.unservable(c, svc); why != "" {
		// What a namespace's label says of all Services leaves those out that it can't mean.
		if use.Own && !use.Automatic() {
			return Binding{Unsupported: why}
		}
		return Binding{}
	}
	if use.Automatic() {
		return i.automaticBinding(c, svc)
	}
	b := Binding{Waypoint: cluster.Key{Namespace: key.Namespace, Name: use.Gateway()}, Spreads: svc.Local}
	b.Problem = i.NamedProblem(c, b.Waypoint)
	return b
}

// NamedProblem says why a waypoint can't serve that a label names; "" if it can.
func (i *Ingest) NamedProblem(c *memo.Ctx, waypoint cluster.Key) string {
	g := i.gateway(c, waypoint)
	if g == nil {
		return fmt.Sprintf("label %s names %q, but namespace %s has no Gateway with that name and class %s (one in "+
			"another namespace can't be used): create it, or remove the label",
			names.LabelUseWaypoint, waypoint.Name, waypoint.Namespace, names.WaypointClass)
	}
	// A waypoint that has served runs on as it was before the mistake.
	if v := JudgeWaypoint(g); v != nil && !cluster.GatewayEstablished(g) {
		return fmt.Sprintf("label %s names Gateway %q, which is not accepted (%s): %s", names.LabelUseWaypoint,
			waypoint.Name, v.Reason, v.Message)
	}
	return ""
}

// automaticBinding is there as long as some route has a port of the Service, or a policy decides on requests to one.
func (i *Ingest) automaticBinding(c *memo.Ctx, svc *model.Service) Binding {
	callers := slices.Clone(i.callersOf.Get(c, svc.Name))
	if len(callers) == 0 {
		return Binding{}
	}
	if slices.Contains(callers, svc.Name.Namespace) {
		callers = nil // the owner's own routes and policies concern everyone
	}
	b := Binding{
		Waypoint: cluster.Key{Namespace: svc.Name.Namespace, Name: names.AutomaticWaypoint}, Callers: callers,
		Spreads: svc.Local,
	}
	if g, ok := i.store.Gateways.Get(c, b.Waypoint); ok && g.Spec.GatewayClassName != names.WaypointClass {
		b.Problem = fmt.Sprintf("the routes or policies of Service %s need a waypoint, but Gateway %s, whose name is "+
			"reserved for it, has class %s: delete that Gateway, or create a waypoint and name it in label %s",
			svc.Name, b.Waypoint, g.Spec.GatewayClassName, names.LabelUseWaypoint)
		return b
	}
	b.Automatic = true
	b.Pending = !cluster.GatewayEstablished(i.gateway(c, b.Waypoint)) && !i.closed(c, svc.Name)
	return b
}

// callers are the namespaces whose routes have a port of a Service, sorted; its own, too, where policies decide on
// requests, whoever makes them.
func (i *Ingest) callers(c *memo.Ctx, key cluster.Key) []string {
	svc := i.Service.Get(c, key)
	if svc == nil {
		return nil
	}
	var out []string
	for _, p := range svc.Ports {
		for _, ref := range i.claims.Get(c, svc.Attachment(p)).routes {
			if n := len(out); n == 0 || out[n-1] != ref.Namespace {
				out = append(out, ref.Namespace)
			}
		}
	}
	if i.bringsWaypoint(c, svc) {
		out = append(out, svc.Name.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// closed tells whether a Service must not be reached around its waypoint any more, whatever became of the Gateway.
func (i *Ingest) closed(c *memo.Ctx, key cluster.Key) bool {
	s, ok := i.store.Services.Get(c, key)
	return ok && cluster.ServiceClosed(s)
}

// unservable says why no waypoint can serve a Service; "" if one can.
func (i *Ingest) unservable(c *memo.Ctx, svc *model.Service) string {
	switch {
	case svc.External:
		return "a Service of type ExternalName has no address of its own, so its clients can't reach a waypoint"
	case len(svc.VIPs) == 0:
		return "the Service has no cluster IP, so its clients dial pods directly, without a waypoint"
	case len(svc.Ports) == 0:
		return "the Service has no TCP port, and a waypoint carries TCP only"
	case i.ownService(c, svc.Name):
		return "the Service is a waypoint's own"
	}
	return ""
}

// ownService tells whether a Service is a waypoint's own: the operator made it, for a Gateway of ours that controls it.
// That a Gateway has its name says nothing, for anyone may give it that.
func (i *Ingest) ownService(c *memo.Ctx, key cluster.Key) bool {
	s, ok := i.store.Services.Get(c, key)
	if !ok {
		return false
	}
	owner := metav1.GetControllerOfNoCopy(s)
	if owner == nil || owner.Kind != policy.Gateway.Kind || names.WaypointResource(owner.Name) != key.Name {
		return false
	}
	group, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && group.Group == gwv1.GroupName &&
		i.gateway(c, cluster.Key{Namespace: key.Namespace, Name: owner.Name}) != nil
}

// useWaypoint is what labels say of the waypoint of a Service.
func (i *Ingest) useWaypoint(c *memo.Ctx, key cluster.Key) member.WaypointUse {
	s, _ := i.store.Services.Get(c, key)
	return member.UseOf(s, i.namespace(c, key.Namespace))
}

// gateway finds a Gateway that is a waypoint of ours.
func (i *Ingest) gateway(c *memo.Ctx, key cluster.Key) *gwv1.Gateway {
	g, ok := i.store.Gateways.Get(c, key)
	if !ok || g.DeletionTimestamp != nil {
		return nil
	}
	class, _ := i.store.GatewayClasses.Get(c, cluster.Key{Name: string(g.Spec.GatewayClassName)})
	if !IsWaypoint(g, class) {
		return nil
	}
	return g
}

// WaypointIdentity is the SPIFFE ID of a Gateway that is a waypoint.
func (i *Ingest) WaypointIdentity(c *memo.Ctx, gateway cluster.Key) string {
	return names.SPIFFEID(i.trustDomain(c), gateway.Namespace, names.WaypointResource(gateway.Name))
}

func (i *Ingest) waypoint(c *memo.Ctx, key cluster.Key) *model.Waypoint {
	if i.gateway(c, key) == nil {
		return nil
	}
	out := &model.Waypoint{
		Name: key, Identity: i.WaypointIdentity(c, key), Listen: i.listen(c, key),
		Headers: i.HeaderLimits.Get(c, key),
	}
	all := &served{}
	for _, part := range i.servedParts(c, key) {
		all.add(i.servedIn.Get(c, part))
	}
	all.leads.sorted()
	out.Ports, out.Backends, out.Externals = i.portsAt.Get(c, key), all.backends, all.externals
	out.Consumed = consumed(all.backends, all.own, key.Namespace)
	out.Tunnels = all.tunnels
	return out
}

// sameWaypoint tells whether two are, with what is long compared without reflection.
func sameWaypoint(a, b *model.Waypoint) bool {
	if a == nil || b == nil {
		return a == b
	}
	if !slices.Equal(a.Ports, b.Ports) || !slices.Equal(a.Backends, b.Backends) {
		return false
	}
	restA, restB := *a, *b
	restA.Ports, restA.Backends, restB.Ports, restB.Backends = nil, nil, nil, nil
	return reflectEqual(restA, restB)
}

// consumed are those of the backends of a waypoint that are of other namespaces than its own, and not the own ones,
// which are sorted.
func consumed(backends, own []model.ServicePort, namespace string) (out []model.ServicePort) {
	for _, p := range backends {
		if _, is := slices.BinarySearchFunc(own, p, model.ServicePort.Compare); !is && p.Namespace != namespace {
			out = append(out, p)
		}
	}
	return out
}

// listen follows the families of the waypoint's own Service, which are those that the API server gave it.
func (i *Ingest) listen(c *memo.Ctx, gateway cluster.Key) []netip.Addr {
	key := cluster.Key{Namespace: gateway.Namespace, Name: names.WaypointResource(gateway.Name)}
	if !i.ownService(c, key) {
		return nil
	}
	svc := i.Service.Get(c, key)
	var out []netip.Addr
	for _, vip := range svc.VIPs {
		wildcard := netip.IPv6Unspecified()
		if vip.Is4() {
			wildcard = netip.IPv4Unspecified()
		}
		out = append(out, wildcard)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (i *Ingest) needsAutomatic(c *memo.Ctx, namespace string) bool {
	for _, key := range i.store.Services.By(c, cluster.ByNamespace, namespace) {
		if i.Binding.Get(c, key).Automatic {
			return true
		}
	}
	return false
}
