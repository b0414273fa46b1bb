// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// waypointObserved is what the status of a waypoint's Gateway is made from.
type waypointObserved struct {
	clusterDomain string
	// mesh: there is a Mesh. trustBundle: its CA has published the bundle, or need not.
	mesh, trustBundle bool
	// enrolled: the Gateway's namespace is in the mesh; else its waypoint gets no identity.
	enrolled bool
	// parametersProblem and deployProblem are the user's to mend.
	parametersProblem, deployProblem string
	deployment                       *appsv1.Deployment
	// troubles are what keeps pods of the Deployment from being ready.
	troubles   []conditions.Trouble
	autoscaler *autoscalingv2.HorizontalPodAutoscaler
	clusterIPs []string
	// reachable: the waypoint's Service has an endpoint, so that node proxies can send connections there. Looked at until
	// the waypoint is established.
	reachable bool
	acked     int
	rejected  string
}

// pending tells whether ready proxies have not acknowledged their configuration (yet).
func (o waypointObserved) pending() bool {
	return o.deployment != nil && o.acked < int(o.deployment.Status.ReadyReplicas)
}

// waypointStatus writes the status of a Gateway. Accepted speaks of its spec, Programmed of what runs. A waypoint that
// serves stays Programmed for a while though acknowledgements are missing: its proxies reach another replica of the
// operator meanwhile, or new ones get their configuration.
func waypointStatus(g *gwv1.Gateway, o waypointObserved, hold *status.Hold) status.Plan {
	c := conditions.For(g.Generation, g.Status.Conditions)
	accepted := string(gwv1.GatewayConditionAccepted)
	if v := gatewayProblem(g, o); v != nil {
		c.False(accepted, v.Reason, v.Message)
	} else {
		c.True(accepted, string(gwv1.GatewayReasonAccepted), "The Gateway is a waypoint of the mesh.")
	}

	serves, reason, message := programmedState(c.IsTrue(accepted), o)
	programmed := conditions.New(
		string(gwv1.GatewayConditionProgrammed), conditions.Is(serves), string(reason), message, g.Generation)
	left := hold.Keep(status.Held{Now: &programmed, Written: g.Status.Conditions, May: func(*metav1.Condition) bool {
		return programmed.Reason == v1alpha1.GatewayReasonProxiesPending
	}})
	c.Put(programmed)
	serves = programmed.Status == metav1.ConditionTrue
	// Node proxies switch over with this condition, and refuse while the waypoint has no endpoint. A Deployment counts a
	// ready pod a moment before its Service has the endpoint.
	if serves && o.reachable {
		c.True(v1alpha1.GatewayConditionEstablished, v1alpha1.GatewayReasonServed,
			"The waypoint has served traffic: connections to its Services are refused while it is down.")
	}
	setWaypointProgress(c, programmed)
	g.Status.Conditions = c.List()
	g.Status.Addresses = addresses(g, o)
	g.Status.Listeners = listenerStatuses(g, programmed)
	return status.Plan{Again: left}
}

// gatewayProblem is why a Gateway is not accepted, and so not deployed; nil if it is.
func gatewayProblem(g *gwv1.Gateway, o waypointObserved) *ingest.Verdict {
	if v := ingest.JudgeWaypoint(g); v != nil {
		return v
	}
	if o.parametersProblem != "" {
		return &ingest.Verdict{Reason: string(gwv1.GatewayReasonInvalidParameters), Message: o.parametersProblem}
	}
	return nil
}

