// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"fmt"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/xds"
)

var (
	noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	on1  = Source{Scope: "node/n1", Proxy: "uid"}
)

func count(value uint64, since, last time.Time) Count {
	return Count{
		Series: Series{Kind: Tried, Destination: "shop/web-0", Verdict: "DENY shop/x rule 0"}, Value: value, Since: since,
		Last: last, Caller: "spiffe://a",
	}
}

// TestWhatComesTwiceCountsOnce: and an agent that starts over takes nothing away.
func TestWhatComesTwiceCountsOnce(t *testing.T) {
	b := NewBook()
	added := func(c Count) (sum uint64, first bool) {
		for _, g := range b.Take(on1, []Count{c}) {
			sum, first = sum+g.Added, g.First
		}
		return sum, first
	}
	for _, step := range []struct {
		count Count
		added uint64
		first bool
	}{
		{count(3, noon, noon), 3, true},
		{count(3, noon, noon), 0, false},
		{count(5, noon, noon), 2, false},
		{count(4, noon, noon), 0, false},               // an older one, of another replica
		{count(2, noon.Add(time.Hour), noon), 2, true}, // the agent has begun anew
		{count(3, noon.Add(time.Hour), noon), 1, false},
		{count(9, noon, noon), 0, false}, // a replica that the agent has left
		{count(4, noon.Add(time.Hour), noon), 1, false},
	} {
		sum, first := added(step.count)
		require.Equal(t, step.added, sum, "%+v", step)
		require.Equal(t, step.first, first, "%+v", step)
	}
	require.Len(t, b.Take(Source{Scope: "node/n2", Proxy: "uid"}, []Count{count(1, noon, noon)}), 1, "another proxy's")
}

// TestABookIsBounded, by proxy, and forgets what is old.
func TestABookIsBounded(t *testing.T) {
	b := NewBook()
	for n := range MaxSeries + 10 {
		c := count(1, noon, noon)
		c.Destination = fmt.Sprint("shop/", n)
		b.Take(on1, []Count{c})
	}
	const most = MaxSeries / (PerFreeOfProxy + 1)
	require.Len(t, b.of[on1], most)
	gone := 0
	b.Sweep(noon.Add(forget), func(Source, Series) { gone++ })
	require.Zero(t, gone)
	b.Sweep(noon.Add(forget+time.Second), func(Source, Series) { gone++ })
	require.Equal(t, most, gone)
	require.Empty(t, b.of)
	require.Empty(t, b.within)
	require.Zero(t, b.owners.Used())
}

// TestNobodyPushesOutAnother: hostile proxies that tell as much as they can, of as many namespaces as they like, and a
// namespace with any number of waypoints, leave room to those who come later.
func TestNobodyPushesOutAnother(t *testing.T) {
	b := NewBook()
	flood := func(from Source) {
		for n := range MaxSeries {
			c := count(1, noon, noon)
			c.Destination = fmt.Sprintf("made-up-%d/%d", n%100, n)
			b.Take(from, []Count{c})
		}
	}
	for n := range 64 {
		flood(Source{Scope: xds.Scope(fmt.Sprint("node/bad-", n)), Proxy: "uid"})
	}
	for n := range 100 {
		flood(Source{Scope: xds.Scope(fmt.Sprint("waypoint/hostile/w", n)), Proxy: "uid"})
	}
	require.LessOrEqual(t, b.owners.Used(), maxKept)
	require.LessOrEqual(t, b.owners.of["waypoints/hostile"], maxKept/(perFree+1))
	for _, honest := range []Source{on1, {Scope: "waypoint/shop/w", Proxy: "uid"}} {
		for n := range 100 {
			c := count(1, noon, noon)
			c.Destination = fmt.Sprint("shop/", n)
			require.Len(t, b.Take(honest, []Count{c}), 1, "%v, %d", honest, n)
		}
	}
}

// TestAPodsNamespaceHasItsShareOfANode: whoever floods its own pods leaves room to others on the node.
func TestAPodsNamespaceHasItsShareOfANode(t *testing.T) {
	b := NewBook()
	for _, ns := range []string{"flooded", "too", "shop"} {
		for n := range MaxSeries {
			c := count(1, noon, noon)
			c.Destination = fmt.Sprintf("%s/%d", ns, n)
			if grown := b.Take(on1, []Count{c}); ns == "shop" && n < 100 {
				require.Len(t, grown, 1)
			}
		}
	}
}

func TestCountsTravelWhole(t *testing.T) {
	all := []Count{
		count(3, noon, noon.Add(time.Minute)),
		{
			Series: Series{Kind: Strict, Destination: "shop/web-0", Source: "10.0.0.1", Anonymous: true, Requests: true},
			Value:  1, Since: noon, Last: noon, Caller: "10.0.0.1",
		},
		{
			Series: Series{Kind: KeysMissing, Destination: "shop/0123"}, Value: 2, Since: noon, Last: noon,
			Why: "the answer is 503 Service Unavailable",
		},
	}
	got, err := Parse(Families(all), noon.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, all, got)
}

// TestWhatAProxySaysIsNotTrusted: times to come, control characters, long texts, kinds and numbers that are none.
func TestWhatAProxySaysIsNotTrusted(t *testing.T) {
	c := count(1, noon.Add(time.Hour), noon.Add(2*time.Hour))
	c.Caller, c.Verdict = "a\nb\xff", string(make([]byte, 2*maxText))
	unknown := count(1, noon, noon)
	unknown.Kind = "made up"
	got, err := Parse(Families([]Count{c, unknown}), noon)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, c.Since, got[0].Since, "which tells a count from the next")
	require.Equal(t, noon, got[0].Last)
	require.Equal(t, "a b", got[0].Caller)
	require.Len(t, got[0].Verdict, maxText)

	for _, v := range []float64{0, -1, 1e300} {
		f := Families([]Count{c})
		f[0].Metric[0].Counter.Value = proto.Float64(v)
		_, err = Parse(f, noon)
		require.Error(t, err)
	}
	many := &dto.MetricFamily{Name: proto.String(family), Metric: make([]*dto.Metric, MaxSeries+MaxKeys+1)}
	_, err = Parse([]*dto.MetricFamily{many}, noon)
	require.ErrorIs(t, err, errTooMany)
	got, err = Parse([]*dto.MetricFamily{{Name: proto.String("other"), Metric: []*dto.Metric{{}}}, nil}, noon)
	require.NoError(t, err)
	require.Empty(t, got)
}
