// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// find a pod by its name.
func (p pods) find(key client.ObjectKey) (*corev1.Pod, bool) {
	pod := &corev1.Pod{}
	err := p.reader.Get(context.Background(), key, pod)
	return pod, err == nil
}

// Pod implements auth.Pods.
func (p pods) Pod(namespace, name string) (auth.Pod, bool) {
	pod, ok := p.find(client.ObjectKey{Namespace: namespace, Name: name})
	if !ok {
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