// programmedState says whether every ready proxy has acknowledged its configuration, and if not, what is missing.
func programmedState(accepted bool, o waypointObserved) (bool, gwv1.GatewayConditionReason, string) {
	ready := 0
	if o.deployment != nil {
		ready = int(o.deployment.Status.ReadyReplicas)
	}
	switch {
	case !accepted:
		return false, gwv1.GatewayReasonInvalid, notAccepted(o)
	case !o.mesh:
		return false, v1alpha1.GatewayReasonNoMesh, "There is no Mesh: create one."
	case !o.enrolled:
		return false, v1alpha1.GatewayReasonNotEnrolled,
			"The namespace is not enrolled, so the waypoint gets no identity: label it " + names.LabelMesh + "=" +
				names.MeshEnabled + "."
	case o.deployProblem != "":
		return false, gwv1.GatewayReasonNoResources, "The waypoint can't be deployed: " + o.deployProblem + "."
	case !o.trustBundle:
		return false, gwv1.GatewayReasonPending, "The waypoint is waiting for the CA: see the conditions of the Mesh."
	case o.rejected != "":
		return false, v1alpha1.GatewayReasonProxyRejected,
			"A proxy rejected its configuration and keeps the last good version: " + o.rejected
	case o.deployment == nil:
		return false, gwv1.GatewayReasonPending, "The waypoint is being deployed."
	case len(o.clusterIPs) == 0:
		return false, gwv1.GatewayReasonAddressNotAssigned, "The waypoint's Service has no address yet."
	case ready == 0:
		return false, notReadyReason(o), notReady(o)
	case o.pending():
		return false, v1alpha1.GatewayReasonProxiesPending,
			fmt.Sprintf("%d of %d ready proxies have acknowledged their configuration.", o.acked, ready)
	}
	return true, gwv1.GatewayReasonProgrammed, fmt.Sprintf("%d/%d proxies serve.%s", ready, ready,
		scalingProblem(o.autoscaler))
}

func notAccepted(o waypointObserved) string {
	if o.deployment == nil {
		return "The Gateway is not accepted, so no proxy is deployed: see condition Accepted."
	}
	return "The Gateway is not accepted: see condition Accepted. Its existing proxies keep running."
}

// notReadyReason tells pods that start from those that won't by themselves.
func notReadyReason(o waypointObserved) gwv1.GatewayConditionReason {
	if replicaFailure(o.deployment) != "" || len(o.troubles) > 0 && o.troubles[0].Stuck {
		return gwv1.GatewayReasonNoResources
	}
	return gwv1.GatewayReasonPending
}

// notReady says what keeps a waypoint's pods: where there are some, their own word says more than the Deployment's.
func notReady(o waypointObserved) string {
	why := replicaFailure(o.deployment)
	if len(o.troubles) > 0 {
		whys := make([]string, len(o.troubles))
		for i, t := range o.troubles {
			whys[i] = t.Why
		}
		why = enumerate(whys)
	}
	if why == "" {
		return "The waypoint's proxies are starting."
	}
	return "No proxy is ready: " + why + "."
}

// waypointNeedsSomebody are the reasons of a Gateway's conditions that don't pass by themselves, and that only a
// mistake leads to.
func waypointNeedsSomebody() []string {
	return []string{
		string(gwv1.GatewayReasonInvalidParameters), string(gwv1.GatewayReasonListenersNotValid),
		string(gwv1.GatewayReasonUnsupportedAddress), string(gwv1.GatewayReasonInvalid),
		string(gwv1.GatewayReasonNoResources), v1alpha1.GatewayReasonProxyRejected,
	}
}

// setWaypointProgress says for what knows nothing of the kind whether a waypoint that isn't programmed will be by
// itself. There is no condition Ready beside it: the Gateway API reserves that type.
func setWaypointProgress(c *conditions.Set, programmed metav1.Condition) {
	stuck := slices.Contains(waypointNeedsSomebody(), programmed.Reason) ||
		programmed.Reason == v1alpha1.GatewayReasonNoMesh || programmed.Reason == v1alpha1.GatewayReasonNotEnrolled
	setProgress(c, programmed, stuck)
}

// podOfReplicaSet is the name of one that a ReplicaSet of a Deployment could not make.
var podOfReplicaSet = regexp.MustCompile(`pods "([a-z0-9.-]+)-[a-z0-9]+-[a-z0-9]{5}"`)

func replicaFailure(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		failed := c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue
		stuck := c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse
		if failed || stuck {
			// It names the pod that wasn't made, another one each time.
			return podOfReplicaSet.ReplaceAllString(strings.TrimRight(c.Message, "."), `pods of "$1"`)
		}
	}
	return ""
}

