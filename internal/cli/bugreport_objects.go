// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
)

const (
	// mostObjects bounds what is collected of a kind, mostNamespaces from how many namespaces Events are.
	mostObjects    = 2000
	mostNamespaces = 50
)

// collectObjects lists kinds as they are, but pods, of which only some fields are of use. Secrets and ConfigMaps are
// none of them.
func (b *bugReport) collectObjects(ctx context.Context, k *collector) {
	for _, gvk := range b.reported() {
		b.addKind(ctx, gvk, "")
	}
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	for _, gvk := range []schema.GroupVersionKind{apps.WithKind("Deployment"), apps.WithKind("DaemonSet")} {
		b.addKind(ctx, gvk, b.system)
	}
	b.addJSON(ctx, "objects/pod.json", func(context.Context) (any, error) {
		if k.unread[whatPods] {
			return nil, fmt.Errorf("pods can't be listed: %s", k.whyUnread(whatPods))
		}
		out := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
		for i := range k.pods {
			p := &k.pods[i]
			if len(out.Items) < mostObjects &&
				(p.Namespace == k.system || k.isWaypoint(p) || member.Enrolled(k.namespaces[p.Namespace])) {
				out.Items = append(out.Items, trimmed(p))
			}
		}
		return out, nil
	})
	b.collectEvents(ctx, k)
}

// reported are the kinds of the mesh and of the Gateway API that this program knows, and those by which a mesh is
// understood.
func (b *bugReport) reported() []schema.GroupVersionKind {
	out := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Namespace"), corev1.SchemeGroupVersion.WithKind("Node"),
		corev1.SchemeGroupVersion.WithKind("Service"),
		{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"},
	}
	newest := map[schema.GroupKind]string{}
	for gvk := range b.client.Scheme().AllKnownTypes() {
		switch gvk.Group {
		case gwv1.GroupName, gwxv1alpha1.GroupName, v1alpha1.GroupVersion.Group:
			name, is := strings.CutSuffix(gvk.Kind, "List")
			kind := schema.GroupKind{Group: gvk.Group, Kind: name}
			if is && name != "" && version.CompareKubeAwareVersionStrings(gvk.Version, newest[kind]) > 0 {
				newest[kind] = gvk.Version
			}
		}
	}
	for kind, v := range newest {
		out = append(out, kind.WithVersion(v))
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// addKind adds the objects of a kind, of a namespace or of all; nothing where the cluster doesn't have it.
func (b *bugReport) addKind(ctx context.Context, gvk schema.GroupVersionKind, namespace string) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	ctx, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	err := b.client.List(ctx, list, client.InNamespace(namespace), client.Limit(mostObjects))
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return
	}
	file := "objects/" + fileOf(gvk.Group, gvk.Kind)
	if err == nil && list.GetContinue() != "" {
		b.lack(file, fmt.Sprintf("there are more than the first %d", mostObjects))
	}
	b.addJSON(ctx, file, func(context.Context) (any, error) { return list.UnstructuredContent(), err })
}

// collectEvents are those of the mesh's namespace and of namespaces in the mesh.
func (b *bugReport) collectEvents(ctx context.Context, k *collector) {
	namespaces := []string{b.system}
	for _, n := range k.namespaceNames() {
		if n != b.system && k.enrolled(n) {
			namespaces = append(namespaces, n)
		}
	}
	if left := len(namespaces) - mostNamespaces; left > 0 {
		b.lack("events", fmt.Sprintf("%d of %d namespaces were left out", left, len(namespaces)))
		namespaces = namespaces[:mostNamespaces]
	}
	for _, n := range namespaces {
		b.addJSON(ctx, path.Join("events", n+".json"), func(ctx context.Context) (any, error) {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("EventList"))
			err := b.client.List(ctx, list, client.InNamespace(n), client.Limit(mostObjects))
			return list.UnstructuredContent(), err
		})
	}
}

// trimmed is a pod without its environment, arguments, probes and volumes: what users put there is their own.
func trimmed(p *corev1.Pod) corev1.Pod {
	containers := func(all []corev1.Container) (out []corev1.Container) {
		for _, c := range all {
			out = append(out, corev1.Container{Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources})
		}
		return out
	}
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels, Annotations: p.Annotations,
			CreationTimestamp: p.CreationTimestamp, DeletionTimestamp: p.DeletionTimestamp, Finalizers: p.Finalizers,
			OwnerReferences: p.OwnerReferences, Generation: p.Generation,
		},
		Spec: corev1.PodSpec{
			NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName, HostNetwork: p.Spec.HostNetwork,
			DNSPolicy: p.Spec.DNSPolicy, PriorityClassName: p.Spec.PriorityClassName, ReadinessGates: p.Spec.ReadinessGates,
			TerminationGracePeriodSeconds: p.Spec.TerminationGracePeriodSeconds, Tolerations: p.Spec.Tolerations,
			InitContainers: containers(p.Spec.InitContainers), Containers: containers(p.Spec.Containers),
		},
		Status: p.Status,
	}
}
