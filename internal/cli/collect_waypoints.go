// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

func (k *collector) readWaypoints() {
	k.report.WaypointsUnknown = k.unread[whatGateways]
	if !k.unread[whatGateways] {
		k.report.Waypoints = []waypointReport{}
	}
	routes := k.attached()
	bound := k.boundServices()
	var waiting []string
	for i := range k.gateways {
		g := &k.gateways[i]
		if g.Spec.GatewayClassName != names.WaypointClass {
			continue
		}
		key := client.ObjectKeyFromObject(g)
		w := k.waypointReport(g)
		broken := 0
		for _, r := range routes[key] {
			if broken++; r.complaint != "" {
				w.Broken = append(w.Broken, r.name+": "+r.complaint)
			}
		}
		if !k.routesUnread() && !k.unread[whatServices] && !k.unread[whatNamespaces] { // these lead from one to the other
			w.Routes = &broken
		}
		delete(routes, key)
		slices.Sort(w.Broken)
		k.report.Waypoints = append(k.report.Waypoints, w)
		if !k.judgeWaypoint(g, w, bound[key]) {
			waiting = append(waiting, key.String())
		}
	}
	if len(waiting) > 0 {
		k.problem(waypointDown, "", "no operator runs to make these waypoints: %s", enumerate(waiting))
	}
	// What is left belongs to no waypoint that there is.
	for _, rest := range routes {
		for _, r := range rest {
			if r.complaint != "" {
				k.report.Elsewhere = append(k.report.Elsewhere, r.name+": "+r.complaint)
			}
		}
	}
	slices.Sort(k.report.Elsewhere)
	k.report.Elsewhere = slices.Compact(k.report.Elsewhere)
}

func (k *collector) waypointReport(g *gwv1.Gateway) waypointReport {
	w := waypointReport{
		Namespace: g.Namespace, Name: g.Name,
		Automatic:  g.Labels[names.LabelAutomatic] != "",
		Programmed: meta.IsStatusConditionTrue(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed)),
		Conditions: conditionsOf(g.Status.Conditions),
	}
	if !k.unread[whatDeployments] {
		w.Ready, w.Replicas = new(int32(0)), new(int32(0))
		if d := k.deploymentOf(g); d != nil {
			*w.Ready, *w.Replicas = d.Status.ReadyReplicas, d.Status.Replicas
		}
	}
	return w
}

// boundServices are the Services whose connections go through a waypoint.
func (k *collector) boundServices() map[types.NamespacedName][]string {
	out := map[types.NamespacedName][]string{}
	if k.meaning == nil {
		return out
	}
	for i := range k.services {
		s := &k.services[i]
		if b := k.meaning.Binding(client.ObjectKeyFromObject(s)); b.Problem == "" && b.NoEffect == "" && !b.Pending {
			out[b.Waypoint] = append(out[b.Waypoint], s.Name)
		}
	}
	return out
}

// judgeWaypoint says why a waypoint doesn't serve, and whose connections are refused for that. It answers false, and
// says nothing, where a new waypoint only waits for the operator, and there is none.
func (k *collector) judgeWaypoint(g *gwv1.Gateway, w waypointReport, bound []string) bool {
	key := client.ObjectKeyFromObject(g)
	empty := w.Ready != nil && *w.Ready == 0
	if w.Programmed && !empty {
		return true
	}
	why := k.waypointTroubles(g)
	text := "waypoint " + key.String() + " has no proxy that is ready"
	if said := whyNotProgrammed(g); !w.Programmed {
		if said == messageUnanswered && k.operator.down {
			return false
		}
		text = "waypoint " + key.String() + " is not programmed: " + said
		if strings.Contains(said, why) {
			why = ""
		}
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, ".")+because(why), ".")
	switch {
	case !empty || len(bound) == 0:
	case len(bound) == 1:
		text += "; connections to Service " + bound[0] + " are refused"
	default:
		text += "; connections to its Services (" + enumerate(bound) + ") are refused"
	}
	k.problem(waypointDown, "Gateway "+key.String(), "%s", text)
	return true
}

// waypointTroubles is what keeps the pods of a waypoint from being ready.
func (k *collector) waypointTroubles(g *gwv1.Gateway) string {
	var pods []corev1.Pod
	for i := range k.pods {
		p := &k.pods[i]
		if p.Namespace == g.Namespace && p.Labels[names.LabelComponent] == names.ComponentWaypoint &&
			p.Labels[names.LabelGatewayName] == g.Name {
			pods = append(pods, *p)
		}
	}
	if why := troubles(pods, v1alpha1.PodConditionServing); why != "" {
		return why
	}
	return replicaFailure(k.deploymentOf(g))
}

// deploymentOf a waypoint; nil if there is none, or none that could be read.
func (k *collector) deploymentOf(g *gwv1.Gateway) *appsv1.Deployment {
	return k.deployments[types.NamespacedName{Namespace: g.Namespace, Name: names.WaypointResource(g.Name)}]
}

// replicaFailure is why no pods can be made of a Deployment, which may be nil.
func replicaFailure(d *appsv1.Deployment) string {
	if d == nil {
		return ""
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return strings.TrimSuffix(c.Message, ".")
		}
	}
	return ""
}

// whyNotProgrammed prefers what is wrong with the Gateway to what follows from it.
func whyNotProgrammed(g *gwv1.Gateway) string {
	for _, kind := range []gwv1.GatewayConditionType{gwv1.GatewayConditionAccepted, gwv1.GatewayConditionProgrammed} {
		if c := meta.FindStatusCondition(g.Status.Conditions, string(kind)); c != nil && c.Status == metav1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return messageUnanswered
}
