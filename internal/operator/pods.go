// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"slices"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// podAccount indexes pods by the node that they run on and the service account that they run as.
const podAccount = "fairway.podAccount"

// indexPods adds the index to the manager's cache.
func indexPods(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &corev1.Pod{}, podAccount, accountsOf)
}

// accountsOf are the values of the index: one at most.
func accountsOf(o client.Object) []string {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	account := member.Account(p)
	if p.Spec.NodeName == "" || account == "" || member.Finished(p) {
		return nil
	}
	return []string{accountKey(p.Spec.NodeName, p.Namespace, account)}
}

func accountKey(node, namespace, account string) string {
	return node + "/" + namespace + "/" + account
}

// pods answers what authentication asks about pods, from the cache.
type pods struct{ reader client.Reader }

// greet tells a proxy where it runs: the node of its token, and that node's zone.
func (p pods) greet(ctx context.Context, of xds.Proxy) metadata.MD {
	node := &corev1.Node{}
	if err := p.reader.Get(ctx, client.ObjectKey{Name: of.Node}, node); err != nil {
		return metadata.Pairs(names.HeaderNode, of.Node)
	}
	return metadata.Pairs(names.HeaderNode, of.Node, names.HeaderZone, node.Labels[corev1.LabelTopologyZone])
}

// Pod implements auth.Pods.
func (p pods) Pod(namespace, name string) (auth.Pod, bool) {
	pod := &corev1.Pod{}
	if err := p.reader.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
		return auth.Pod{}, false
	}
	return auth.Pod{
		Namespace: namespace, Name: name, UID: string(pod.UID), Node: pod.Spec.NodeName,
		ServiceAccount: member.Account(pod), Labels: pod.Labels, Terminated: member.Finished(pod),
	}, true
}

// namespace is nil where there is none, or none is known.
func (p pods) namespace(name string) *corev1.Namespace {
	ns := &corev1.Namespace{}
	if err := p.reader.Get(context.Background(), client.ObjectKey{Name: name}, ns); err != nil {
		return nil
	}
	return ns
}

// RunsOn implements auth.Workloads.
func (p pods) RunsOn(node, namespace, account string) bool {
	ns := p.namespace(namespace)
	if !member.Enrolled(ns) {
		return false
	}
	var list corev1.PodList
	if err := p.reader.List(context.Background(), &list,
		client.MatchingFields{podAccount: accountKey(node, namespace, account)}, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	for i := range list.Items {
		if member.Is(&list.Items[i], ns) {
			return true
		}
	}
	return false
}

// trimPod keeps of a pod what the mesh reads, so that memory does not grow with what pods carry besides.
func trimPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	out := &corev1.Pod{TypeMeta: p.TypeMeta}
	out.Name, out.Namespace, out.UID, out.ResourceVersion = p.Name, p.Namespace, p.UID, p.ResourceVersion
	out.Labels, out.CreationTimestamp, out.DeletionTimestamp = p.Labels, p.CreationTimestamp, p.DeletionTimestamp
	out.OwnerReferences = p.OwnerReferences
	if v, mirror := p.Annotations[names.AnnotationMirror]; mirror {
		out.Annotations = map[string]string{names.AnnotationMirror: v}
	}
	out.Spec = corev1.PodSpec{
		NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName,
		HostNetwork: p.Spec.HostNetwork,
		Containers:  trimContainers(p.Spec.Containers), InitContainers: trimContainers(p.Spec.InitContainers),
	}
	out.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}
	if labels.SelectorFromSet(deploy.NodeLabels()).Matches(labels.Set(p.Labels)) ||
		p.Labels[names.LabelComponent] == names.ComponentWaypoint {
		// Statuses of Mesh and Gateways say what keeps a proxy, of which there are few.
		out.Status.Conditions = p.Status.Conditions
		out.Status.InitContainerStatuses, out.Status.ContainerStatuses = p.Status.InitContainerStatuses,
			p.Status.ContainerStatuses
		return out, nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.PodConditionCaptured || c.Type == corev1.PodReady {
			out.Status.Conditions = append(out.Status.Conditions, c)
		}
	}
	return out, nil
}

// trimContainers keeps of containers their named ports: Services lead to these by name, and policies guard them.
func trimContainers(in []corev1.Container) (out []corev1.Container) {
	for _, c := range in {
		named := slices.DeleteFunc(slices.Clone(c.Ports), func(p corev1.ContainerPort) bool { return p.Name == "" })
		if len(named) > 0 {
			out = append(out, corev1.Container{Name: c.Name, Ports: slices.Clip(named)})
		}
	}
	return out
}
