// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const networkDenies = "no ALLOW policy of level Network matches"

// growth of what a node's proxy counts for a pod p<n>.
func growth(pod int, kind counts.Kind, verdict string, added uint64) counts.Growth {
	return counts.Growth{
		Source: counts.Source{Scope: catalogue.NodeScope(podOf(pod).Node), Proxy: "uid"}, Added: added,
		Count: counts.Count{
			Series: counts.Series{Kind: kind, Destination: podName(pod).String(), Verdict: verdict}, Since: time.Now(),
			Last: time.Now(), Caller: "spiffe://cluster.local/ns/shop/sa/eve",
		},
	}
}

func enforcedMessage(w *world) string {
	return meta.FindStatusCondition(w.status()[0].Conditions, v1alpha1.PolicyConditionEnforced).Message
}

// TestADryRunSaysWhoWouldBeRefused, and writes no more often for more of them.
func TestADryRunSaysWhoWouldBeRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.guards = newGuardLedger(4)
		e := &ingest.Enforcement{Pods: podsOf("bookshop", 4), DryRun: true}
		w.report(ingest.ParentReport{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e})
		require.Equal(t, "Tried for 4 of 4 pods on 2 nodes; would have refused nobody since 2000-01-01 00:00 UTC; nothing "+
			"is refused because of it; set dryRun to false to enforce it.", enforcedMessage(w))
		begin := w.writes.Load()

		time.Sleep(2 * time.Minute)
		w.writer.Counted([]counts.Growth{growth(0, counts.Tried, networkDenies, 3)})
		synctest.Wait()
		require.Contains(t, enforcedMessage(w), "; would have refused 3 connections since 2000-01-01 00:00 UTC, the last at "+
			"2000-01-01 00:02 UTC from spiffe://cluster.local/ns/shop/sa/eve; ", "the first one is said at once")

		for range 600 {
			anonymous := growth(3, counts.Tried, networkDenies, 2)
			anonymous.Anonymous = true
			w.writer.Counted([]counts.Growth{growth(1, counts.Tried, networkDenies, 1), anonymous})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		require.LessOrEqual(t, w.writes.Load()-begin, int32(11))
		require.Contains(t, enforcedMessage(w), "refused about 1800 connections since", "rounded")
		require.Contains(t, enforcedMessage(w), "(about 1200 of them without identity)")

		requests := growth(0, counts.Tried, networkDenies, 1)
		requests.Requests, requests.Scope = true, catalogue.WaypointScope(types.NamespacedName{Namespace: "a", Name: "b"})
		w.writer.Counted([]counts.Growth{requests}) // no waypoint of this policy
		time.Sleep(10 * time.Minute)
		before := w.writes.Load()
		time.Sleep(time.Hour)
		require.Equal(t, before, w.writes.Load(), "nothing is said anew while nothing happens")

		e = &ingest.Enforcement{Pods: podsOf("bookshop", 4), DryRun: true}
		w.writer.Report(w.ref, &ingest.Report{Ref: w.ref, UID: "1", Generation: 2, Parents: []ingest.ParentReport{
			{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e},
		}})
		synctest.Wait()
		require.Contains(t, enforcedMessage(w), "would have refused nobody since 2000-01-01 01:22", "an edit counts anew")
		old := growth(0, counts.Tried, networkDenies, 50)
		old.First, old.Since = true, time.Now().Add(-time.Hour)
		w.writer.Counted([]counts.Growth{old})
		time.Sleep(2 * time.Minute)
		require.Contains(t, enforcedMessage(w), "would have refused nobody", "of nobody knows which generation")
	})
}

// TestAnEnforcedPolicySaysWhoHadNoIdentity.
func TestAnEnforcedPolicySaysWhoHadNoIdentity(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.guards = newGuardLedger(2)
		e := &ingest.Enforcement{Pods: podsOf("bookshop", 2)}
		w.report(ingest.ParentReport{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e})
		require.NotContains(t, enforcedMessage(w), "identity")
		g := growth(1, counts.Refused, networkDenies, 7)
		g.Anonymous, g.Caller = true, "10.0.0.9"
		w.writer.Counted([]counts.Growth{g})
		time.Sleep(time.Minute)
		require.Contains(t, enforcedMessage(w), "; 7 connections without identity refused since 2000-01-01 00:00 UTC, the "+
			"last at 2000-01-01 00:00 UTC from 10.0.0.9; ")
	})
}

