// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// TestGuardsOfManyWays: a large policy of a namespace's own Service, and a route with many matches that leads there
// from another namespace's Service, don't make that one's table large; a small policy is guarded by.
func TestGuardsOfManyWays(t *testing.T) {
	small, status := waysTo(t, 1, 4, "")
	require.Contains(t, status, "All backends were found")
	require.Positive(t, small.guards)
	large, status := waysTo(t, 20, 128, "")
	require.Contains(t, status, "OverBudget: The policies of what the routes of namespace front for Services of")
	require.Zero(t, large.guards)
	require.Equal(t, 128, large.refused)
	require.Less(t, large.bytes, 1<<20)
}

// TestTriedGuardsOfManyWaysRefuseNothing: where they are too much, they aren't tried.
func TestTriedGuardsOfManyWaysRefuseNothing(t *testing.T) {
	small, status := waysTo(t, 1, 4, "dryRun: true")
	require.Contains(t, status, "All backends were found")
	require.Positive(t, small.tried)
	large, status := waysTo(t, 20, 128, "dryRun: true")
	require.Contains(t, status, "All backends were found")
	require.NotContains(t, status, "OverBudget")
	require.Zero(t, large.tried)
	require.Zero(t, large.refused)
	require.Less(t, large.bytes, 1<<20)
}

type ways struct{ guards, tried, refused, bytes int }

// waysTo a Service with a policy of so many rules, of 32 KB each, and what else it says.
func waysTo(t *testing.T, rules, matches int, more string) (out ways, status string) {
	var b strings.Builder
	b.WriteString(`apiVersion: v1
kind: Service
metadata: {name: app, namespace: front}
spec:
  clusterIP: 10.96.0.99
  clusterIPs: [10.96.0.99]
  selector: {app: x}
  ports: [{name: http, port: 80, appProtocol: http}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: many, namespace: front}
spec:
  parentRefs: [{group: "", kind: Service, name: web, namespace: shop, port: 80}]
  rules:
`)
	for n := range matches {
		fmt.Fprintf(&b, "  - {backendRefs: [{name: app, port: 80}], matches: [{path: {value: /%d}}]}\n", n)
	}
	b.WriteString(`---
apiVersion: fairway.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: big, namespace: front}
spec:
  enforcementLevel: Application
  action: DENY
  targetRefs: [{kind: Service, name: app}]
  ` + more + `
  rules:
`)
	for n := range rules {
		b.WriteString("  - {applicationAttributes: {headers: [")
		for m := range 8 {
			fmt.Fprintf(&b, "{name: x-%d-%d, value: %s}, ", n, m, strings.Repeat("v", 4000))
		}
		b.WriteString("]}}\n")
	}
	file := filepath.Join(t.TempDir(), "input.yaml")
	require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o600))
	w := newWorld()
	for _, f := range []string{"testdata/mesh.yaml", "testdata/authentication/input.yaml", file} {
		w.set(t, readManifests(t, f)...)
	}
	table := w.in.Table.Get(nil, model.Attachment{Port: model.ServicePort{Namespace: "shop", Service: "web", Port: 80}})
	for _, r := range table.Callers[0].Rules {
		out.guards += len(r.Backends[0].Guards)
		for _, g := range r.Backends[0].Guards {
			out.tried += len(g.Tried().Application)
		}
		if r.Backends[0].Invalid {
			out.refused++
		}
	}
	rc, _ := route.Configuration("cluster.local", *table)
	out.bytes = proto.Size(rc)
	_, status, _ = strings.Cut(w.statusText(), "HTTPRoute front/many")
	return out, status
}
