// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// ofKeys is what the agent of a proxy of a waypoint tells.
func ofKeys(at types.NamespacedName, proxy string, kind counts.Kind, since time.Time, why string) []counts.Growth {
	return []counts.Growth{{
		Source: counts.Source{Scope: catalogue.WaypointScope(at), Proxy: proxy},
		Count: counts.Count{
			Series: counts.Series{Kind: kind, Destination: "bookshop/0123"}, Value: 1, Since: since, Last: since, Why: why,
		},
	}}
}

// TestAPolicySaysWhichKeysAreMissing, since when and why, while they are; and of old ones that they are old.
func TestAPolicySaysWhichKeysAreMissing(t *testing.T) {
	inWorld(t, func(w *world) {
		e := &ingest.Enforcement{
			Application: true, Means: "requests without a token that is good are refused",
			Waypoints: []ingest.GuardingWaypoint{{Gateway: waypoint}},
			Keys: []ingest.FetchedKeys{{
				Provider: "main", Source: "bookshop/0123",
				Server: model.ServicePort{Namespace: "keys", Service: "login", Port: 8080},
			}},
		}
		says := func(status metav1.ConditionStatus, reason string) string {
			t.Helper()
			synctest.Wait()
			c := meta.FindStatusCondition(w.status()[0].Conditions, v1alpha1.PolicyConditionEnforced)
			require.Equal(t, [2]string{string(status), reason}, [2]string{string(c.Status), c.Reason}, c.Message)
			return c.Message
		}
		w.report(ingest.ParentReport{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e})
		require.NotContains(t, says(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced), "keys")

		other := types.NamespacedName{Namespace: "bookshop", Name: "other"}
		first := time.Now()
		w.writer.Counted(ofKeys(other, "a", counts.KeysMissing, first, "no waypoint of the policy"))
		w.writer.Counted(ofKeys(waypoint, "gone", counts.KeysMissing, first, "a proxy that serves no more"))
		says(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced)

		w.writer.Counted(ofKeys(waypoint, "a", counts.KeysMissing, first, "the answer is 503 Service Unavailable"))
		require.Equal(t, "Enforced by 2/2 proxies of waypoint bookshop/fairway-waypoint; provider main: port 8080 of "+
			"Service "+
			"keys/login has given no keys to a proxy of waypoint bookshop/fairway-waypoint since 2000-01-01 00:00 UTC: the "+
			"answer is 503 Service Unavailable; until it answers the uri of jwks.remote with 200 and a set of public keys (RFC "+
			"7517, 64 KiB at most), requests with tokens of the provider are refused there; requests without a token that is "+
			"good are refused; kubelet's probes and the mesh's own proxies are never refused.",
			says(metav1.ConditionFalse, v1alpha1.PolicyReasonKeysMissing))

		time.Sleep(5 * time.Minute)
		w.writer.Counted(ofKeys(waypoint, "b", counts.KeysMissing, time.Now(), "the answer has no keys in it"))
		require.Contains(t, says(metav1.ConditionFalse, v1alpha1.PolicyReasonKeysMissing),
			"to 2 proxies, first of waypoint bookshop/fairway-waypoint since 2000-01-01 00:00 UTC: the answer is 503")

		before := w.writes.Load()
		for n := range 60 {
			why := []string{"the answer has no keys in it", "there is no answer within 5s"}[n%2]
			w.writer.Counted(ofKeys(waypoint, "a", counts.KeysMissing, first, why))
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		require.LessOrEqual(t, w.writes.Load()-before, int32(3), "errors may change fast")
		require.NotContains(t, says(metav1.ConditionFalse, v1alpha1.PolicyReasonKeysMissing), "503")

		w.writer.Counted(ofKeys(waypoint, "a", counts.KeysFetched, time.Now(), ""))
		w.writer.Counted(ofKeys(waypoint, "a", counts.KeysMissing, first, "told late by another replica"))
		require.Contains(t, says(metav1.ConditionFalse, v1alpha1.PolicyReasonKeysMissing), "no keys to a proxy of waypoint")
		w.writer.Counted(ofKeys(waypoint, "b", counts.KeysFetched, time.Now(), ""))
		require.NotContains(t, says(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced), "keys")

		time.Sleep(time.Minute)
		w.writer.Counted(ofKeys(waypoint, "a", counts.KeysStale, time.Now(), "the answer is 404 Not Found"))
		time.Sleep(time.Minute)
		require.Contains(t, says(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced),
			"provider main: a proxy of waypoint bookshop/fairway-waypoint has no newer keys of port 8080 of Service keys/login "+
				"since 2000-01-01 00:08 UTC: the answer is 404 Not Found; the keys from before stay good;")
		w.writer.Counted(ofKeys(waypoint, "a", counts.KeysFetched, time.Now(), ""))
		time.Sleep(time.Minute)
		require.NotContains(t, says(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced), "keys")

		time.Sleep(2 * counts.Idle)
		w.writer.Counted(ofKeys(other, "a", counts.KeysFetched, time.Now(), ""))
		require.Len(t, w.writer.keys.of, 1, "what nobody tells of any more is forgotten")
	})
}
