// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

var oracleScopes = map[xds.Scope][]string{
	"waypoint/bookshop/fairway-waypoint": nil,
	"waypoint/bookshop/mine":             nil,
	"waypoint/all/wp":                    nil,
	"waypoint/shop/fairway-waypoint":     nil,
	"waypoint/shop/mine":                 nil,
	"node/node1":                         {"10.96.0.10:80", "10.96.0.11:80", "10.96.0.14:80", "10.200.2.6:8080"},
	"node/node2":                         {"10.96.0.10:80", "10.96.0.15:7070", "10.96.0.20:80", "10.96.3.10:80"},
}

// TestIncrementalEqualsFromScratch sends random sequences of events through an engine and holds everything that it
// serves and reports, after each step, against an engine that is given the resulting cluster all at once. Proxies go
// away and come back meanwhile, some of them after the time of grace; in the end all go, and nothing is left of them.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	pool := objectPool(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { incremental(t, seed, pool) })
		})
	}
}

func incremental(t *testing.T, seed uint64, pool []client.Object) {
	r := rand.New(rand.NewPCG(seed, 7))
	h := newHarness(t)
	h.Synced()
	present := map[string]client.Object{}
	for step := range 120 {
		for range 1 + r.IntN(6) {
			event(r, h, pool, present)
		}
		if r.IntN(3) == 0 {
			h.disconnect(func() bool { return r.IntN(3) == 0 })
		}
		if r.IntN(5) == 0 {
			h.graceOver()
		}
		if r.IntN(4) == 0 {
			h.rejectOne(r)
		}
		h.process()
		for scope, dialled := range oracleScopes {
			h.subscribe(scope, dialled...)
			h.wantGuards(scope, pool)
		}
		if step%6 != 5 {
			continue
		}
		scratch := newHarness(t)
		for _, rejection := range h.ingest.Rejected.All() {
			scratch.Reject(rejection)
		}
		for _, o := range present {
			scratch.Set(o)
		}
		scratch.Synced()
		scratch.process()
		for scope, dialled := range oracleScopes {
			scratch.subscribe(scope, dialled...)
			scratch.wantGuards(scope, pool)
			require.Equal(t, served(scratch.cache, scope), served(h.cache, scope), "seed %d step %d scope %s", seed, step, scope)
		}
		require.Equal(t, string(scratch.statuses(t)), string(h.statuses(t)), "seed %d step %d", seed, step)
		h.tablesAreWhole(t)
	}
	h.disconnect(func() bool { return true })
	h.graceOver()
	require.Empty(t, h.scopes)
	require.Empty(t, h.cache.Scopes())
}

// wantGuards asks for what guards the pods that there may be, as their nodes' proxies do.
func (h *harness) wantGuards(scope xds.Scope, pool []client.Object) {
	if _, ok := catalogue.NodeOf(scope); !ok {
		return
	}
	for _, o := range pool {
		if pod, ok := o.(*corev1.Pod); ok {
			name := names.PodAuthorization(pod.Namespace, pod.Name)
			h.Interest(xds.Interest{Key: scope.Key(xds.TypeExtension, name), Wanted: true})
		}
	}
	h.process()
}

