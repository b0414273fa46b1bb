// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestAnEditTakesTwoLooksAndOneWrite: at its report and at the last answer. Of what the API server tells besides, the
// writer looks at what somebody else made of the status alone.
func TestAnEditTakesTwoLooksAndOneWrite(t *testing.T) {
	const pods = 4
	inWorld(t, func(w *world) {
		w.book.guards = newGuardLedger(pods)
		object := func() *gwv1.HTTPRoute {
			route := &gwv1.HTTPRoute{}
			require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "reviews"}, route))
			return route
		}
		looks := func(what string, reads, writes int32, do func()) {
			t.Helper()
			r, n := w.reads.Load(), w.writes.Load()
			do()
			synctest.Wait()
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, [2]int32{reads, writes}, [2]int32{w.reads.Load() - r, w.writes.Load() - n}, what)
		}
		report := func() {
			w.report(ingest.ParentReport{Ref: w.parent, Enforcement: &ingest.Enforcement{Pods: podsOf("bookshop", pods)}})
		}
		answers := func(state xds.AckState, version string) {
			for pod := range pods {
				w.writer.Acknowledged(w.book.guards.says(pod, state, version))
			}
		}
		before := object()
		looks("an edit", 2, 1, func() {
			answers(xds.Pending, "older")
			report()
			time.Sleep(calm / 2)
			answers(xds.Acked, "v")
		})
		own := object()
		require.NotEmpty(t, own.Status.Parents)
		looks("the writer's own version", 0, 0, func() { w.writer.Changed(w.ref, before, own) })
		noted := own.DeepCopy()
		noted.Annotations = map[string]string{"note": "x"}
		require.NoError(t, w.client.Update(t.Context(), noted))
		looks("an annotation", 0, 0, func() { w.writer.Changed(w.ref, own, noted) })

		overwritten := noted.DeepCopy()
		overwritten.Status.Parents = nil
		require.NoError(t, w.client.Status().Update(t.Context(), overwritten))
		looks("somebody's word", 1, 1, func() { w.writer.Changed(w.ref, noted, overwritten) })
		require.Len(t, object().Status.Parents, 1)
		other := object()
		other.ResourceVersion = "another"
		looks("a new object", 1, 0, func() { w.writer.Changed(w.ref, nil, other) })
		again := other.DeepCopy()
		again.UID = "2"
		looks("another object of the name", 1, 0, func() { w.writer.Changed(w.ref, other, again) })
	})
}
