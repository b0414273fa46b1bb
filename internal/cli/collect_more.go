// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Kinds by the names that sentences have for them.
const (
	whatConfigMaps     = "ConfigMaps"
	whatEndpointSlices = "EndpointSlices"
)

// lookAround reads all that the operator decides by: of the whole cluster, or of one namespace for who has no rights
// beyond it. What could not be read is in what sayCouldNotAsk returns.
func lookAround(ctx context.Context, c *cluster, system, namespace string) *collector {
	k := newCollector(c, system, "")
	k.readMesh(ctx)
	k.readObjects(ctx)
	if k.unread[whatNamespaces] || k.unread[whatPods] || k.unread[whatServices] {
		k = newCollector(c, system, namespace)
		k.readMesh(ctx)
		k.readObjects(ctx)
	}
	k.readMore(ctx)
	k.understand()
	k.readWaypoints()
	return k
}

// readMore reads the kinds that the operator decides by and that status has no need of.
func (k *collector) readMore(ctx context.Context) {
	have := []string{
		"Mesh", "Namespace", "Service", "Pod", "Gateway", "HTTPRoute", "GRPCRoute",
		"AuthenticationPolicy", "AuthorizationPolicy", "TrafficPolicy", "HTTPExtension",
	}
	ofCluster := []string{"Node", "GatewayClass"} // they change little of what is said of a namespace
	for _, kind := range explain.Kinds() {
		if slices.Contains(have, kind.Name) || k.namespace != "" && slices.Contains(ofCluster, kind.Name) {
			continue
		}
		gvk, err := k.client.GroupVersionKindFor(kind.Empty)
		if err != nil {
			continue // it is in the scheme
		}
		gvk.Kind += "List"
		empty, err := k.client.Scheme().New(gvk)
		if err != nil {
			continue
		}
		if into, ok := empty.(client.ObjectList); ok {
			k.list(ctx, plurals(kind.Name), into)
			k.more = append(k.more, itemsOf(into)...)
		}
	}
	var refer []client.Object // those that may name a ConfigMap
	for _, all := range k.others {
		refer = append(refer, itemsOf(all.list)...)
	}
	refer = append(appendAll(refer, k.policies), k.more...)
	referred, err := explain.Referred(ctx, k.client, refer)
	switch {
	case err == nil:
		k.more = append(k.more, referred...)
	case apierrors.IsForbidden(err):
		k.forbidden = append(k.forbidden, whatConfigMaps)
	default:
		k.failed.add(plainly(err), whatConfigMaps)
	}
}

// plurals of a kind, as sentences have them.
func plurals(kind string) string {
	switch {
	case kind == "Node":
		return whatNodes
	case strings.HasSuffix(kind, "y"):
		return strings.TrimSuffix(kind, "y") + "ies"
	case strings.HasSuffix(kind, "Class"):
		return kind + "es"
	case strings.HasSuffix(kind, "s"):
		return kind
	}
	return kind + "s"
}

func itemsOf(list client.ObjectList) (out []client.Object) {
	_ = meta.EachListItem(list, func(o runtime.Object) error { // an error says that it is no list
		if obj, ok := o.(client.Object); ok {
			out = append(out, obj)
		}
		return nil
	})
	return out
}

// couldNotAsk is what could not be asked, a sentence each: it is never none.
func (k *collector) couldNotAsk() (out []string) {
	if len(k.forbidden) > 0 {
		out = append(out, "you have no right to read "+and(k.forbidden)+", so what is decided there is not in here")
	}
	for _, why := range k.failed.words {
		out = append(out, and(k.failed.members[why])+": "+why)
	}
	if k.namespace != "" {
		out = append(out, "you have no right to read other namespaces than "+k.namespace+", whose routes and policies may "+
			"have a say")
	}
	return out
}

// policiesUnread tells that some policies could not be listed.
func (k *collector) policiesUnread() bool { return slices.ContainsFunc(k.Unread, isPolicies) }

// ownDenied says why the mesh's own pods could not be listed.
func (k *collector) ownDenied(err error) string {
	if apierrors.IsForbidden(err) {
		return "you have no right to list pods in namespace " + k.system
	}
	return plainly(err)
}

// ownPods are the operator's and the node proxies' pods that run. An error says that they could not be asked for.
func (k *collector) ownPods(ctx context.Context) ([]corev1.Pod, error) {
	all := k.pods
	if k.namespace != "" && k.namespace != k.system {
		var list corev1.PodList
		if err := k.client.List(ctx, &list, client.InNamespace(k.system),
			client.HasLabels{names.LabelComponent}); err != nil {
			return nil, err
		}
		all = list.Items
	}
	var out []corev1.Pod
	for i := range all {
		p := &all[i]
		component := p.Labels[names.LabelComponent]
		if p.Namespace == k.system && (component == names.ComponentOperator || component == names.ComponentNode) &&
			p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			out = append(out, *p)
		}
	}
	return out, nil
}

// streamsOf asks all operator replicas for the proxies that are connected to them. Sentences say what could not be
// asked.
func (k *collector) streamsOf(ctx context.Context, own []corev1.Pod, failed error) (out []connected, missing []string) {
	const what = "what proxies have acknowledged: "
	if failed != nil {
		return nil, []string{what + k.ownDenied(failed)}
	}
	var operators []types.NamespacedName
	for i := range own {
		if own[i].Labels[names.LabelComponent] == names.ComponentOperator {
			operators = append(operators, client.ObjectKeyFromObject(&own[i]))
		}
	}
	if len(operators) == 0 {
		return nil, []string{what + "no operator runs in namespace " + k.system}
	}
	out, failures := k.askOperators(ctx, operators)
	var of groups
	for o, err := range failures {
		of.add(plainly(err), o.String())
	}
	for _, why := range of.words {
		missing = append(missing, what+why+" ("+enumerate(of.members[why])+")")
	}
	return out, missing
}
