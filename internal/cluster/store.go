// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster holds the objects of the cluster as they were watched, with indexes, and says which derived values a
// change touches. It has no logic of its own: what an object means is decided by ingest.
package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Indexes of the collections. A value is a namespace, an address, or namespace/name.
const (
	ByNamespace = "namespace" // Nodes have none: all are under ""
	ByAddress   = "address"   // Services: VIP; Pods: pod IP
	ByService   = "service"   // EndpointSlices: of the Service; routes: parent Service
	ByConsumer  = "consumer"  // routes: their namespace / that of a parent Service, where they are not the same
	ByOwner     = "owner"     // routes: the namespace of a parent Service, where it is not their own
)

// Store holds one collection for each kind that the mesh reads.
type Store struct {
	Meshes         *Collection[*v1alpha1.Mesh]
	Namespaces     *Collection[*corev1.Namespace]
	Nodes          *Collection[*corev1.Node]
	Services       *Collection[*corev1.Service]
	EndpointSlices *Collection[*discoveryv1.EndpointSlice]
	Pods           *Collection[*corev1.Pod]
	GatewayClasses *Collection[*gwv1.GatewayClass]
	Gateways       *Collection[*gwv1.Gateway]
	HTTPRoutes     *Collection[*gwv1.HTTPRoute]
	GRPCRoutes     *Collection[*gwv1.GRPCRoute]
	Grants         *Collection[*gwv1beta1.ReferenceGrant]
	Parameters     *Collection[*v1alpha1.ProxyParameters]
}

// indexes of a collection: by name, what the values of an object are.
type indexes[T any] = map[string]func(T) []string

// NewStore returns an empty store whose changes touch the graph.
func NewStore(g *memo.Graph) *Store {
	return &Store{
		Meshes:     newCollection(g, "Mesh", sameGeneration[*v1alpha1.Mesh], nil),
		Namespaces: newCollection(g, "Namespace", sameLabels[*corev1.Namespace], nil),
		Nodes:      newCollection(g, "Node", sameNode, indexes[*corev1.Node]{ByNamespace: namespaceOf[*corev1.Node]}),
		Services: newCollection(g, "Service", sameService, indexes[*corev1.Service]{
			ByNamespace: namespaceOf[*corev1.Service], ByAddress: serviceAddresses,
		}),
		EndpointSlices: newCollection(g, "EndpointSlice", sameSlice, indexes[*discoveryv1.EndpointSlice]{
			ByService: sliceService,
		}),
		Pods:           newCollection(g, "Pod", samePod, indexes[*corev1.Pod]{ByAddress: podAddresses}),
		GatewayClasses: newCollection(g, "GatewayClass", sameGeneration[*gwv1.GatewayClass], nil),
		Gateways:       newCollection(g, "Gateway", sameGateway, nil),
		HTTPRoutes: newCollection(g, "HTTPRoute", sameGeneration[*gwv1.HTTPRoute], indexes[*gwv1.HTTPRoute]{
			ByNamespace: namespaceOf[*gwv1.HTTPRoute], ByService: httpParents, ByConsumer: httpConsumers, ByOwner: httpOwners,
		}),
		GRPCRoutes: newCollection(g, "GRPCRoute", sameGeneration[*gwv1.GRPCRoute], indexes[*gwv1.GRPCRoute]{
			ByNamespace: namespaceOf[*gwv1.GRPCRoute], ByService: grpcParents, ByConsumer: grpcConsumers, ByOwner: grpcOwners,
		}),
		Grants: newCollection(g, "ReferenceGrant", sameGeneration[*gwv1beta1.ReferenceGrant], indexes[*gwv1beta1.ReferenceGrant]{
			ByNamespace: namespaceOf[*gwv1beta1.ReferenceGrant],
		}),
		Parameters: newCollection(g, "ProxyParameters", sameGeneration[*v1alpha1.ProxyParameters], nil),
	}
}

// Set stores an object of any kind that the mesh reads.
func (s *Store) Set(obj client.Object) error {
	switch o := obj.(type) {
	case *v1alpha1.Mesh:
		s.Meshes.Set(o)
	case *corev1.Namespace:
		s.Namespaces.Set(o)
	case *corev1.Node:
		s.Nodes.Set(o)
	case *corev1.Service:
		s.Services.Set(o)
	case *discoveryv1.EndpointSlice:
		s.EndpointSlices.Set(o)
	case *corev1.Pod:
		s.Pods.Set(o)
	case *gwv1.GatewayClass:
		s.GatewayClasses.Set(o)
	case *gwv1.Gateway:
		s.Gateways.Set(o)
	case *gwv1.HTTPRoute:
		s.HTTPRoutes.Set(o)
	case *gwv1.GRPCRoute:
		s.GRPCRoutes.Set(o)
	case *gwv1beta1.ReferenceGrant:
		s.Grants.Set(o)
	case *v1alpha1.ProxyParameters:
		s.Parameters.Set(o)
	default:
		return fmt.Errorf("the mesh does not read objects of type %T", obj)
	}
	return nil
}

