// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster holds the objects of the cluster as they were watched, with indexes, and says which derived values a
// change touches. It has no logic of its own: what an object means is decided by ingest.
package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
)

// Indexes of the collections. A value is a namespace, an address, or namespace/name.
const (
	ByNamespace = "namespace" // Nodes have none: all are under ""
	ByAddress   = "address"   // Services: VIP; Pods: pod IP
	ByService   = "service"   // EndpointSlices: of the Service; routes: parent Service
	ByConsumer  = "consumer"  // routes: their namespace / that of a parent Service, where they are not the same
	ByOwner     = "owner"     // routes: the namespace of a parent Service, where it is not their own
	ByTarget    = "target"    // policies: what they name; see TargetValue
	ByBackend   = "backend"   // routes: the XBackends that they send requests to
	ByExtension = "extension" // routes: the HTTPExtensions that they name
	All         = "all"       // Gateways: all are under ""
)

// indexes of a collection: by name, what the values of an object are.
type indexes[T any] = map[string]func(T) []string

// NewStore returns an empty store whose changes touch the graph.
func NewStore(g *memo.Graph) *Store {
	s := &Store{}
	for _, k := range kinds {
		k.make(s, g)
	}
	return s
}

// Set stores an object of any kind that the mesh reads.
func (s *Store) Set(obj client.Object) error {
	k, ok := byType[reflect.TypeOf(obj)]
	if !ok {
		return notRead(obj)
	}
	k.set(s, obj)
	return nil
}

// Delete removes an object of any kind that the mesh reads.
func (s *Store) Delete(obj client.Object) error {
	k, ok := byType[reflect.TypeOf(obj)]
	if !ok {
		return notRead(obj)
	}
	k.delete(s, client.ObjectKeyFromObject(obj))
	return nil
}

func notRead(obj client.Object) error {
	return fmt.Errorf("the mesh does not read objects of type %T", obj)
}

// --- what makes an update worth looking at

func sameGeneration[T client.Object](old, new T) bool {
	return old.GetUID() == new.GetUID() && old.GetGeneration() == new.GetGeneration() && sameLabels(old, new)
}

func sameLabels[T client.Object](old, new T) bool {
	return maps.Equal(old.GetLabels(), new.GetLabels())
}

// sameMesh looks at what the operator found out, too: the ranges of the cluster.
func sameMesh(old, new *v1alpha1.Mesh) bool {
	return sameGeneration(old, new) && equality.Semantic.DeepEqual(old.Status.Network, new.Status.Network)
}

// sameNode looks at what the mesh reads of a Node.
func sameNode(old, new *corev1.Node) bool {
	return slices.Equal(old.Status.Addresses, new.Status.Addresses) &&
		old.Labels[corev1.LabelTopologyZone] == new.Labels[corev1.LabelTopologyZone] &&
		slices.Equal(old.Spec.PodCIDRs, new.Spec.PodCIDRs) && old.CreationTimestamp.Equal(&new.CreationTimestamp)
}

func sameGateway(old, new *gwv1.Gateway) bool {
	return sameGeneration(old, new) && (old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil) &&
		GatewayEstablished(old) == GatewayEstablished(new) && GatewayStalled(old) == GatewayStalled(new)
}

// GatewayEstablished tells whether a waypoint has served before (condition fairway.dev/Established); false for nil.
func GatewayEstablished(g *gwv1.Gateway) bool {
	return g != nil && meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.GatewayConditionEstablished)
}

// GatewayStalled tells whether a waypoint doesn't get any better by itself (condition Stalled); false for nil.
func GatewayStalled(g *gwv1.Gateway) bool {
	return g != nil && meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.ConditionStalled)
}

func sameService(old, new *corev1.Service) bool {
	return sameLabels(old, new) && equality.Semantic.DeepEqual(old.Spec, new.Spec) &&
		equality.Semantic.DeepEqual(old.OwnerReferences, new.OwnerReferences) && ServiceClosed(old) == ServiceClosed(new)
}

// ServiceClosed tells whether nobody may reach a Service around its waypoint any more (condition
// fairway.dev/WaypointBound): the waypoint has served it, or it was refused for want of one. It is remembered with the
// Service, because the Gateway may be deleted and made again.
func ServiceClosed(s *corev1.Service) bool {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceConditionWaypointBound)
	return c != nil && (c.Status == metav1.ConditionTrue || c.Reason == v1alpha1.ServiceReasonWaypointMissing ||
		c.Reason == v1alpha1.ServiceReasonOverBudget)
}

