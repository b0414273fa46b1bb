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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
)

// collectObjects lists kinds as they are, but pods, of which only some fields are of use. Secrets and ConfigMaps are
// none of them.
func (b *bugReport) collectObjects(ctx context.Context, k *collector) {
	for _, gvk := range b.reported() {
		b.addKind(ctx, objectsOf(gvk), gvk, "")
	}
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	for _, gvk := range []schema.GroupVersionKind{apps.WithKind("Deployment"), apps.WithKind("DaemonSet")} {
		b.addKind(ctx, objectsOf(gvk), gvk, b.system)
	}
	b.collectPodObjects(ctx, k)
	b.collectEvents(ctx, k)
}

func objectsOf(gvk schema.GroupVersionKind) string { return "objects/" + fileOf(gvk.Group, gvk.Kind) }

// collectPodObjects adds the pods of the mesh, and of namespaces in it.
func (b *bugReport) collectPodObjects(ctx context.Context, k *collector) {
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	file := objectsOf(gvk)
	if k.unread[whatPods] {
		b.lack(file, "pods can't be listed: "+k.whyUnread(whatPods))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	var found items
	for i := range k.pods {
		p := &k.pods[i]
		if p.Namespace != k.system && !k.isWaypoint(p) && !member.Enrolled(k.namespaces[p.Namespace]) {
			continue
		}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(new(trimmed(p)))
		if err == nil {
			err = found.add(ctx, p.Namespace, object)
		}
		if err != nil {
			b.lack(file, plainly(err))
			break
		}
	}
	b.addItems(file, gvk, &found)
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
		b.addKind(ctx, path.Join("events", n+".json"), corev1.SchemeGroupVersion.WithKind("Event"), n)
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
