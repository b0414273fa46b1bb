// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// consumerAsks is a route of buyer that has web itself asked, by a route or an extension, or somebody of another
// namespace, by a policy.
const (
	consumerAsks = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules:
  - filters:
    - type: ExternalAuth
      externalAuth:
        {protocol: HTTP, backendRef: {name: NAME, namespace: OF, port: PORT}, http: {}, forwardBody: {maxSize: 1024}}
    backendRefs: [{name: web, namespace: shop, port: 80}]
`
	consumerExtends = `
---
apiVersion: fairway.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {trustDomain: cluster.local, extensions: {allow: [{types: [ExternalProcessing]}]}}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: extensions, namespace: shop}
spec:
  from: [{group: fairway.dev, kind: HTTPExtension, namespace: buyer}]
  to: [{group: gateway.networking.k8s.io, kind: Gateway, name: fairway-waypoint}]
---
apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: e, namespace: buyer}
spec: {extProc: {backendRef: {name: asked, namespace: shared, port: 81}, request: {}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: deputy, namespace: buyer}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: fairway.dev, kind: HTTPExtension, name: e}}]
    backendRefs: [{name: web, namespace: shop, port: 80}]
`
	// policyAsks is asked by shop's waypoint where buyer's callers go to buyer's pods.
	policyAsks = `
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
  externalAuthorization: {protocol: HTTP, backendRef: {name: asked, namespace: shared, port: 80}, http: {}}
  jwt:
    providers:
    - name: main
      issuer: "https://login.example"
      jwks: {remote: {uri: "http://x/keys", backendRef: {name: asked, namespace: shared, port: 80}}}
`
	mayAsk = `
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: asking, namespace: OF}
spec:
  from:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: buyer}
  - {group: fairway.dev, kind: HTTPExtension, namespace: buyer}
  - {group: fairway.dev, kind: AuthenticationPolicy, namespace: buyer}
  to: [{group: "", kind: Service}]
`
	guarded = `
---
apiVersion: fairway.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: asked, namespace: OF}
spec:
  enforcementLevel: Network
  targetRefs: [{group: "", kind: Service, name: NAME}]
`
	// Rules of guarded: one account of buyer may not, or waypoints of shop may, with buyer's accounts or without.
	notEvil = guarded + `  action: DENY
  rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: evil, namespace: buyer}}]}]
`
	forShop = guarded + `  action: ALLOW
  rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: "*", namespace: shop}}]}]
`
	forBoth = guarded + `  action: ALLOW
  rules:
  - sources:
    - {type: ServiceAccount, serviceAccount: {name: "*", namespace: shop}}
    - {type: ServiceAccount, serviceAccount: {name: "*", namespace: buyer}}
`
	ownAsks = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: own, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: web, port: 9090}, http: {}}}]
    backendRefs: [{name: web, port: 80}]
`
)

// asksIn tells of what the table of web has asked how much is, and how much isn't.
func asksIn(w *world) (asked, unasked int) {
	count := func(no bool) {
		if no {
			unasked++
		} else {
			asked++
		}
	}
	table := w.in.Table.Get(nil, model.Attachment{Port: model.ServicePort{Namespace: "shop", Service: "web", Port: 80}})
	rules := table.Default
	for _, c := range table.Callers {
		rules = append(rules, c.Rules...)
	}
	for _, r := range rules {
		for _, f := range r.Filters {
			if f.ExternalAuth != nil {
				count(f.ExternalAuth.Invalid || f.ExternalAuth.Refused)
			}
			if f.Extension != nil {
				count(f.Extension.Invalid || f.Extension.Refused)
			}
		}
		for _, b := range r.Backends {
			for _, g := range b.Guards {
				for _, a := range g.Asked {
					count(a.Unasked())
				}
			}
		}
	}
	for _, p := range w.in.Authentications.Get(nil, cluster.Key{Namespace: "shop", Name: "fairway-waypoint"}).Policies {
		if p.Tokens != nil {
			count(p.Tokens.Providers[0].Remote == nil)
		}
	}
	return asked, unasked
}

// TestNoWaypointIsADeputyByAsking: for another namespace a waypoint asks nobody who could keep any account of that
// namespace out, and not the Service whose waypoint it is without a grant.
func TestNoWaypointIsADeputyByAsking(t *testing.T) {
	of := func(text, namespace, name, port string) string {
		return strings.NewReplacer("OF", namespace, "NAME", name, "PORT", port).Replace(text)
	}
	web := func(text string) string { return of(text, "shop", "web", "9090") }
	own := func(text string) string { return of(text, "buyer", "own", "80") }
	shared := func(text string) string { return of(text, "shared", "asked", "80") }
	for what, tc := range map[string]struct {
		given          string
		asked, unasked int
	}{
		"its parent, without a grant":              {web(consumerAsks), 0, 1},
		"its parent":                               {web(consumerAsks + mayAsk), 1, 0},
		"its parent, which denies an account":      {web(consumerAsks + mayAsk + notEvil), 0, 1},
		"its parent, which lets in its own alone":  {web(consumerAsks + mayAsk + forShop), 0, 1},
		"its parent, which lets in the consumer":   {web(consumerAsks + mayAsk + forBoth), 1, 0},
		"its own Service":                          {own(consumerAsks), 1, 0},
		"its own, which lets in the waypoint":      {own(consumerAsks + forShop), 1, 0},
		"another's, without a grant":               {shared(consumerAsks), 0, 1},
		"another's":                                {shared(consumerAsks + mayAsk), 1, 0},
		"another's, for waypoints of shop":         {shared(consumerAsks + mayAsk + forShop), 0, 1},
		"another's, for both":                      {shared(consumerAsks + mayAsk + forBoth), 1, 0},
		"a processor":                              {shared(consumerExtends + mayAsk), 1, 0},
		"a processor, for waypoints of shop":       {shared(consumerExtends + mayAsk + forShop), 0, 1},
		"a processor, for both":                    {shared(consumerExtends + mayAsk + forBoth), 1, 0},
		"keys and a policy's service":              {shared(policyAsks + mayAsk), 2, 0},
		"a policy's, for waypoints of shop":        {shared(policyAsks + mayAsk + forShop), 0, 2},
		"a policy's, for both":                     {shared(policyAsks + mayAsk + forBoth), 2, 0},
		"the owner's own route, which denies some": {web(ownAsks + notEvil), 1, 0},
		"the owner's own route":                    {web(ownAsks + forShop), 1, 0},
	} {
		t.Run(what, func(t *testing.T) {
			w := deputyWorld(t, tc.given)
			asked, unasked := asksIn(w)
			require.Equal(t, []int{tc.asked, tc.unasked}, []int{asked, unasked})
		})
	}
}
