// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// proxies are those of a waypoint, by what they have.
type proxies []string

func (p proxies) State(xds.Key) (out xds.ResourceState) {
	out.Version = "new"
	for n, has := range p {
		a := xds.ProxyAck{Proxy: xds.Proxy{PodUID: string(rune('a' + n))}, State: xds.Pending, Version: has}
		if has == out.Version {
			a.State = xds.Acked
		}
		out.Proxies = append(out.Proxies, a)
	}
	return out
}

// TestAWaypointIsLookedAtWhenItsProxiesComeOrGo, and not whenever they answer.
func TestAWaypointIsLookedAtWhenItsProxiesComeOrGo(t *testing.T) {
	gateway := types.NamespacedName{Namespace: "a", Name: "w"}
	r := &ready{of: map[types.NamespacedName]int{}}
	for _, step := range []struct {
		has     proxies
		changed bool
	}{
		{proxies{}, false},
		{proxies{""}, false},
		{proxies{"old"}, true},
		{proxies{"new"}, false},
		{proxies{"old", ""}, false},
		{proxies{"new", "new"}, true},
		{proxies{"", "new"}, true},
		{proxies{}, true},
		{proxies{}, false},
	} {
		r.acks = step.has
		require.Equal(t, step.changed, r.changed(gateway), "%q", step.has)
	}
	require.Empty(t, r.of)
}
