// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

type says map[string]string

func (s says) State(scope, _, name string) xds.ResourceState {
	text, ok := s[scope+" "+name]
	if !ok {
		return xds.ResourceState{}
	}
	return xds.ResourceState{Version: "v", Proxies: []xds.ProxyAck{{State: xds.Rejected, Error: text}}}
}

// TestARejectedTableIsSaidWhenItLasts: until then its culprit is being sought.
func TestARejectedTableIsSaidWhenItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const scope, name = "waypoint/a/w", "service/a/b/80"
		s := says{scope + " " + name: "no such filter"}
		r := newRejections(s)
		said := 0
		r.again = func(scope, typeURL, name string) {
			if r.note(scope, typeURL, name) {
				said++
			}
		}
		require.False(t, r.note(scope, xds.TypeRoute, name))
		require.False(t, r.note(scope, xds.TypeRoute, name))
		require.Empty(t, r.first(scope))
		time.Sleep(status.Search)
		synctest.Wait()
		require.Equal(t, 1, said)
		require.Equal(t, "route table service/a/b/80: no such filter", r.first(scope))

		delete(s, scope+" "+name)
		require.True(t, r.note(scope, xds.TypeRoute, name))
		require.Empty(t, r.of)
		require.Empty(t, r.tables)
	})
}

func TestRejectionsOfAScope(t *testing.T) {
	s := says{"waypoint/a/w service/a/b/80": "no such filter", "waypoint/a/w service/a/c/80": "bad"}
	r := newRejections(s)
	require.False(t, r.note("waypoint/a/w", xds.TypeRoute, "service/a/d/80"))
	require.Empty(t, r.first("waypoint/a/w"))
	require.True(t, r.note("waypoint/a/w", xds.TypeCluster, "service/a/c/80"))
	require.True(t, r.note("waypoint/a/w", xds.TypeCluster, "service/a/b/80"))
	require.False(t, r.note("waypoint/a/w", xds.TypeCluster, "service/a/b/80"), "nothing new")
	require.Equal(t, "cluster service/a/b/80: no such filter", r.first("waypoint/a/w"))
	require.Empty(t, r.first("waypoint/a/v"))
	clear(s)
	require.True(t, r.note("waypoint/a/w", xds.TypeCluster, "service/a/b/80"))
	require.Equal(t, "cluster service/a/c/80: bad", r.first("waypoint/a/w"))
	require.True(t, r.note("waypoint/a/w", xds.TypeCluster, "service/a/c/80"))
	require.Empty(t, r.of)
}