func sameSlice(old, new *discoveryv1.EndpointSlice) bool {
	return sameLabels(old, new) && equality.Semantic.DeepEqual(old.Endpoints, new.Endpoints) &&
		equality.Semantic.DeepEqual(old.Ports, new.Ports)
}

// samePod looks at what a workload is made of; a pod's status changes far more often than that.
func samePod(old, new *corev1.Pod) bool {
	return old.UID == new.UID && sameLabels(old, new) && old.Spec.NodeName == new.Spec.NodeName &&
		old.Spec.ServiceAccountName == new.Spec.ServiceAccountName &&
		member.Captured(old) == member.Captured(new) && member.SaidMode(old) == member.SaidMode(new) &&
		member.Finished(old) == member.Finished(new) &&
		slices.EqualFunc(old.Status.PodIPs, new.Status.PodIPs, func(a, b corev1.PodIP) bool { return a == b })
}

// --- index values

func namespaceOf[T client.Object](o T) []string { return []string{o.GetNamespace()} }

func everything[T client.Object](T) []string { return []string{""} }

func serviceAddresses(s *corev1.Service) []string { return canonical(s.Spec.ClusterIPs) }

// canonical writes addresses as they are looked up, and leaves out what is none.
func canonical(in []string) []string {
	var out []string
	for _, ip := range in {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, a.String())
		}
	}
	return out
}

func sliceService(s *discoveryv1.EndpointSlice) []string {
	if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
		return []string{s.Namespace + "/" + name}
	}
	return nil
}

// podAddresses lists the addresses that are a pod's own: host-network and finished pods have none.
func podAddresses(p *corev1.Pod) []string {
	if p.Spec.HostNetwork || member.Finished(p) {
		return nil
	}
	var out []string
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return canonical(out)
}

// routeIndexes are those of a kind of route.
func routeIndexes[T client.Object](
	parents func(T) []gwv1.ParentReference, extensions func(T) []string,
) indexes[T] {
	of := func(r T) []string { return owners(r.GetNamespace(), parents(r)) }
	return indexes[T]{
		ByNamespace: namespaceOf[T],
		ByService:   func(r T) []string { return parentServices(r.GetNamespace(), parents(r)) },
		ByConsumer:  func(r T) []string { return consumers(r.GetNamespace(), of(r)) },
		ByOwner:     of,
		ByBackend:   xbackendValues[T],
		ByExtension: extensions,
	}
}

// extensionsOf a route are those that its rules name, as index values.
func extensionsOf(namespace string, refs []*gwv1.LocalObjectReference) (out []string) {
	for _, ref := range refs {
		if ref == nil || string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindHTTPExtension {
			continue
		}
		if v := namespace + "/" + string(ref.Name); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func httpExtensions(r *gwv1.HTTPRoute) []string {
	var refs []*gwv1.LocalObjectReference
	for _, rule := range r.Spec.Rules {
		for _, f := range rule.Filters {
			refs = append(refs, f.ExtensionRef)
		}
	}
	return extensionsOf(r.Namespace, refs)
}

func grpcExtensions(r *gwv1.GRPCRoute) []string {
	var refs []*gwv1.LocalObjectReference
	for _, rule := range r.Spec.Rules {
		for _, f := range rule.Filters {
			refs = append(refs, f.ExtensionRef)
		}
	}
	return extensionsOf(r.Namespace, refs)
}

func consumers(namespace string, owners []string) []string {
	out := make([]string, 0, len(owners))
	for _, owner := range owners {
		out = append(out, namespace+"/"+owner)
	}
	return out
}

func owners(namespace string, refs []gwv1.ParentReference) []string {
	var out []string
	for _, parent := range parentServices(namespace, refs) {
		if owner, _, _ := strings.Cut(parent, "/"); owner != namespace && !slices.Contains(out, owner) {
			out = append(out, owner)
		}
	}
	return out
}

func parentServices(namespace string, refs []gwv1.ParentReference) []string {
	var out []string
	for _, ref := range refs {
		if isService(ref.Group, ref.Kind) {
			ns := namespace
			if ref.Namespace != nil {
				ns = string(*ref.Namespace)
			}
			if v := ns + "/" + string(ref.Name); !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// isService tells whether a parent reference names a core Service (GEP-1324).
func isService(group *gwv1.Group, kind *gwv1.Kind) bool {
	return group != nil && *group == "" && kind != nil && *kind == "Service"
}