// rejectOne has proxies reject a rule of some route, as it is or as it was refused already.
func (h *harness) rejectOne(r *rand.Rand) {
	refs := slices.SortedFunc(maps.Keys(h.reports), func(a, b model.ObjectRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if len(refs) == 0 {
		return
	}
	ref := refs[r.IntN(len(refs))]
	if route := h.ingest.Route.Get(nil, ref); route != nil && len(route.Rules) > 0 {
		rule := route.Rules[r.IntN(len(route.Rules))]
		h.Reject(ingest.Rejection{Route: ref, Rule: ingest.RuleKey(rule), Text: "rejected"})
	}
}

// disconnect says that the last proxy went that wanted something, for what is chosen of all that is wanted.
func (h *harness) disconnect(choose func() bool) {
	h.process()
	for _, name := range slices.Sorted(maps.Keys(h.scopes)) {
		wanted := slices.SortedFunc(maps.Keys(h.scopes[name].wishes), func(a, b xds.ID) int {
			return cmp.Or(cmp.Compare(a.TypeURL, b.TypeURL), cmp.Compare(a.Name, b.Name))
		})
		for _, id := range wanted {
			if h.scopes[name].wishes[id]&wishOpen != 0 && choose() {
				h.Interest(xds.Interest{Key: xds.Key{Scope: name, ID: id}, Disconnected: true})
			}
		}
	}
	h.process()
}

// graceOver lets the time of grace pass for all that went before.
func (h *harness) graceOver() {
	for range 2 { // a sweep may put off what went later
		time.Sleep(graceAfterDisconnect)
		synctest.Wait()
		h.process()
	}
}

// TestNamesOfProxiesThatWentAreReleased: each of them, while other proxies of the scope stay.
func TestNamesOfProxiesThatWentAreReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for _, o := range caseOf(t, "split") {
			h.Set(o)
		}
		h.Synced()
		const scope xds.Scope = "node/node1"
		h.subscribe(scope, "10.96.0.10:80", "10.96.0.11:80", "10.96.0.12:80")
		known := func(name string) bool {
			_, known := h.cache.Get(scope.Key(xds.TypeCluster, name))
			return known && h.resources.scoped.Watched(scope.Key(xds.TypeCluster, name))
		}
		gone := xds.Interest{Key: scope.Key(xds.TypeCluster, "10.96.0.10:80"), Disconnected: true}
		back := gone
		back.Name = "10.96.0.11:80"
		h.Interest(gone)
		h.Interest(back)
		h.process()
		time.Sleep(graceAfterDisconnect / 2)
		back.Wanted, back.Disconnected = true, false
		h.Interest(back)
		h.process()
		require.True(t, known("10.96.0.10:80"), "it may come back")
		h.graceOver()
		require.False(t, known("10.96.0.10:80"))
		require.True(t, known("10.96.0.11:80"))
		require.True(t, known("10.96.0.12:80"))
		h.subscribe(scope, "10.96.0.10:80")
		require.True(t, known("10.96.0.10:80"))
	})
}

// served lists versions by type and name: they are hashes of the content. Resources that only the incremental engine
// was ever asked for by name are passed over.
func served(c *xds.Cache, scope xds.Scope) map[string]string {
	out := map[string]string{}
	for _, typeURL := range []string{
		xds.TypeListener, xds.TypeCluster, xds.TypeScopedRoute, xds.TypeRoute,
		xds.TypeEndpoint, xds.TypeExtension,
	} {
		for _, res := range c.List(scope, typeURL) {
			if _, ok := parseNodeEndpoints(res.Name()); ok && typeURL == xds.TypeEndpoint {
				continue // asked for while a cluster was of another kind
			}
			out[typeURL+" "+res.Name()] = res.Version()
		}
	}
	return out
}

func event(r *rand.Rand, h *harness, pool []client.Object, present map[string]client.Object) {
	o := pool[r.IntN(len(pool))].DeepCopyObject().(client.Object)
	id := fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())
	if _, ok := present[id]; ok && r.IntN(3) == 0 {
		delete(present, id)
		h.Delete(o)
		return
	}
	o.SetGeneration(int64(r.IntN(1000)))
	vary(r, o)
	present[id] = o
	h.Set(o)
}

// objectPool has the objects of cases of internal/ingest that share names and addresses.
func objectPool(t testing.TB) (out []client.Object) {
	out = readManifests(t, filepath.Join("..", "ingest", "testdata", "mesh.yaml"))
	for _, name := range []string{
		"around-the-waypoint", "authorization-requests", "bad-input", "bad-rules", "consumer-and-grpc", "consumers-alone",
		"families-and-nodes", "gateway-not-accepted", "over-budget", "ownership", "split", "grants", "grpc",
		"named-waypoints", "protocols", "resilience", "precedence", "parameters", "attachment", "backends",
		"backend-tls",
	} {
		out = append(out, readManifests(t, filepath.Join("..", "ingest", "testdata", name, "input.yaml"))...)
	}
	return out
}