// Delete removes an object of any kind that the mesh reads.
func (s *Store) Delete(obj client.Object) error {
	key := client.ObjectKeyFromObject(obj)
	switch obj.(type) {
	case *v1alpha1.Mesh:
		s.Meshes.Delete(key)
	case *corev1.Namespace:
		s.Namespaces.Delete(key)
	case *corev1.Node:
		s.Nodes.Delete(key)
	case *corev1.Service:
		s.Services.Delete(key)
	case *discoveryv1.EndpointSlice:
		s.EndpointSlices.Delete(key)
	case *corev1.Pod:
		s.Pods.Delete(key)
	case *gwv1.GatewayClass:
		s.GatewayClasses.Delete(key)
	case *gwv1.Gateway:
		s.Gateways.Delete(key)
	case *gwv1.HTTPRoute:
		s.HTTPRoutes.Delete(key)
	case *gwv1.GRPCRoute:
		s.GRPCRoutes.Delete(key)
	case *gwv1beta1.ReferenceGrant:
		s.Grants.Delete(key)
	case *v1alpha1.ProxyParameters:
		s.Parameters.Delete(key)
	default:
		return fmt.Errorf("the mesh does not read objects of type %T", obj)
	}
	return nil
}

// --- what makes an update worth looking at

func sameGeneration[T client.Object](old, new T) bool {
	return old.GetUID() == new.GetUID() && old.GetGeneration() == new.GetGeneration() && sameLabels(old, new)
}

func sameLabels[T client.Object](old, new T) bool {
	return maps.Equal(old.GetLabels(), new.GetLabels())
}

// sameNode looks at what the mesh reads of a Node.
func sameNode(old, new *corev1.Node) bool {
	return old.Labels[corev1.LabelTopologyZone] == new.Labels[corev1.LabelTopologyZone] &&
		slices.Equal(old.Spec.PodCIDRs, new.Spec.PodCIDRs)
}

func sameGateway(old, new *gwv1.Gateway) bool {
	return sameGeneration(old, new) && (old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil) &&
		GatewayEstablished(old) == GatewayEstablished(new)
}

// GatewayEstablished tells whether a waypoint has served before (condition fairway.dev/Established); false for nil.
func GatewayEstablished(g *gwv1.Gateway) bool {
	return g != nil && meta.IsStatusConditionTrue(g.Status.Conditions, names.ConditionEstablished)
}

func sameService(old, new *corev1.Service) bool {
	return sameLabels(old, new) && equality.Semantic.DeepEqual(old.Spec, new.Spec) &&
		equality.Semantic.DeepEqual(old.OwnerReferences, new.OwnerReferences) && ServiceClosed(old) == ServiceClosed(new)
}

// ServiceClosed tells whether nobody may reach a Service around its waypoint any more (condition
// fairway.dev/WaypointBound): the waypoint has served it, or it was refused for want of one. It is remembered with the
// Service, because the Gateway may be deleted and made again.
func ServiceClosed(s *corev1.Service) bool {
	c := meta.FindStatusCondition(s.Status.Conditions, names.ConditionWaypointBound)
	return c != nil && (c.Status == metav1.ConditionTrue || c.Reason == names.ReasonWaypointMissing)
}

func sameSlice(old, new *discoveryv1.EndpointSlice) bool {
	return sameLabels(old, new) && equality.Semantic.DeepEqual(old.Endpoints, new.Endpoints) &&
		equality.Semantic.DeepEqual(old.Ports, new.Ports)
}

// samePod looks at what a workload is made of; a pod's status changes far more often than that.
func samePod(old, new *corev1.Pod) bool {
	return old.UID == new.UID && sameLabels(old, new) && old.Spec.NodeName == new.Spec.NodeName &&
		old.Spec.ServiceAccountName == new.Spec.ServiceAccountName &&
		PodCaptured(old) == PodCaptured(new) && podGone(old) == podGone(new) &&
		slices.EqualFunc(old.Status.PodIPs, new.Status.PodIPs, func(a, b corev1.PodIP) bool { return a == b })
}

// PodCaptured tells whether the node's agent has reported the pod as captured (condition fairway.dev/Captured).
func PodCaptured(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == names.ConditionCaptured {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func podGone(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// --- index values

func namespaceOf[T client.Object](o T) []string { return []string{o.GetNamespace()} }

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
	if p.Spec.HostNetwork || podGone(p) {
		return nil
	}
	var out []string
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return canonical(out)
}

func httpParents(r *gwv1.HTTPRoute) []string { return parentServices(r.Namespace, r.Spec.ParentRefs) }

func grpcParents(r *gwv1.GRPCRoute) []string { return parentServices(r.Namespace, r.Spec.ParentRefs) }

func httpOwners(r *gwv1.HTTPRoute) []string { return owners(r.Namespace, r.Spec.ParentRefs) }

func grpcOwners(r *gwv1.GRPCRoute) []string { return owners(r.Namespace, r.Spec.ParentRefs) }

func httpConsumers(r *gwv1.HTTPRoute) []string { return consumers(r.Namespace, httpOwners(r)) }

func grpcConsumers(r *gwv1.GRPCRoute) []string { return consumers(r.Namespace, grpcOwners(r)) }

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
		if IsService(ref.Group, ref.Kind) {
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

// IsService tells whether a parent reference names a core Service (GEP-1324).
func IsService(group *gwv1.Group, kind *gwv1.Kind) bool {
	return group != nil && *group == "" && kind != nil && *kind == "Service"
}
