// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
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

// TestResourcesAreToldTogether: what a node's proxy makes of many pods' guards is told once, to those who take it so; a
// replica of an earlier release is told one by one, and tells so.
func TestResourcesAreToldTogether(t *testing.T) {
	local := &fixed{states: map[xds.Key]xds.ResourceState{}}
	keys, want := map[xds.Key]struct{}{}, map[xds.Key]entry{}
	for _, node := range []string{"n0", "n1"} {
		for pod := range 20 {
			k := catalogue.NodeScope(node).Key(xds.TypeExtension, names.PodAuthorization("shop", fmt.Sprint("p", pod)))
			ack := xds.ProxyAck{Proxy: xds.Proxy{Pod: node, PodUID: node, Node: node}, State: xds.Acked, Version: "2"}
			switch pod {
			case 0:
				ack.Version, ack.State = "1", xds.Pending
			case 1:
				ack.Error, ack.State = "no", xds.Rejected
			}
			keys[k], local.states[k] = struct{}{}, xds.ResourceState{Version: "2", Proxies: []xds.ProxyAck{ack}}
			want[k] = entryOf(k, local.states[k])
		}
	}
	two := scope.Key(xds.TypeRoute, route)
	keys[two], local.states[two] = struct{}{}, xds.ResourceState{Version: "2", Proxies: []xds.ProxyAck{
		{Proxy: xds.Proxy{Pod: "p", PodUID: "u"}, State: xds.Acked, Version: "2"},
		{Proxy: xds.Proxy{Pod: "q", PodUID: "v"}, State: xds.Acked, Version: "2"},
	}}
	want[two] = entryOf(two, local.states[two])
	f := newFeed(local, "x", quick, testLog(t))
	for _, together := range []bool{true, false} {
		fo := f.join()
		fo.together = together
		lines := sentLines(t, f, fo, keys)
		told, got := 0, map[xds.Key]entry{}
		for _, l := range lines {
			told += len(l.Entries)
			for _, e := range l.Entries {
				for _, e := range e.apart() {
					require.NotContains(t, got, e.key())
					got[e.key()] = e
				}
			}
		}
		require.Equal(t, want, got)
		if together {
			require.Equal(t, 2*3+1, told)
		} else {
			require.Len(t, keys, told)
		}
	}
}

// TestWhatIsForeseenIsToldLate: that a proxy was sent the next version of what guards a pod follows from that there is
// one, so only the answer is told, unless it takes its time. That it was sent what the other replica has already, or
// went away, is told at once, and so is all of what isn't a guard.
func TestWhatIsForeseenIsToldLate(t *testing.T) {
	guard := catalogue.NodeScope("n").Key(xds.TypeExtension, names.PodAuthorization("shop", "p"))
	table := scope.Key(xds.TypeRoute, route)
	local := &fixed{states: map[xds.Key]xds.ResourceState{}}
	f := newFeed(local, "x", quick, testLog(t))
	fo := f.join()
	fo.together = true
	tell := func(k xds.Key, version, runs string, state xds.AckState) map[xds.Key]entry {
		local.states[k] = xds.ResourceState{Version: version, Proxies: []xds.ProxyAck{{
			Proxy: xds.Proxy{Pod: "a", PodUID: "a"}, State: state, Version: runs, Moving: state == xds.Pending,
		}}}
		return sent(t, f, fo, map[xds.Key]struct{}{k: {}})
	}
	late := func() string {
		var text strings.Builder
		require.NoError(t, f.sendPostponed(json.NewEncoder(&text), fo))
		return text.String()
	}
	require.Len(t, tell(guard, "1", "", xds.Pending), 1, "the first time")
	require.Len(t, tell(guard, "1", "1", xds.Acked), 1)
	require.Empty(t, tell(guard, "2", "1", xds.Pending), "foreseen")
	require.Len(t, tell(guard, "2", "2", xds.Acked), 1)
	require.Empty(t, late(), "it is over")
	require.Empty(t, tell(guard, "3", "2", xds.Pending))
	require.Contains(t, late(), `"version":"3"`)
	require.Empty(t, late(), "once")
	require.Len(t, tell(guard, "3", "2", xds.Pending), 1, "of the version that was told of")
	require.Empty(t, tell(guard, "4", "2", xds.Pending))
	require.Len(t, tell(guard, "4", "2", xds.Rejected), 1)
	require.Empty(t, tell(guard, "5", "2", xds.Pending))
	local.states[guard] = xds.ResourceState{Version: "5"}
	require.Empty(t, sent(t, f, fo, map[xds.Key]struct{}{guard: {}})[guard].Proxies)
	require.NotContains(t, fo.told, guard, "it went away")
	require.Empty(t, late())

	require.Len(t, tell(table, "1", "1", xds.Acked), 1)
	require.Len(t, tell(table, "2", "1", xds.Pending), 1)
}

func sent(t *testing.T, f *feed, fo *follower, keys map[xds.Key]struct{}) map[xds.Key]entry {
	t.Helper()
	got := map[xds.Key]entry{}
	for _, l := range sentLines(t, f, fo, keys) {
		for _, e := range l.Entries {
			got[e.key()] = e
		}
	}
	return got
}

func sentLines(t *testing.T, f *feed, fo *follower, keys map[xds.Key]struct{}) (out []line) {
	t.Helper()
	var text strings.Builder
	require.NoError(t, f.send(json.NewEncoder(&text), fo, keys, false))
	for lines := bufio.NewScanner(strings.NewReader(text.String())); lines.Scan(); {
		var l line
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
		out = append(out, l)
	}
	return out
}
