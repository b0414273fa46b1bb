// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	healthy     = health.HealthStatusHealthy
	progressing = health.HealthStatusProgressing
	degraded    = health.HealthStatusDegraded
)

// asFlux is what Flux has to conclude where Argo CD concludes something.
func asFlux(h health.HealthStatusCode) status.Status {
	return map[health.HealthStatusCode]status.Status{
		healthy: status.CurrentStatus, progressing: status.InProgressStatus, degraded: status.FailedStatus,
	}[h]
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(text), o))
	return o
}

const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, generation: 2}
`

// entry is an entry of a status, with its conditions in one line each.
func entry(list, ref, controller string, conditions ...string) string {
	out := "status:\n  " + list + ":\n" + oneEntry(ref, controller, conditions...)
	return out
}

func oneEntry(ref, controller string, conditions ...string) string {
	out := "  - " + ref + ": {kind: Service, name: cart}\n    controllerName: " + controller + "\n    conditions:\n"
	for _, c := range conditions {
		out += "    - {observedGeneration: 2, message: why, " + c + "}\n"
	}
	return out
}

// TestHealth is about what the live states can't show: what passes too soon, what others write, and where nothing is written.
func TestHealth(t *testing.T) {
	const (
		ours     = "fairway.dev/mesh-controller"
		accepted = "type: Accepted, status: 'True', reason: Accepted"
		resolved = "type: ResolvedRefs, status: 'True', reason: ResolvedRefs"
		policy   = "apiVersion: fairway.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: cart, generation: 2}\n"
		gateway  = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w, generation: 2}\n"
		mesh     = "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default, generation: 2}\n"
		service  = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\n"
	)
	sum := func(conditions ...string) string {
		out := "status:\n  conditions:\n"
		for _, c := range conditions {
			out += "  - {observedGeneration: 2, message: why, " + c + "}\n"
		}
		return out
	}
	a, f := newArgo(t), newFlux(t)
	for name, c := range map[string]struct {
		object string
		want   health.HealthStatusCode
		says   string
	}{
		"route without status": {route + "status: {parents: []}\n", progressing, "No controller has said anything of it yet"},
		"route in force": {
			route + entry("parents", "parentRef", ours, accepted, resolved, "type: Programmed, status: 'True', reason: Programmed"),
			healthy, "In force for all of 1",
		},
		"route under way": {
			route + entry("parents", "parentRef", ours, accepted, resolved, "type: Programmed, status: 'False', reason: Pending"),
			progressing, "Service cart: Programmed: why",
		},
		"route of an earlier generation": {
			route + entry("parents", "parentRef", ours, accepted, "type: Programmed, status: 'True', observedGeneration: 1"),
			progressing, "No controller has said anything of it yet",
		},
		"route rejected by a proxy": {
			route + entry("parents", "parentRef", ours, accepted, resolved, "type: Programmed, status: 'False', reason: ProxyRejected"),
			degraded, "Service cart: Programmed: why",
		},
		"route in part": {
			route + entry("parents", "parentRef", ours, accepted, resolved, "type: PartiallyInvalid, status: 'True', reason: X",
				"type: Programmed, status: 'True', reason: Programmed"),
			degraded, "Service cart: PartiallyInvalid: why",
		},
		"route of another's gateway": {
			route + entry("parents", "parentRef", "example.org/gateway", accepted, resolved, "type: Odd, status: 'False', reason: X"),
			healthy, "In force for all of 1",
		},
		"route of another's gateway, under way": {
			route + entry("parents", "parentRef", "example.org/gateway", accepted, "type: Programmed, status: 'False', reason: X"),
			progressing, "Service cart: Programmed: why",
		},
		"route that is well here and refused by another": {
			route + entry("parents", "parentRef", ours, accepted, resolved, "type: Programmed, status: 'True', reason: Programmed") +
				oneEntry("parentRef", "example.org/gateway", "type: Accepted, status: 'False', reason: X"),
			degraded, "Service cart: Accepted: why",
		},
		"policy that another overrides": {
			policy + entry("ancestors", "ancestorRef", ours, accepted, "type: Enforced, status: 'False', reason: Overridden"),
			healthy, "In force for all of 1",
		},
		"policy that is tried": {
			policy + entry("ancestors", "ancestorRef", ours, accepted, "type: Enforced, status: 'False', reason: DryRun"),
			healthy, "In force for all of 1",
		},
		"policy that guards nothing": {
			policy + entry("ancestors", "ancestorRef", ours, accepted, "type: Enforced, status: 'False', reason: PodsNotCaptured"),
			degraded, "Service cart: Enforced: why",
		},
		"gateway of another class": {
			gateway + sum(accepted, "type: Programmed, status: 'True', reason: Programmed"), healthy, "",
		},
		"gateway under way": {
			gateway + sum(accepted, "type: Programmed, status: 'False', reason: Pending",
				"type: Reconciling, status: 'True', reason: Pending"),
			progressing, "Programmed: why",
		},
		"gateway that needs somebody": {
			gateway + sum(accepted, "type: Programmed, status: 'False', reason: NoResources",
				"type: Stalled, status: 'True', reason: NoResources"),
			degraded, "why",
		},
		"mesh of an earlier generation": {
			mesh + sum("type: Ready, status: 'True', reason: Ready") + "  observedGeneration: 1\n",
			progressing, "The last change has not been seen yet",
		},
		"mesh": {
			mesh + sum("type: Ready, status: 'True', reason: Ready") + "  observedGeneration: 2\n", healthy, "",
		},
		"mesh that starts": {
			mesh + sum("type: Ready, status: 'False', reason: NodesNotReady", "type: Reconciling, status: 'True', reason: X") +
				"  observedGeneration: 2\n",
			progressing, "Ready: why",
		},
		"service": {service + "spec: {type: ClusterIP}\nstatus: {loadBalancer: {}}\n", healthy, ""},
		"service whose waypoint starts": {
			service + "spec: {type: ClusterIP}\n" + sum("type: fairway.dev/WaypointBound, status: 'False', reason: WaypointPending"),
			progressing, "why",
		},
		"service without its waypoint": {
			service + "spec: {type: ClusterIP}\n" + sum("type: fairway.dev/WaypointBound, status: 'False', reason: WaypointMissing"),
			degraded, "why",
		},
		"load balancer that starts": {
			service + "spec: {type: LoadBalancer}\nstatus: {loadBalancer: {}}\n",
			progressing, "Waiting for the load balancer's address",
		},
		"load balancer": {
			service + "spec: {type: LoadBalancer}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}\n", healthy, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			obj := object(t, c.object)
			got := a.health(obj)
			require.Equal(t, health.HealthStatus{Status: c.want, Message: c.says}, got)
			require.Equal(t, asFlux(c.want), f.health(obj), "Flux")
			if c.want != healthy && (obj.GetKind() == "Mesh" || obj.GetKind() == "Gateway") {
				require.Equal(t, asFlux(c.want), kstatus(t, obj), "kstatus, without expressions")
			}
		})
	}
}
