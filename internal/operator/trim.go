// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// This file keeps of the kinds that a cluster has by the thousand what the mesh reads, so that memory does not grow
// with what they carry besides. What objects have in common, such as the labels of the pods of one ReplicaSet, is there
// once: objects of the cache are never changed.

// trimmed adds the kinds that are trimmed to what the cache does with kinds.
func trimmed(by map[client.Object]cache.ByObject) map[client.Object]cache.ByObject {
	by[&corev1.Pod{}] = cache.ByObject{Transform: trimBy(newPodTrimmer().trim)}
	by[&corev1.Node{}] = cache.ByObject{Transform: trimBy(trimNode)}
	by[&corev1.Service{}] = cache.ByObject{Transform: trimBy(trimService)}
	by[&discoveryv1.EndpointSlice{}] = cache.ByObject{Transform: trimBy(newSliceTrimmer().trim)}
	return by
}

// trimBy is what a cache calls. Whatever is no object of the kind, such as a mark that one is gone, stays as it is.
func trimBy[T client.Object](trim func(T) T) func(any) (any, error) {
	return func(o any) (any, error) {
		if obj, ok := o.(T); ok {
			return trim(obj), nil
		}
		return o, nil
	}
}

// interned is a string that is there once, however many objects have it.
func interned[T ~string](s T) T { return T(unique.Make(string(s)).Value()) }

// mostShared is how many values are remembered, so that an object that comes shares them. Objects are listed by name,
// so those that have them in common come one after the other.
const mostShared = 1024

// shared gives equal values one place.
type shared[T any] struct{ recent *lru.Cache }

func newShared[T any]() shared[T] { return shared[T]{lru.New(mostShared)} }

// get returns the value of a key, which make makes if there is none.
func (s shared[T]) get(key string, make func() T) T {
	if v, ok := s.recent.Get(key); ok {
		return v.(T) //nolint:forcetypeassert // nothing else is put there
	}
	v := make()
	s.recent.Add(key, v)
	return v
}

// podTrimmer trims pods.
type podTrimmer struct {
	labels     shared[map[string]string]
	owners     shared[[]metav1.OwnerReference]
	containers shared[[]corev1.Container]
	conditions shared[[]corev1.PodCondition]
}

func newPodTrimmer() *podTrimmer {
	return &podTrimmer{
		labels: newShared[map[string]string](), owners: newShared[[]metav1.OwnerReference](),
		containers: newShared[[]corev1.Container](), conditions: newShared[[]corev1.PodCondition](),
	}
}

func (t *podTrimmer) trim(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{}
	out.Name, out.Namespace, out.UID, out.ResourceVersion = p.Name, interned(p.Namespace), p.UID, p.ResourceVersion
	out.Labels = sharedLabels(t.labels, p.Labels)
	out.CreationTimestamp, out.DeletionTimestamp = p.CreationTimestamp, p.DeletionTimestamp
	if len(p.OwnerReferences) > 0 {
		out.OwnerReferences = t.owners.get(ownersKey(p.OwnerReferences),
			func() []metav1.OwnerReference { return p.OwnerReferences })
	}
	if v, mirror := p.Annotations[names.AnnotationMirror]; mirror {
		out.Annotations = map[string]string{names.AnnotationMirror: v}
	}
	out.Spec = corev1.PodSpec{
		NodeName: interned(p.Spec.NodeName), ServiceAccountName: interned(p.Spec.ServiceAccountName),
		HostNetwork: p.Spec.HostNetwork,
		Containers:  t.ports(p.Spec.Containers), InitContainers: t.ports(p.Spec.InitContainers),
	}
	out.Status = corev1.PodStatus{Phase: interned(p.Status.Phase), PodIPs: p.Status.PodIPs}
	if deploy.IsNode(p.Labels) || p.Labels[names.LabelComponent] == names.ComponentWaypoint {
		// Statuses of Mesh and Gateways say what keeps a proxy, of which there are few.
		out.Status.Conditions = p.Status.Conditions
		out.Status.InitContainerStatuses, out.Status.ContainerStatuses = p.Status.InitContainerStatuses,
			p.Status.ContainerStatuses
		return out
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.PodConditionCaptured {
			out.Status.Conditions = t.conditions.get(fmt.Sprint(c.Status, c.Reason, " ", c.Message),
				func() []corev1.PodCondition {
					return []corev1.PodCondition{{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message}}
				})
		}
	}
	return out
}

