// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Types of what leads to pods.
const (
	ofPod         = "pod"
	ofDeployment  = "deployment"
	ofDaemonSet   = "daemonset"
	ofStatefulSet = "statefulset"
	ofService     = "service"
	ofGateway     = "gateway"
)

// leading are the types by the words for them, as kubectl has them.
var leading = map[string]string{
	"pod": ofPod, "pods": ofPod, "po": ofPod,
	"deployment": ofDeployment, "deployments": ofDeployment, "deploy": ofDeployment,
	"daemonset": ofDaemonSet, "daemonsets": ofDaemonSet, "ds": ofDaemonSet,
	"statefulset": ofStatefulSet, "statefulsets": ofStatefulSet, "sts": ofStatefulSet,
	"service": ofService, "services": ofService, "svc": ofService,
	"gateway": ofGateway, "gateways": ofGateway, "gtw": ofGateway,
}

// podRef is what a user has named.
type podRef struct {
	kind string
	key  types.NamespacedName
}

// podRefs are what an argument may mean, the likelier first: names may have dots in them, and so the last one may be
// that before a namespace.
func podRefs(given, namespace string) ([]podRef, error) {
	kind, name := ofPod, given
	switch parts := strings.Split(given, "/"); {
	case slices.Contains(parts, "") || len(parts) > 2:
		return nil, usagef("%s: want POD, TYPE/NAME, NAME.NAMESPACE or NAMESPACE/NAME", given)
	case len(parts) == 2 && leading[parts[0]] != "":
		kind, name = leading[parts[0]], parts[1]
	case len(parts) == 2:
		return []podRef{{ofPod, types.NamespacedName{Namespace: parts[0], Name: parts[1]}}}, nil
	}
	out := []podRef{{kind, types.NamespacedName{Namespace: namespace, Name: name}}}
	if dot := strings.LastIndex(name, "."); dot > 0 && dot < len(name)-1 {
		out = append(out, podRef{kind, types.NamespacedName{Namespace: name[dot+1:], Name: name[:dot]}})
	}
	return out, nil
}

// podFor is the pod that is meant, and a note where that isn't the one that was named.
func podFor(ctx context.Context, c *cluster, given string) (pod types.NamespacedName, note string, err error) {
	refs, err := podRefs(given, c.namespace)
	if err != nil {
		return pod, "", err
	}
	var first error
	for _, r := range refs {
		switch pod, err = r.pod(ctx, c.client); {
		case err == nil && r.kind != ofPod:
			return pod, fmt.Sprintf("%s %s: pod %s answers", r.kind, r.key, pod), nil
		case err == nil:
			return pod, "", nil
		case first == nil:
			first = err
		}
		if !apierrors.IsNotFound(err) {
			break
		}
	}
	if apierrors.IsNotFound(first) {
		r := refs[0]
		return pod, "", fmt.Errorf("there is no %s %s in namespace %s (choose the namespace with -n)", r.kind, r.key.Name,
			r.key.Namespace)
	}
	return pod, "", first
}

// pod that a reference leads to: a ready one if there is one.
func (r podRef) pod(ctx context.Context, c client.Client) (types.NamespacedName, error) {
	if r.kind == ofPod {
		return r.key, c.Get(ctx, r.key, &corev1.Pod{})
	}
	selector, err := r.selector(ctx, c)
	if err != nil {
		return types.NamespacedName{}, err
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(r.key.Namespace),
		client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return types.NamespacedName{}, err
	}
	running := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil
	})
	if len(running) == 0 {
		return types.NamespacedName{}, fmt.Errorf("%s %s has no pod that runs", r.kind, r.key)
	}
	slices.SortFunc(running, func(a, b corev1.Pod) int {
		return cmp.Or(boolToInt(podReady(&b))-boolToInt(podReady(&a)), cmp.Compare(a.Name, b.Name))
	})
	return client.ObjectKeyFromObject(&running[0]), nil
}

func (r podRef) selector(ctx context.Context, c client.Client) (labels.Selector, error) {
	var of *metav1.LabelSelector
	switch r.kind {
	case ofDeployment:
		o := &appsv1.Deployment{}
		if err := c.Get(ctx, r.key, o); err != nil {
			return nil, err
		}
		of = o.Spec.Selector
	case ofDaemonSet:
		o := &appsv1.DaemonSet{}
		if err := c.Get(ctx, r.key, o); err != nil {
			return nil, err
		}
		of = o.Spec.Selector
	case ofStatefulSet:
		o := &appsv1.StatefulSet{}
		if err := c.Get(ctx, r.key, o); err != nil {
			return nil, err
		}
		of = o.Spec.Selector
	case ofService:
		o := &corev1.Service{}
		if err := c.Get(ctx, r.key, o); err != nil {
			return nil, err
		}
		if len(o.Spec.Selector) == 0 {
			return nil, fmt.Errorf("service %s selects no pods", r.key)
		}
		of = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}
	case ofGateway:
		if err := c.Get(ctx, r.key, &gwv1.Gateway{}); err != nil {
			return nil, err
		}
		of = &metav1.LabelSelector{MatchLabels: map[string]string{
			names.LabelGatewayName: r.key.Name, names.LabelComponent: names.ComponentWaypoint,
		}}
	}
	return metav1.LabelSelectorAsSelector(of)
}
