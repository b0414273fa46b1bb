// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
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
	Authorization  *Collection[*v1alpha1.AuthorizationPolicy]

	TrafficPolicies    *Collection[*v1alpha1.TrafficPolicy]
	BackendTraffic     *Collection[*gwxv1alpha1.XBackendTrafficPolicy]
	Authentication     *Collection[*v1alpha1.AuthenticationPolicy]
	BackendTLSPolicies *Collection[*gwv1.BackendTLSPolicy]
	XBackends          *Collection[*gwxv1alpha1.XBackend]
	Extensions         *Collection[*v1alpha1.HTTPExtension]
	// ConfigMaps are only those that others refer to; see References.
	ConfigMaps *Collection[*corev1.ConfigMap]
}

// Kind is a row of the table of what the mesh reads. A kind is in no other list: the store, the feed and the operator's
// rights go by this one.
type Kind interface {
	// New is an empty object of the kind.
	New() client.Object
	// Optional: the cluster may not have the kind, or not have it yet.
	Optional() bool
	// Attaches: the mesh writes statuses of such objects for what they attach to.
	Attaches() bool
	// Referenced: only those are read that others refer to; see References.
	Referenced() bool

	make(s *Store, g *memo.Graph)
	set(s *Store, obj client.Object)
	delete(s *Store, key Key)
}

// New is an empty object of a kind that the mesh reads, by its name; nil for any other.
func New(kind string) client.Object {
	for _, k := range kinds {
		if obj := k.New(); NameOf(obj) == kind {
			return obj
		}
	}
	return nil
}

// NameOf is the name of an object's kind.
func NameOf(obj client.Object) string { return reflect.TypeOf(obj).Elem().Name() }

// Kinds are all that the mesh reads.
func Kinds() []Kind { return kinds }

