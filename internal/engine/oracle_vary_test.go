// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// vary changes what may change in an object of its kind, for the better or the worse.
func vary(r *rand.Rand, o client.Object) {
	switch o := o.(type) {
	case *v1alpha1.Mesh:
		if r.IntN(3) == 0 {
			o.Spec.TrustDomain = "other.example"
		}
		o.Spec.Authorization.Default = oneOf(r, v1alpha1.AuthorizationDefaultAllow, v1alpha1.AuthorizationDefaultDeny)
		deleted(r, o)
	case *v1alpha1.AuthorizationPolicy:
		o.Spec.DryRun = r.IntN(4) == 0
		if r.IntN(4) == 0 {
			o.Spec.Rules = o.Spec.Rules[:r.IntN(len(o.Spec.Rules)+1)]
		}
	case *gwv1.BackendTLSPolicy:
		varyBackendTLS(r, o)
	case *gwxv1alpha1.XBackend:
		varyXBackend(r, o)
	case *corev1.ConfigMap:
		if r.IntN(4) == 0 {
			o.Data = nil
		}
	case *corev1.Namespace:
		varyNamespace(r, o)
	case *corev1.Node:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelTopologyZone, oneOf(r, "a", "b"))
		o.Status.Addresses = []corev1.NodeAddress{{Address: oneOf(r, "203.0.113.1", "203.0.113.2", "n1")}}
	case *corev1.Service:
		varyService(r, o)
	case *corev1.Pod:
		varyPod(r, o)
	case *discoveryv1.EndpointSlice:
		varySlice(r, o)
	case *gwv1.GatewayClass:
		if r.IntN(5) == 0 {
			o.Spec.ControllerName = "example.org/another"
		}
	case *gwv1.Gateway:
		varyGateway(r, o)
	case *gwv1.HTTPRoute:
		switch {
		case r.IntN(6) == 0:
			o.Spec.Rules = nil
		case r.IntN(3) == 0 && len(o.Spec.Rules) > 1:
			o.Spec.Rules = o.Spec.Rules[1:]
		}
		varyParents(r, o.Spec.ParentRefs)
	case *gwv1.GRPCRoute:
		if r.IntN(4) == 0 {
			o.Spec.Rules = nil
		}
		varyParents(r, o.Spec.ParentRefs)
	case *gwv1beta1.ReferenceGrant:
		if r.IntN(3) == 0 {
			o.Spec.From = nil
		}
	}
}

func varyBackendTLS(r *rand.Rand, o *gwv1.BackendTLSPolicy) {
	if r.IntN(3) == 0 {
		o.Spec.TargetRefs[0].Name = oneOf[gwv1.ObjectName](r, "web", "reviews", "api", "nowhere")
	}
	for n := range o.Spec.Validation.CACertificateRefs {
		o.Spec.Validation.CACertificateRefs[n].Name = oneOf[gwv1.ObjectName](r, "one", "both", "gone", "no-key")
	}
	o.CreationTimestamp.Time = time.Unix(int64(r.IntN(3)), 0)
}

func varyXBackend(r *rand.Rand, o *gwxv1alpha1.XBackend) {
	o.Spec.ExternalHostname.Hostname = oneOf[gwv1.PreciseHostname](r, "pay.example", "other.example", "127.0.0.1")
	o.Spec.Port.Port = oneOf[gwxv1alpha1.PortNumber](r, 80, 443)
	if r.IntN(3) == 0 {
		o.Spec.Protocol = new(oneOf(r, gwxv1alpha1.BackendProtocolTCP, gwxv1alpha1.BackendProtocolHTTP))
	}
	if t := o.Spec.TLS; t != nil {
		for n := range t.Validation.CACertificateRefs {
			t.Validation.CACertificateRefs[n].Name = oneOf[gwv1.ObjectName](r, "one", "gone")
		}
	}
}

