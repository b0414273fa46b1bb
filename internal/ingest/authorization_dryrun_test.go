// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestDryRunsRefuseNothing: with all AuthorizationPolicies of a case only tried, all that proxies refuse is what they
// refuse without these. A waypoint may come with them; no port of a pod closes for it, and none becomes HTTP.
func TestDryRunsRefuseNothing(t *testing.T) {
	tried := 0
	forCases(t, func(t *testing.T, _ string, _ extras, objects []client.Object) {
		with, without := newWorld(), newWorld()
		for _, o := range objects {
			p, ok := o.(*v1alpha1.AuthorizationPolicy)
			if !ok {
				without.set(t, o)
				with.set(t, o)
				continue
			}
			p = p.DeepCopy()
			p.Spec.DryRun = true
			with.set(t, p)
		}
		without.store.Pods.MarkSettled()
		with.store.Pods.MarkSettled()
		for _, key := range keysOf[*corev1.Pod](with) {
			a, b := with.in.PodGuard.Get(nil, key), without.in.PodGuard.Get(nil, key)
			if a == nil || b == nil {
				require.Equal(t, b, a)
				continue
			}
			tried += len(a.Network)
			require.Equal(t, b.Only, a.Only, key)
			require.Equal(t, b.InForce(), a.InForce(), key)
			require.Equal(t, b.Restricts(), a.Restricts(), key)
		}
		for _, key := range with.gateways() {
			a, b := with.in.Waypoint.Get(nil, key), without.in.Waypoint.Get(nil, key)
			if a == nil || b == nil {
				require.Equal(t, b, a)
				continue
			}
			for _, p := range b.Ports {
				same, served := a.Port(p.ServicePort)
				require.True(t, served, "%s serves %v", key, p)
				require.Equal(t, p.Protocol, same.Protocol, p)
			}
			for _, g := range with.in.TCPGuards.Get(nil, key) {
				n := slices.IndexFunc(without.in.TCPGuards.Get(nil, key), func(o model.TCPGuard) bool {
					return o.ServicePort == g.ServicePort
				})
				if n >= 0 {
					require.Equal(t, inForce(without.in.TCPGuards.Get(nil, key)[n].Guards), inForce(g.Guards), g.ServicePort)
				} else { // the waypoint came for it
					require.Empty(t, inForce(g.Guards), g.ServicePort)
				}
			}
			for _, p := range a.Ports {
				at := model.Attachment{Port: p.ServicePort}
				tried += sameTables(t, with.in.Table.Get(nil, at), without.in.Table.Get(nil, at))
			}
		}
	})
	require.Greater(t, tried, 30)
}

// sameTables but for policies that are only tried, of which there are so many.
func sameTables(t *testing.T, with, without *model.RouteTable) (tried int) {
	t.Helper()
	for _, g := range with.Guards {
		tried += len(g.Application)
	}
	require.Equal(t, inForce(without.Guards), inForce(with.Guards), with.Attachment)
	rules := func(table *model.RouteTable) (out []*model.Rule) {
		out = table.Default
		for _, c := range table.Callers {
			out = append(out[:len(out):len(out)], c.Rules...)
		}
		return out
	}
	a, b := rules(with), rules(without)
	require.Len(t, a, len(b), with.Attachment)
	for n := range a {
		for m := range a[n].Backends {
			require.Equal(t, b[n].Backends[m].Invalid, a[n].Backends[m].Invalid, "%v: %v", with.Attachment, a[n].Source)
			require.Equal(t, inForce(b[n].Backends[m].Guards), inForce(a[n].Backends[m].Guards), with.Attachment)
		}
	}
	return tried
}