// scalingProblem says what keeps the autoscaler from working. The waypoint serves all the same.
func scalingProblem(hpa *autoscalingv2.HorizontalPodAutoscaler) string {
	if hpa == nil {
		return ""
	}
	for _, c := range hpa.Status.Conditions {
		if c.Type != autoscalingv2.ScalingActive || c.Status != corev1.ConditionFalse || c.Reason == "ScalingDisabled" {
			continue
		}
		switch {
		case strings.HasPrefix(c.Reason, "FailedGet"): // every waypoint of a cluster without a metrics server has it
			return " Their number doesn't change: there are no metrics to scale by."
		default:
			return " Autoscaling does not work: " + c.Message + "."
		}
	}
	return ""
}

func addresses(g *gwv1.Gateway, o waypointObserved) []gwv1.GatewayStatusAddress {
	if len(o.clusterIPs) == 0 {
		return nil
	}
	var out []gwv1.GatewayStatusAddress
	for _, ip := range o.clusterIPs {
		if ip != "" && ip != corev1.ClusterIPNone {
			out = append(out, gwv1.GatewayStatusAddress{Type: new(gwv1.IPAddressType), Value: ip})
		}
	}
	return append(out, gwv1.GatewayStatusAddress{
		Type:  new(gwv1.HostnameAddressType),
		Value: fmt.Sprintf("%s.%s.svc.%s", names.WaypointResource(g.Name), g.Namespace, o.clusterDomain),
	})
}

// listenerStatuses says of each listener whether it is served, as the Gateway is or is not.
func listenerStatuses(g *gwv1.Gateway, programmed metav1.Condition) []gwv1.ListenerStatus {
	out := make([]gwv1.ListenerStatus, 0, len(g.Spec.Listeners))
	for i, v := range ingest.JudgeListeners(g) {
		l := &g.Spec.Listeners[i]
		s := gwv1.ListenerStatus{Name: l.Name, SupportedKinds: []gwv1.RouteGroupKind{}}
		if at := slices.IndexFunc(g.Status.Listeners, func(s gwv1.ListenerStatus) bool { return s.Name == l.Name }); at >= 0 {
			s.Conditions = g.Status.Listeners[at].Conditions
		}
		c := conditions.For(g.Generation, s.Conditions)
		setListener(c, v, programmed)
		if l.AllowedRoutes != nil && len(l.AllowedRoutes.Kinds) > 0 {
			c.False(string(gwv1.ListenerConditionResolvedRefs), string(gwv1.ListenerReasonInvalidRouteKinds),
				"Mesh routes attach to Services, not to a waypoint's listener: remove allowedRoutes.kinds.")
		} else {
			c.True(string(gwv1.ListenerConditionResolvedRefs), string(gwv1.ListenerReasonResolvedRefs),
				"There is nothing to resolve.")
		}
		s.Conditions = c.List()
		out = append(out, s)
	}
	return out
}

// setListener says whether a listener is accepted, unless something is wrong with it, and served.
func setListener(c *conditions.Set, wrong *ingest.Verdict, programmed metav1.Condition) {
	const accepted, served = string(gwv1.ListenerConditionAccepted), string(gwv1.ListenerConditionProgrammed)
	c.False(string(gwv1.ListenerConditionConflicted), string(gwv1.ListenerReasonNoConflicts),
		"No other listener uses the port.")
	if wrong != nil {
		c.False(accepted, wrong.Reason, wrong.Message)
		c.False(served, string(gwv1.ListenerReasonInvalid), "The listener is not accepted.")
		return
	}
	c.True(accepted, string(gwv1.ListenerReasonAccepted), "The listener accepts mTLS.")
	if programmed.Status == metav1.ConditionTrue {
		c.True(served, string(gwv1.ListenerReasonProgrammed), "The proxies serve the listener.")
	} else {
		c.False(served, string(gwv1.ListenerReasonPending), programmed.Message)
	}
}
