// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// podAccount indexes pods by the node that they run on and the service account that they run as.
const podAccount = "fairway.podAccount"

// indexPods adds the index to the manager's cache.
func indexPods(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &corev1.Pod{}, podAccount, func(o client.Object) []string {
		p := o.(*corev1.Pod)
		if p.Spec.NodeName == "" || terminated(p) {
			return nil
		}
		return []string{accountKey(p.Spec.NodeName, p.Namespace, p.Spec.ServiceAccountName)}
	})
}

func accountKey(node, namespace, account string) string {
	if account == "" {
		account = "default"
	}
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
		ServiceAccount: pod.Spec.ServiceAccountName, Labels: pod.Labels, Terminated: terminated(pod),
	}, true
}

// RunsOn implements auth.Workloads.
func (p pods) RunsOn(node, namespace, account string) bool {
	ns := &corev1.Namespace{}
	if err := p.reader.Get(context.Background(), client.ObjectKey{Name: namespace}, ns); err != nil || ns.Labels[names.LabelMesh] != names.MeshEnabled {
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

// WaypointServiceAccount names the service account of a waypoint's pods, if the Gateway is a waypoint of ours and the
// operator made the account for it. Whoever may label pods can't get a waypoint's configuration by the label alone.
func (p pods) WaypointServiceAccount(namespace, gateway string) (string, bool) {
	ctx := context.Background()
	g, account := &gwv1.Gateway{}, &corev1.ServiceAccount{}
	if err := p.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: gateway}, g); err != nil {
		return "", false
	}
	class := &gwv1.GatewayClass{}
	err := p.reader.Get(ctx, client.ObjectKey{Name: string(g.Spec.GatewayClassName)}, class)
	if apierrors.IsNotFound(err) {
		class, err = nil, nil
	}
	if err != nil || !ingest.IsWaypoint(g, class) {
		return "", false
	}
	name := names.WaypointResource(gateway)
	if err := p.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, account); err != nil {
		return "", false
	}
	return name, metav1.IsControlledBy(account, g)
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
	out.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName, HostNetwork: p.Spec.HostNetwork}
	out.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}
	if labels.SelectorFromSet(deploy.NodeLabels()).Matches(labels.Set(p.Labels)) {
		// The Mesh's status says what keeps a node proxy, of which there are as many as nodes.
		out.Status.Conditions = p.Status.Conditions
		out.Status.InitContainerStatuses, out.Status.ContainerStatuses = p.Status.InitContainerStatuses, p.Status.ContainerStatuses
		return out, nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == names.ConditionCaptured || c.Type == corev1.PodReady {
			out.Status.Conditions = append(out.Status.Conditions, c)
		}
	}
	return out, nil
}