var kinds = []Kind{
	row[*v1alpha1.Mesh]{
		in:   func(s *Store) **Collection[*v1alpha1.Mesh] { return &s.Meshes },
		same: sameMesh,
	},
	row[*v1alpha1.ProxyParameters]{
		in:   func(s *Store) **Collection[*v1alpha1.ProxyParameters] { return &s.Parameters },
		same: sameGeneration[*v1alpha1.ProxyParameters],
	},
	row[*corev1.Namespace]{
		in:   func(s *Store) **Collection[*corev1.Namespace] { return &s.Namespaces },
		same: sameLabels[*corev1.Namespace],
	},
	row[*corev1.Node]{
		in: func(s *Store) **Collection[*corev1.Node] { return &s.Nodes }, same: sameNode,
		by: indexes[*corev1.Node]{ByNamespace: namespaceOf[*corev1.Node]},
	},
	row[*corev1.Service]{
		in: func(s *Store) **Collection[*corev1.Service] { return &s.Services }, same: sameService, attaches: true,
		by: indexes[*corev1.Service]{ByNamespace: namespaceOf[*corev1.Service], ByAddress: serviceAddresses},
	},
	row[*discoveryv1.EndpointSlice]{
		in: func(s *Store) **Collection[*discoveryv1.EndpointSlice] { return &s.EndpointSlices }, same: sameSlice,
		by: indexes[*discoveryv1.EndpointSlice]{ByService: sliceService},
	},
	row[*corev1.Pod]{
		in: func(s *Store) **Collection[*corev1.Pod] { return &s.Pods }, same: samePod,
		by: indexes[*corev1.Pod]{ByNamespace: namespaceOf[*corev1.Pod], ByAddress: podAddresses},
	},
	row[*gwv1.GatewayClass]{
		in:   func(s *Store) **Collection[*gwv1.GatewayClass] { return &s.GatewayClasses },
		same: sameGeneration[*gwv1.GatewayClass], optional: true,
	},
	row[*gwv1.Gateway]{
		in: func(s *Store) **Collection[*gwv1.Gateway] { return &s.Gateways }, same: sameGateway,
		optional: true, by: indexes[*gwv1.Gateway]{All: everything[*gwv1.Gateway]},
	},
	row[*gwv1.HTTPRoute]{
		in: func(s *Store) **Collection[*gwv1.HTTPRoute] { return &s.HTTPRoutes }, same: sameGeneration[*gwv1.HTTPRoute],
		optional: true, attaches: true,
		by: routeIndexes(func(r *gwv1.HTTPRoute) []gwv1.ParentReference { return r.Spec.ParentRefs }, httpExtensions),
	},
	row[*gwv1.GRPCRoute]{
		in: func(s *Store) **Collection[*gwv1.GRPCRoute] { return &s.GRPCRoutes }, same: sameGeneration[*gwv1.GRPCRoute],
		optional: true, attaches: true,
		by: routeIndexes(func(r *gwv1.GRPCRoute) []gwv1.ParentReference { return r.Spec.ParentRefs }, grpcExtensions),
	},
	row[*gwv1beta1.ReferenceGrant]{
		in:   func(s *Store) **Collection[*gwv1beta1.ReferenceGrant] { return &s.Grants },
		same: sameGeneration[*gwv1beta1.ReferenceGrant], optional: true,
		by: indexes[*gwv1beta1.ReferenceGrant]{ByNamespace: namespaceOf[*gwv1beta1.ReferenceGrant]},
	},
	policies(func(s *Store) **Collection[*v1alpha1.AuthorizationPolicy] { return &s.Authorization }),
	policies(func(s *Store) **Collection[*v1alpha1.TrafficPolicy] { return &s.TrafficPolicies }),
	policies(func(s *Store) **Collection[*gwxv1alpha1.XBackendTrafficPolicy] { return &s.BackendTraffic }),
	policies(func(s *Store) **Collection[*v1alpha1.AuthenticationPolicy] { return &s.Authentication }),
	policies(func(s *Store) **Collection[*gwv1.BackendTLSPolicy] { return &s.BackendTLSPolicies }),
	row[*gwxv1alpha1.XBackend]{
		in:   func(s *Store) **Collection[*gwxv1alpha1.XBackend] { return &s.XBackends },
		same: sameGeneration[*gwxv1alpha1.XBackend], optional: true, attaches: true,
		by: indexes[*gwxv1alpha1.XBackend]{ByNamespace: namespaceOf[*gwxv1alpha1.XBackend]},
	},
	policies(func(s *Store) **Collection[*v1alpha1.HTTPExtension] { return &s.Extensions }),
	row[*corev1.ConfigMap]{
		in:   func(s *Store) **Collection[*corev1.ConfigMap] { return &s.ConfigMaps },
		same: sameConfigMap, referenced: true,
	},
}

// row of a type of objects.
type row[T client.Object] struct {
	// in is where the store keeps them.
	in func(*Store) **Collection[T]
	// same tells whether two versions of an object are equal in all that the mesh reads.
	same func(old, new T) bool
	// by are the indexes.
	by                             indexes[T]
	optional, attaches, referenced bool
}

// New implements Kind.
func (r row[T]) New() client.Object { return reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T) }

// Optional implements Kind.
func (r row[T]) Optional() bool { return r.optional }

// Attaches implements Kind.
func (r row[T]) Attaches() bool { return r.attaches }

// Referenced implements Kind.
func (r row[T]) Referenced() bool { return r.referenced }

func (r row[T]) make(s *Store, g *memo.Graph) {
	*r.in(s) = newCollection(g, r.same, r.by)
}

func (r row[T]) set(s *Store, obj client.Object) { (*r.in(s)).Set(obj.(T)) }

func (r row[T]) delete(s *Store, key Key) { (*r.in(s)).Delete(key) }

// byType finds a row by the type of an object.
var byType = func() map[reflect.Type]Kind {
	out := map[reflect.Type]Kind{}
	for _, k := range kinds {
		out[reflect.TypeOf(k.New())] = k
	}
	return out
}()
