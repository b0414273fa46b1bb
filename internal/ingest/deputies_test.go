// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// deputies have a waypoint of shop, which routes of buyer would use: of web, which buyer may call, and the vault, which
// a policy may keep it from. Service x of buyer lists what it likes.
const deputies = `apiVersion: v1
kind: Node
metadata: {name: node1}
spec: {podCIDRs: [10.200.1.0/24]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shared, labels: {fairway.dev/mesh: enabled}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: fairway-waypoint, namespace: shop}
spec:
  gatewayClassName: fairway-waypoint
  listeners: [{name: mesh, port: 15008, protocol: fairway.dev/MTLS}]
status:
  conditions: [{type: fairway.dev/Established, status: "True", reason: Served}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: buyer}
spec:
  gatewayClassName: fairway-waypoint
  listeners: [{name: mesh, port: 15008, protocol: fairway.dev/MTLS}]
status:
  conditions: [{type: fairway.dev/Established, status: "True", reason: Served}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  clusterIPs: [10.96.0.10]
  ports: [{name: http, port: 80, appProtocol: http}, {name: http-admin, port: 9090, appProtocol: http}]
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: shop}
spec:
  selector: {app: vault}
  clusterIPs: [10.96.0.11]
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, uid: web-1, labels: {app: web}}
spec: {nodeName: node1, serviceAccountName: web, containers: [{name: c, image: x}]}
status:
  podIPs: [{ip: 10.200.1.10}]
  conditions: [{type: fairway.dev/Captured, status: "True"}]
---
apiVersion: v1
kind: Pod
metadata: {name: vault-0, namespace: shop, uid: vault-0, labels: {app: vault}}
spec: {nodeName: node1, serviceAccountName: vault, containers: [{name: c, image: x}]}
status:
  podIPs: [{ip: 10.200.1.20}]
  conditions: [{type: fairway.dev/Captured, status: "True"}]
---
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: buyer, uid: own, labels: {app: own}}
spec: {nodeName: node1, serviceAccountName: own, containers: [{name: c, image: x}]}
status:
  podIPs: [{ip: 10.200.1.30}]
  conditions: [{type: fairway.dev/Captured, status: "True"}]
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: buyer, uid: bare, labels: {app: own}}
spec: {nodeName: node1, serviceAccountName: own, containers: [{name: c, image: x}]}
status: {podIPs: [{ip: 10.200.1.31}]}
---
apiVersion: v1
kind: Service
metadata: {name: asked, namespace: shared}
spec:
  clusterIPs: [10.96.0.13]
  ports: [{name: http, port: 80, appProtocol: http}, {name: grpc, port: 81, appProtocol: kubernetes.io/h2c}]
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: buyer}
spec: {selector: {app: own}, clusterIPs: [10.96.0.14], ports: [{name: http, port: 80, appProtocol: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: x, namespace: buyer, labels: {kubernetes.io/service-name: x}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.200.1.20]}
- {addresses: [10.200.1.30]}
- {addresses: [10.200.1.31]}
- {addresses: [192.168.77.7]}
---
# No Service has the vault at this port.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: x-metrics, namespace: buyer, labels: {kubernetes.io/service-name: x}}
addressType: IPv4
ports: [{name: http, port: 9999}]
endpoints: [{addresses: [10.200.1.20]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stale, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 9999}]
endpoints: [{addresses: [10.200.1.20]}]
`

// Parts of what else there is.
const (
	// xListing chooses no pods, xChoosing others than its slices list.
	xListing = `
---
apiVersion: v1
kind: Service
metadata: {name: x, namespace: buyer}
spec: {clusterIPs: [10.96.0.12], ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
`
	xChoosing = `
---
apiVersion: v1
kind: Service
metadata: {name: x, namespace: buyer}
spec:
  selector: {app: own}
  clusterIPs: [10.96.0.12]
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
`
	// toX leads buyer's callers of web to x, all callers, or buyer's as a mirror and by what is asked.
	toX = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules: [{backendRefs: [{name: x, port: 80}]}]
`
	allToX = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: x, namespace: buyer, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: routes, namespace: buyer}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: "", kind: Service}]
`
	mirroredToX = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 80}}}]
    backendRefs: [{name: web, namespace: shop, port: 80}]
`
	xAsked = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules:
  - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: x, port: 80}, http: {}}}]
    backendRefs: [{name: web, namespace: shop, port: 80}]
`
	// keysOfX are asked for where buyer's callers of web go to buyer's own pods.
	keysOfX = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules: [{backendRefs: [{name: own, port: 80}]}]
---
apiVersion: fairway.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: own, namespace: buyer, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  targetRefs: [{group: "", kind: Service, name: own}]
  jwt:
    providers:
    - name: main
      issuer: "https://login.example"
      jwks: {remote: {uri: "http://x/keys", backendRef: {name: x, port: 80}}}
`
	// byOwnWaypoint has x served by a waypoint of buyer.
	byOwnWaypoint = `
