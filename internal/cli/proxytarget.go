// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

const defaultSystemNamespace = names.SystemNamespace

// target is the pod to ask, and what of its answer concerns the pod that the user named.
type target struct {
	pod    types.NamespacedName
	filter filter
	// note tells the user what is not obvious.
	note string
	// gateway of a waypoint's proxy.
	gateway string
}

// filter leaves what belongs to one application pod; the zero filter leaves everything.
type filter struct {
	uid string
	// account ends the pod's SPIFFE ID.
	account string
}

func (f filter) all() bool { return f.uid == "" }

func (f filter) listener(name string) bool { return f.all() || strings.HasSuffix(name, "/"+f.uid) }

// route: a node proxy routes nothing, so no route configuration is a pod's.
func (f filter) route(string) bool { return f.all() }

func (f filter) secret(name string) bool {
	return f.all() || name == names.TrustBundleSecret || strings.HasSuffix(name, f.account)
}

// findProxy finds the proxy that answers for a pod.
func findProxy(ctx context.Context, c *cluster, system string, key types.NamespacedName) (target, error) {
	var pod corev1.Pod
	if err := c.client.Get(ctx, key, &pod); err != nil {
		if apierrors.IsNotFound(err) {
			return target{}, fmt.Errorf("there is no pod %s in namespace %s (choose the namespace with -n)", key.Name,
				key.Namespace)
		}
		return target{}, err
	}
	switch component := pod.Labels[names.LabelComponent]; {
	case component == names.ComponentWaypoint && pod.Labels[names.LabelManagedBy] == names.ManagedBy:
		return target{pod: key, gateway: pod.Labels[names.LabelGatewayName]}, nil
	case component == names.ComponentNode && pod.Namespace == system:
		return target{pod: key}, nil
	case component == names.ComponentOperator && pod.Namespace == system:
		return target{}, usagef("pod %s is the operator, which has no proxy", key)
	}
	if pod.Spec.NodeName == "" {
		return target{}, fmt.Errorf("pod %s is not scheduled to a node yet", key)
	}
	var proxies corev1.PodList
	if err := c.client.List(ctx, &proxies, client.InNamespace(system),
		client.MatchingLabels{names.LabelComponent: names.ComponentNode}); err != nil {
		return target{}, err
	}
	for i := range proxies.Items {
		p := &proxies.Items[i]
		if p.Spec.NodeName == pod.Spec.NodeName && p.DeletionTimestamp == nil {
			t := target{pod: client.ObjectKeyFromObject(p), filter: filterFor(&pod)}
			captured, reason := captureOf(&pod)
			if !captured {
				why, err := whyNot(ctx, c, system, &pod, reason)
				if err != nil {
					return target{}, err
				}
				t.note = fmt.Sprintf("pod %s is not captured: %s", key, why)
			}
			return t, nil
		}
	}
	return target{}, fmt.Errorf("node %s, where pod %s runs, has no node proxy in namespace %s", pod.Spec.NodeName, key,
		system)
}

// whyNot prefers what follows from the pod, its namespace and the Mesh to what an agent has reported: of pods that are
// not to be captured agents report nothing.
func whyNot(ctx context.Context, c *cluster, system string, pod *corev1.Pod, reported string) (string, error) {
	mesh := &v1alpha1.Mesh{}
	if err := c.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, mesh); meta.IsNoMatchError(err) ||
		apierrors.IsNotFound(err) {
		mesh = nil
	} else if err != nil {
		return "", err
	}
	namespace := &corev1.Namespace{}
	if err := c.client.Get(ctx, types.NamespacedName{Name: pod.Namespace}, namespace); err != nil {
		return "", err
	}
	if d := member.Decide(pod, namespace, mesh, system); d.Action == member.Release {
		return d.Reason + ": " + d.Message, nil
	}
	return reported, nil
}

func filterFor(pod *corev1.Pod) filter {
	return filter{
		uid:     string(pod.UID),
		account: "/ns/" + pod.Namespace + "/sa/" + member.Account(pod),
	}
}