// TestWhoseACountIs: a proxy is believed about what it carries out, and a verdict is of the policies that it comes of.
func TestWhoseACountIs(t *testing.T) {
	gateway := types.NamespacedName{Namespace: "shop", Name: "w"}
	other := types.NamespacedName{Namespace: "shop", Name: "v"}
	port := model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	atWaypoint := ingest.GuardingWaypoint{Gateway: gateway, Tables: []model.ServicePort{port}, TCP: true}
	policies := map[string]*ingest.Enforcement{
		"allow": {DryRun: true}, "deny": {DryRun: true, Deny: true}, "enforced": {}, "closed": {Deny: true},
		"requests": {DryRun: true, Application: true},
	}
	e := newEntries(nil, newGuardLedger(4), logr.Discard(), nil)
	e.refusals.touch = func(model.ObjectRef) {}
	pods := podsOf("shop", 4)
	for name, of := range policies {
		of.Pods, of.Waypoints = pods, []ingest.GuardingWaypoint{atWaypoint}
		ref := model.ObjectRef{Namespace: "shop", Name: name}
		e.link(ref, policyReport(ref, of))
	}
	waypoint := func(g types.NamespacedName, to string, requests bool, verdict string) counts.Growth {
		out := growth(0, counts.Tried, verdict, 1)
		out.Scope, out.Destination, out.Requests = catalogue.WaypointScope(g), to, requests
		return out
	}
	foreign := growth(0, counts.Tried, networkDenies, 1)
	foreign.Scope = catalogue.NodeScope("n1") // p0 is on n0
	const web, applicationDenies = "service/shop/web/80", "no ALLOW policy of level Application matches"
	for name, c := range map[string]struct {
		growth counts.Growth
		of     []string
	}{
		"nobody allows":            {growth(0, counts.Tried, networkDenies, 1), []string{"allow"}},
		"a rule denies":            {growth(1, counts.Tried, "DENY shop/deny rule 0", 1), []string{"deny"}},
		"another's rule":           {growth(1, counts.Tried, "DENY shop/denied rule 0", 1), nil},
		"refused":                  {growth(1, counts.Refused, networkDenies, 1), []string{"enforced"}},
		"refused by a rule":        {growth(1, counts.Refused, "DENY shop/closed rule 0", 1), []string{"closed"}},
		"another node's pod":       {foreign, nil},
		"plain text is no verdict": {growth(1, counts.Plaintext, "", 1), nil},
		"requests":                 {waypoint(gateway, web, true, applicationDenies), []string{"requests"}},
		"by an expression":         {waypoint(gateway, web, true, counts.ByExpressions), []string{"requests"}},
		"network at the waypoint":  {waypoint(gateway, web, true, networkDenies), []string{"allow"}},
		"TCP":                      {waypoint(gateway, web, false, networkDenies), []string{"allow"}},
		"another port":             {waypoint(gateway, "service/shop/web/81", true, applicationDenies), nil},
		"another waypoint":         {waypoint(other, web, true, applicationDenies), nil},
		"no port":                  {waypoint(gateway, "made up", true, applicationDenies), nil},
		"a scope of nobody":        {counts.Growth{Source: counts.Source{Scope: xds.Scope("x")}, Count: foreign.Count}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := map[string]uint64{}, map[string]uint64{}
			sum := func(into map[string]uint64) {
				for ref, n := range e.refusals.of {
					into[ref.Name] = n.connections + n.requests
				}
			}
			sum(before)
			e.Counted([]counts.Growth{c.growth})
			sum(after)
			var got []string
			for name := range policies {
				if after[name] != before[name] {
					got = append(got, name)
				}
			}
			require.Equal(t, c.of, got)
		})
	}
	for name := range policies {
		e.link(model.ObjectRef{Namespace: "shop", Name: name}, nil)
	}
	require.Empty(t, e.refusals.of)
	require.Empty(t, e.refusals.at)
}

func TestRound(t *testing.T) {
	for n, want := range map[uint64]string{1: "1", 99: "99", 100: "about 100", 1234: "about 1200", 99_999: "about 99000"} {
		require.Equal(t, want, round(n), fmt.Sprint(n))
	}
}