// ownersKey tells owners apart. References have pointers, which fmt would print as such.
func ownersKey(refs []metav1.OwnerReference) string {
	var key strings.Builder
	for _, r := range refs {
		fmt.Fprintf(&key, "%s %s %s %s %t %t\n", r.UID, r.APIVersion, r.Kind, r.Name, said(r.Controller),
			said(r.BlockOwnerDeletion))
	}
	return key.String()
}

func said(b *bool) bool { return b != nil && *b }

// ports keeps of containers their named ports: Services lead to these by name, and policies guard them.
func (t *podTrimmer) ports(in []corev1.Container) []corev1.Container {
	out := trimContainers(in)
	if len(out) == 0 {
		return nil
	}
	return t.containers.get(fmt.Sprint(out), func() []corev1.Container { return out })
}

func trimContainers(in []corev1.Container) (out []corev1.Container) {
	for _, c := range in {
		named := slices.DeleteFunc(slices.Clone(c.Ports), func(p corev1.ContainerPort) bool { return p.Name == "" })
		if len(named) > 0 {
			out = append(out, corev1.Container{Name: c.Name, Ports: slices.Clip(named)})
		}
	}
	return out
}

func sharedLabels(by shared[map[string]string], in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	return by.get(labels.Set(in).String(), func() map[string]string {
		out := make(map[string]string, len(in))
		for k, v := range in {
			out[interned(k)] = interned(v)
		}
		return out
	})
}

// trimNode leaves out what kubelet says of the node's images and volumes, and of its state, which are most of it.
func trimNode(n *corev1.Node) *corev1.Node {
	out := &corev1.Node{}
	out.Name, out.UID, out.ResourceVersion, out.Labels = n.Name, n.UID, n.ResourceVersion, n.Labels
	out.CreationTimestamp, out.DeletionTimestamp = n.CreationTimestamp, n.DeletionTimestamp
	out.Spec = corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints}
	out.Status.Addresses = n.Status.Addresses
	return out
}

// trimService leaves out who wrote what, and the annotations of Services that aren't the operator's own.
func trimService(s *corev1.Service) *corev1.Service {
	s.ManagedFields = nil
	if s.Labels[names.LabelManagedBy] != names.ManagedBy {
		s.Annotations = nil
	}
	return s
}

// sliceTrimmer trims EndpointSlices.
type sliceTrimmer struct{ names shared[*string] }

func newSliceTrimmer() *sliceTrimmer { return &sliceTrimmer{newShared[*string]()} }

// sliceLabels are those of an EndpointSlice that are read; others are its Service's.
var sliceLabels = []string{discoveryv1.LabelServiceName, names.LabelGatewayName}

func (t *sliceTrimmer) trim(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{AddressType: interned(s.AddressType), Ports: s.Ports}
	out.Name, out.Namespace, out.UID, out.ResourceVersion = s.Name, interned(s.Namespace), s.UID, s.ResourceVersion
	out.CreationTimestamp, out.DeletionTimestamp, out.Generation = s.CreationTimestamp, s.DeletionTimestamp, s.Generation
	for _, label := range sliceLabels {
		if v, has := s.Labels[label]; has {
			if out.Labels == nil {
				out.Labels = make(map[string]string, len(sliceLabels))
			}
			out.Labels[label] = v
		}
	}
	out.Endpoints = make([]discoveryv1.Endpoint, 0, len(s.Endpoints))
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, t.endpoint(e))
	}
	return out
}

func (t *sliceTrimmer) endpoint(e discoveryv1.Endpoint) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses: e.Addresses, NodeName: t.name(e.NodeName), Zone: t.name(e.Zone), Hints: e.Hints,
		Conditions: discoveryv1.EndpointConditions{
			Ready: flag(e.Conditions.Ready), Serving: flag(e.Conditions.Serving), Terminating: flag(e.Conditions.Terminating),
		},
	}
	if of := e.TargetRef; of != nil {
		out.TargetRef = &corev1.ObjectReference{Kind: interned(of.Kind), Namespace: interned(of.Namespace), Name: of.Name}
	}
	return out
}

func (t *sliceTrimmer) name(s *string) *string {
	if s == nil {
		return nil
	}
	return t.names.get(*s, func() *string { return new(strings.Clone(*s)) })
}

var yes, no = new(true), new(false)

// flag is one of two places.
func flag(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return yes
	}
	return no
}
