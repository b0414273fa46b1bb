// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// here adapts clusters to this node.
var here = map[string]func(*anypb.Any) (*anypb.Any, error){xds.TypeCluster: func(packed *anypb.Any) (
	*anypb.Any, error,
) {
	c := &clusterv3.Cluster{}
	if err := packed.UnmarshalTo(c); err != nil {
		return nil, err
	}
	if c.GetConnectTimeout().GetSeconds() == 13 {
		return nil, errors.New("it can't be adapted")
	}
	c.AltStatName = "here"
	return anypb.New(c)
}}

// adapted are the clusters that the relay serves, all of which must be adapted, with their versions.
func (a *agent) adapted() map[string]string {
	out := map[string]string{}
	for _, r := range a.list(xds.TypeCluster) {
		c := &clusterv3.Cluster{}
		require.NoError(a.t, r.Any().UnmarshalTo(c))
		require.Equal(a.t, "here", c.GetAltStatName())
		out[r.Name()] = r.Version()
	}
	return out
}

// TestGreetedBeforeAnythingIsAdapted: what the operator says of the proxy by itself is known when the first resource
// comes, on each stream.
func TestGreetedBeforeAnythingIsAdapted(t *testing.T) {
	o := newOperator(t)
	o.greets(metadata.Pairs("who", "n1"))
	var mu sync.Mutex
	var said []string
	a := startRelay(t, Options{
		Dial: o.dial,
		Greeted: func(md metadata.MD) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, md.Get("who")...)
		},
		Adapt: map[string]func(*anypb.Any) (*anypb.Any, error){xds.TypeCluster: func(packed *anypb.Any) (*anypb.Any, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(said) == 0 {
				return nil, errors.New("nobody said who it is")
			}
			return packed, nil
		}},
	})
	one := cluster(t, "a", 1)
	o.apply(one)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(a.t, "the cluster", func() bool { return e.runs(one) })
	o.stop()
	o.greets(metadata.Pairs("who", "n2"))
	o.start()
	eventually.True(a.t, "the next greeting", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal([]string{"n1", "n2"}, said)
	})
}

func TestClustersAreAdapted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xds.snapshot")
	o := newOperator(t)
	before := startRelay(t, Options{Dial: o.dial, SnapshotPath: path}) // of a version that adapts nothing
	one, two := cluster(t, "a", 1), cluster(t, "b", 1)
	o.apply(one)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := before.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(before.t, "all", func() bool { return e.runs(one) })
	before.stop()
	o.stop()
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	resources, ok := bytes.CutPrefix(written, []byte(snapshotHeader))
	require.True(t, ok)
	require.NoError(t, os.WriteFile(path, append([]byte(snapshotUnadapted), resources...), 0o600))

	a := startRelay(t, Options{Dial: o.dial, SnapshotPath: path, Adapt: here})
	require.Equal(t, map[string]string{"a": one.Version()}, a.adapted(), "what the snapshot holds")
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	o.start()
	o.apply(two)
	eventually.True(a.t, "all", func() bool { return e.runs(one) && e.runs(two) })
	require.Equal(t, map[string]string{"a": one.Version(), "b": two.Version()}, a.adapted(),
		"versions stay the operator's")
	o.apply(cluster(t, "c", 13))
	eventually.True(a.t, "refusal", func() bool {
		state, reason := o.state(cluster(t, "c", 13))
		return state == xds.Rejected && contains(reason, "it can't be adapted")
	})
}
