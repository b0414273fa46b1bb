// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/status/serving"
	"github.com/fairway-mesh/fairway/internal/xds"
)

type says map[xds.Key]string

func (s says) State(k xds.Key) xds.ResourceState {
	text, ok := s[k]
	if !ok {
		return xds.ResourceState{}
	}
	return xds.ResourceState{Version: "v", Proxies: []xds.ProxyAck{{State: xds.Rejected, Error: text}}}
}

// TestARejectedTableIsSaidWhenItLasts: until then its culprit is being sought.
func TestARejectedTableIsSaidWhenItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const scope xds.Scope = "waypoint/a/w"
		k := scope.Key(xds.TypeRoute, "service/a/b/80")
		s := says{k: "no such filter"}
		var r *rejections
		said := 0
		r = newRejections(s, func(keys ...xds.Key) {
			if r.note(keys[0]) {
				said++
			}
		})
		require.False(t, r.note(k))
		require.False(t, r.note(k))
		require.Empty(t, r.first(scope))
		time.Sleep(serving.Search)
		synctest.Wait()
		require.Equal(t, 1, said)
		require.Equal(t, "route table service/a/b/80: no such filter", r.first(scope))

		delete(s, k)
		require.True(t, r.note(k))
		require.Empty(t, r.of)
		require.Empty(t, r.tables)
	})
}

func TestRejectionsOfAScope(t *testing.T) {
	const scope xds.Scope = "waypoint/a/w"
	b, c := scope.Key(xds.TypeCluster, "service/a/b/80"), scope.Key(xds.TypeCluster, "service/a/c/80")
	s := says{b: "no such filter", c: "bad"}
	r := newRejections(s, func(...xds.Key) {})
	require.False(t, r.note(scope.Key(xds.TypeRoute, "service/a/d/80")))
	require.Empty(t, r.first(scope))
	require.True(t, r.note(c))
	require.True(t, r.note(b))
	require.False(t, r.note(b), "nothing new")
	require.Equal(t, "cluster service/a/b/80: no such filter", r.first(scope))
	require.Empty(t, r.first("waypoint/a/v"))
	clear(s)
	require.True(t, r.note(b))
	require.Equal(t, "cluster service/a/c/80: bad", r.first(scope))
	require.True(t, r.note(c))
	require.Empty(t, r.of)
}
