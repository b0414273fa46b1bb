// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/names"
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
	account := names.PodAccount(p.Spec.ServiceAccountName, p.Annotations)
	if p.Spec.NodeName == "" || account == "" || terminated(p) {
		return nil
	}
	return []string{accountKey(p.Spec.NodeName, p.Namespace, account)}
}

func accountKey(node, namespace, account string) string {
	return node + "/" + namespace + "/" + account
}

func terminated(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// pods answers what authentication asks about pods, from the cache.
type pods struct{ reader client.Reader }

// Pod implements auth.Pods.
func (p pods) Pod(namespace, name string) (auth.Pod, bool) {
	pod := &corev1.Pod{}
	if err := p.reader.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
		return auth.Pod{}, false
	}
	return auth.Pod{
		Namespace: namespace, Name: name, UID: string(pod.UID), Node: pod.Spec.NodeName,
		ServiceAccount: names.PodAccount(pod.Spec.ServiceAccountName, pod.Annotations), Labels: pod.Labels, Terminated: terminated(pod),
	}, true
}

// enrolled tells whether a namespace is in the mesh.
func (p pods) enrolled(namespace string) bool {
	ns := &corev1.Namespace{}
	err := p.reader.Get(context.Background(), client.ObjectKey{Name: namespace}, ns)
	return err == nil && enrolled(ns)
}

func enrolled(ns *corev1.Namespace) bool { return ns.Labels[names.LabelMesh] == names.MeshEnabled }

// RunsOn implements auth.Workloads.
func (p pods) RunsOn(node, namespace, account string) bool {
	if !p.enrolled(namespace) {
		return false
	}
	var list corev1.PodList
	if err := p.reader.List(context.Background(), &list, client.MatchingFields{podAccount: accountKey(node, namespace, account)}, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	for i := range list.Items {
		if l := &list.Items[i]; l.Labels[names.LabelMesh] != names.MeshDisabled && !l.Spec.HostNetwork {
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
	out.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName, HostNetwork: p.Spec.HostNetwork}
	out.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}
	if labels.SelectorFromSet(deploy.NodeLabels()).Matches(labels.Set(p.Labels)) || p.Labels[names.LabelComponent] == names.ComponentWaypoint {
		// Statuses of Mesh and Gateways say what keeps a proxy, of which there are few.
		out.Status.Conditions = p.Status.Conditions
		out.Status.InitContainerStatuses, out.Status.ContainerStatuses = p.Status.InitContainerStatuses, p.Status.ContainerStatuses
		return out, nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.PodConditionCaptured || c.Type == corev1.PodReady {
			out.Status.Conditions = append(out.Status.Conditions, c)
		}
	}
	return out, nil
}