---
apiVersion: v1
kind: Namespace
metadata: {name: buyer, labels: {fairway.dev/mesh: enabled, fairway.dev/use-waypoint: wp}}
`
	// vaultForOwn lets in shop alone, vaultNotForEvil all but one account.
	vaultForOwn = `
---
apiVersion: fairway.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: vault, namespace: shop}
spec:
  action: ALLOW
  enforcementLevel: Network
  targetRefs: [{group: "", kind: Pod, selector: {matchLabels: {app: vault}}}]
  rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: "*"}}]}]
`
	vaultNotForEvil = `
---
apiVersion: fairway.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: vault, namespace: shop}
spec:
  action: DENY
  enforcementLevel: Network
  targetRefs: [{group: "", kind: Service, name: vault}]
  rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: evil, namespace: buyer}}]}]
`
)

func deputyWorld(t *testing.T, more string) *world {
	t.Helper()
	file := filepath.Join(t.TempDir(), "input.yaml")
	text := strings.ReplaceAll(deputies+more, "\n\n---", "\n---")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	w := newWorld()
	w.set(t, append(readManifests(t, "testdata/mesh.yaml"), readManifests(t, file)...)...)
	w.store.Pods.MarkSettled()
	return w
}

// TestNoWaypointIsADeputyBySlices: whatever a slice of another namespace says, a waypoint goes to no pod whose guard it
// hasn't asked about the caller, and for a consumer's route to no address but of the consumer's own pods.
func TestNoWaypointIsADeputyBySlices(t *testing.T) {
	const vault, metrics, outside = "10.200.1.20:8080", "10.200.1.20:9999", "192.168.77.7:8080"
	const own, bare = "10.200.1.30:8080", "10.200.1.31:8080"
	x := model.ServicePort{Namespace: "buyer", Service: "x", Port: 80}
	shop, buyer := cluster.Key{Namespace: "shop", Name: "fairway-waypoint"}, cluster.Key{Namespace: "buyer", Name: "wp"}
	ownPods, all := []string{own, bare}, []string{vault, metrics, own, bare, outside}
	for what, tc := range map[string]struct {
		given string
		by    cluster.Key
		want  []string
	}{
		"a consumer's route":                   {xListing + toX + vaultForOwn, shop, ownPods},
		"a caller is denied":                   {xListing + toX + vaultNotForEvil, shop, ownPods},
		"nothing guards the vault":             {xListing + toX, shop, ownPods},
		"a slice beside those of its selector": {xChoosing + toX + vaultForOwn, shop, ownPods},
		"a mirror":                             {xListing + mirroredToX + vaultForOwn, shop, ownPods},
		"what is asked":                        {xListing + xAsked + vaultForOwn, shop, ownPods},
		"keys":                                 {xListing + keysOfX + vaultForOwn, shop, ownPods},
		"the waypoint's owner leads there":     {xListing + allToX + vaultForOwn, shop, []string{own, bare, outside}},
		"so do both":                           {xListing + toX + allToX + vaultForOwn, shop, []string{own, bare, outside}},
		"and nothing guards the vault":         {xListing + toX + allToX, shop, all},
		"its own waypoint, as itself":          {xListing + toX + byOwnWaypoint + vaultForOwn, buyer, all},
		"its own waypoint, by a selector": {
			xChoosing + byOwnWaypoint + vaultForOwn, buyer, []string{own, bare, outside},
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := deputyWorld(t, tc.given)
			waypoint := w.in.Waypoint.Get(nil, tc.by)
			require.Contains(t, waypoint.Backends, x, "no case: the waypoint doesn't send there")
			var got []string
			for _, e := range w.in.WaypointEndpoints.Get(nil, Sent{x, WordFor(waypoint, x)}) {
				got = append(got, e.Address.String())
			}
			require.ElementsMatch(t, tc.want, got)
		})
	}
}

// TestSlicesOfTheOwnNamespace: likewise where labels changed, or somebody wrote a slice, and at a port that no Service
// has, for the guard would decide on a waypoint of its own namespace.
func TestSlicesOfTheOwnNamespace(t *testing.T) {
	web := model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	for what, tc := range map[string]struct {
		policy string
		want   int
	}{"guarded": {vaultForOwn, 0}, "a caller is denied": {vaultNotForEvil, 0}, "not guarded": {"", 1}} {
		t.Run(what, func(t *testing.T) {
			w := deputyWorld(t, xListing+toX+tc.policy)
			require.Len(t, w.in.WaypointEndpoints.Get(nil, Sent{web, OfOwner}), tc.want)
		})
	}
}

// TestEndpointsLeftOutAreSaid of the Service that has them.
func TestEndpointsLeftOutAreSaid(t *testing.T) {
	x := cluster.Key{Namespace: "buyer", Name: "x"}
	require.Equal(t, LeftOut{
		Stray: "10.200.1.20:8080, pod shop/vault-0, of port 80", Outsider: "10.200.1.20:8080 of port 80",
	}, deputyWorld(t, xListing+toX+vaultForOwn).in.LeftOut.Get(nil, x))
	require.Equal(t, LeftOut{}, deputyWorld(t, xListing+vaultForOwn).in.LeftOut.Get(nil, x), "no waypoint sends there")
}