func oneOf[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// deleted has an object be on its way out, at times.
func deleted(r *rand.Rand, o client.Object) {
	if r.IntN(8) == 0 {
		o.SetDeletionTimestamp(new(metav1.Now()))
	}
}

func varyNamespace(r *rand.Rand, o *corev1.Namespace) {
	if r.IntN(4) == 0 {
		delete(o.Labels, "fairway.dev/mesh")
	}
	if r.IntN(4) == 0 && o.Labels != nil {
		o.Labels["fairway.dev/use-waypoint"] = oneOf(r, "none", "mine", "auto", "nowhere", "wp")
	}
}

func varyService(r *rand.Rand, o *corev1.Service) {
	switch r.IntN(14) {
	case 0:
		o.Labels = map[string]string{"fairway.dev/use-waypoint": oneOf(r, "none", "mine", "auto", "nowhere")}
	case 1:
		o.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	case 2:
		o.Spec.ClusterIPs = oneOf(r, nil, []string{"None"}, []string{"10.96.0.10"}) // that of another Service, too
	case 3:
		o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Name: "more", Port: 9999})
	case 4:
		o.Spec.Ports = nil
	case 5:
		o.Spec.Type, o.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
	case 6:
		o.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	case 7:
		o.OwnerReferences = nil
	case 9:
		o.Spec.Selector = oneOf(r, nil, map[string]string{"app": "web"})
	case 8:
		o.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ServiceConditionWaypointBound, Status: "True"}}
	}
	if len(o.Spec.Ports) == 0 {
		return
	}
	switch r.IntN(8) {
	case 0:
		o.Spec.Ports[0].AppProtocol = new(oneOf(r, "http", "kubernetes.io/h2c", "tcp", "https", "grpc-web"))
	case 1:
		o.Spec.Ports[0].Name = oneOf(r, "http", "grpc-web", "tcp", "")
	case 2:
		o.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	}
}

func varyPod(r *rand.Rand, o *corev1.Pod) {
	if r.IntN(4) == 0 {
		o.Status.Conditions = nil
	}
	if r.IntN(8) == 0 {
		o.Status.Phase = corev1.PodFailed
	}
	if r.IntN(6) == 0 {
		o.Spec.NodeName = "node2"
	}
	if r.IntN(6) == 0 {
		o.Spec.ServiceAccountName = "another"
	}
	if r.IntN(4) == 0 {
		o.Labels = map[string]string{"app": oneOf(r, "web", "api", "far"), "version": oneOf(r, "v1", "v2")}
	}
}

func varySlice(r *rand.Rand, o *discoveryv1.EndpointSlice) {
	if r.IntN(3) == 0 {
		o.Endpoints = o.Endpoints[:r.IntN(len(o.Endpoints)+1)]
	}
	if r.IntN(5) == 0 {
		o.Labels = map[string]string{discoveryv1.LabelServiceName: oneOf(r, "reviews", "web", "ratings")}
	}
	for n := range o.Ports {
		if r.IntN(8) == 0 {
			o.Ports[n].Port = new(int32(r.IntN(1 << 16)))
		}
	}
}

func varyGateway(r *rand.Rand, o *gwv1.Gateway) {
	if r.IntN(6) == 0 {
		o.Spec.GatewayClassName = "another"
	}
	if r.IntN(4) == 0 {
		o.Status.Conditions = nil
	}
	if r.IntN(8) == 0 && len(o.Spec.Listeners) > 0 {
		o.Spec.Listeners[0].Port = 80
	}
	deleted(r, o)
}

func varyParents(r *rand.Rand, refs []gwv1.ParentReference) {
	for n := range refs {
		switch r.IntN(12) {
		case 0:
			refs[n].Port = new(gwv1.PortNumber(80))
		case 1:
			refs[n].SectionName = new(gwv1.SectionName("http"))
		case 2:
			refs[n].Name = oneOf[gwv1.ObjectName](r, "reviews", "web", "ratings", "nowhere")
		case 3:
			refs[n].Namespace = new(oneOf[gwv1.Namespace](r, "bookshop", "all", "buyer", "other"))
		}
	}
}
