// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func TestTheFeedTellsWhatStatusesNeedOnly(t *testing.T) {
	local := &fixed{states: map[xds.Key]xds.ResourceState{}}
	acked := xds.ProxyAck{Proxy: xds.Proxy{Pod: "p", PodUID: "u"}, State: xds.Acked, Version: "1"}
	nacked := xds.ProxyAck{Proxy: xds.Proxy{Pod: "q", PodUID: "v"}, State: xds.Rejected, Error: strings.Repeat("x", 5000)}
	keys := map[xds.Key]struct{}{}
	serving := servingOf(scope)
	for _, k := range []xds.Key{
		scope.Key(xds.TypeListener, "quiet"), scope.Key(xds.TypeListener, "bad"), scope.Key(xds.TypeRoute, "r"),
		scope.Key(xds.TypeListener, "l"), serving,
	} {
		keys[k] = struct{}{}
		local.states[k] = xds.ResourceState{Version: "1", Proxies: []xds.ProxyAck{acked}}
	}
	bad := scope.Key(xds.TypeListener, "bad")
	local.states[bad] = xds.ResourceState{Version: "1", Proxies: []xds.ProxyAck{acked, nacked}}
	f := newFeed(local, "x", quick, testLog(t))
	fo := f.join()
	got := sent(t, f, fo, keys)
	require.Len(t, got, 3)
	require.Len(t, got[bad].Proxies, 1)
	require.Len(t, got[bad].Proxies[0].Error, maxError)
	require.Contains(t, got, scope.Key(xds.TypeRoute, "r"))
	require.Contains(t, got, serving)

	local.states[bad] = xds.ResourceState{Version: "2", Proxies: []xds.ProxyAck{acked}}
	got = sent(t, f, fo, map[xds.Key]struct{}{bad: {}})
	require.Contains(t, got, bad, "that it is over is told")
	require.Empty(t, got[bad].Proxies)
	require.Empty(t, sent(t, f, fo, map[xds.Key]struct{}{bad: {}}), "once")

	for _, k := range []xds.Key{
		catalogue.NodeScope("n").Key(xds.TypeRoute, "r"), scope.Key(xds.TypeEndpoint, "e"),
		scope.Key(xds.TypeListener, xds.Wildcard),
	} {
		f.noteChanged(k)
	}
	require.Empty(t, fo.take())
	f.noteChanged(scope.Key(xds.TypeRoute, "r"))
	f.noteChanged(scope.Key(xds.TypeRoute, "r"))
	require.Len(t, fo.take(), 1)
}

func sent(t *testing.T, f *feed, fo *follower, keys map[xds.Key]struct{}) map[xds.Key]entry {
	t.Helper()
	var out strings.Builder
	require.NoError(t, f.send(json.NewEncoder(&out), fo, keys))
	got := map[xds.Key]entry{}
	for lines := bufio.NewScanner(strings.NewReader(out.String())); lines.Scan(); {
		var l line
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
		for _, e := range l.Entries {
			got[e.key()] = e
		}
	}
	return got
}
