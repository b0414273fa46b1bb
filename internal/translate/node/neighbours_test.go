// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/google/cel-go/cel"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// asked is a filter that is evaluated as Envoy does.
type asked []struct {
	key         string
	unlessEmpty bool
	program     cel.Program
}

func read(t *testing.T, filter *netstatev3.Config) (out asked) {
	t.Helper()
	env, err := cel.NewEnv()
	require.NoError(t, err)
	for _, v := range filter.GetOnNewConnection() {
		expression, ok := strings.CutPrefix(v.GetFormatString().GetTextFormatSource().GetInlineString(), "%CEL(")
		require.True(t, ok)
		require.Less(t, len(expression), 100_000, "what Envoy's parser takes")
		ast, issues := env.Parse(strings.TrimSuffix(expression, ")%"))
		require.NoError(t, issues.Err())
		program, err := env.Program(ast)
		require.NoError(t, err)
		out = append(out, asked{{v.GetObjectKey(), v.GetSkipIfEmpty(), program}}...)
	}
	return out
}

// of a connection: what becomes of it.
func (a asked) of(t *testing.T, caller Pod, dialled, turn string) map[string]string {
	t.Helper()
	state := map[string]any{names.FilterStateTurn: []byte(turn), names.FilterStateNeighbour: []byte{}}
	out := map[string]string{}
	for _, v := range a {
		result, _, err := v.program.Eval(map[string]any{
			"filter_state": state, "destination": map[string]any{"address": dialled},
			"xds": map[string]any{"filter_chain_name": outbound(caller).GetFilterChains()[0].GetName()},
		})
		require.NoError(t, err)
		said := fmt.Sprintf("%s", result.Value())
		if said != "" || !v.unlessEmpty {
			state[v.key], out[v.key] = []byte(said), said
		}
	}
	return out
}

func neighbourPods(n int) (out []Pod) {
	for i := range n {
		out = append(out, Pod{
			UID: fmt.Sprint("uid-", i), Namespace: "shop", Name: fmt.Sprint("pod-", i), Netns: fmt.Sprint("/netns/", i),
			IPs:      []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})},
			Identity: fmt.Sprint("spiffe://cluster.local/ns/shop/sa/", i), Neighbours: true,
		})
	}
	return out
}

// TestEveryWayIsFound: each address leads to its pod, for each caller but that pod; and no other leads anywhere.
func TestEveryWayIsFound(t *testing.T) {
	pods := neighbourPods(MostWays + 10)
	var ways []Way
	for i := range pods {
		ways = append(ways, Way{
			Dialled: fmt.Sprintf("10.96.%d.%d:80", i>>8, i&0xff),
			To:      []Neighbour{{Pod: &pods[i], At: netip.AddrPortFrom(pods[i].IPs[0], 8080)}},
		})
	}
	filter := read(t, Neighbours(pods, ways))
	found := 0
	for i, w := range ways {
		caller := pods[(i+1)%len(pods)]
		said := filter.of(t, caller, w.Dialled, "8")
		if said[names.FilterStateNeighbour] == "" {
			continue // one too many
		}
		found++
		require.Equal(t, w.To[0].At.String(), said[names.FilterStateNeighbour])
		require.Equal(t, pods[i].Namespace+"/"+pods[i].Name, said[names.FilterStatePod])
		require.Equal(t, pods[i].Identity, said[names.FilterStateDestination])
		require.Equal(t, pods[i].Netns, said["envoy.network.upstream_bind_override.network_namespace"])
		require.Equal(t, map[string]string{names.FilterStateNeighbour: ""}, filter.of(t, pods[i], w.Dialled, "8"), "oneself")
	}
	require.Equal(t, MostWays, found)
	none := map[string]string{names.FilterStateNeighbour: ""}
	for _, dialled := range []string{"", "10.96.0.1:8", "10.96.0.1:800", "9.0.0.0:1", "[fd00::1]:80"} {
		require.Equal(t, none, filter.of(t, pods[0], dialled, "8"), dialled)
	}
	require.Equal(t, none, filter.of(t, neighbourPods(MostWays + 11)[MostWays+10], ways[0].Dialled, "8"),
		"one that isn't captured yet")
	require.Empty(t, Neighbours(pods, nil).GetOnNewConnection())
}

// TestTurns: of several neighbours each has its part.
func TestTurns(t *testing.T) {
	pods := neighbourPods(4)
	w := Way{Dialled: "10.96.0.1:80"}
	for i := range 3 {
		w.To = append(w.To, Neighbour{Pod: &pods[i], At: netip.AddrPortFrom(pods[i].IPs[0], 8080)})
	}
	filter, seen := read(t, Neighbours(pods, []Way{w})), map[string]int{}
	for turn := range 256 {
		said := filter.of(t, pods[3], w.Dialled, fmt.Sprintf("%02x000000-0000-4000-8000-000000000000", turn))
		seen[said[names.FilterStateNeighbour]]++
	}
	require.Equal(t, map[string]int{"10.244.0.0:8080": 86, "10.244.0.1:8080": 85, "10.244.0.2:8080": 85}, seen)
}

// TestManyNeighbours: Envoy takes the filter however many neighbours there are. Where they are too many, addresses are
// left out that lead to more than others.
func TestManyNeighbours(t *testing.T) {
	binary := xdstest.Binary(t)
	for _, c := range []struct{ onNode, services, pods, left int }{
		{250, 1, 250, 1}, {250, MostWays, 3, MostWays}, {250, MostWays, 40, 10}, {3000, MostWays, 3, MostWays},
	} {
		t.Run(fmt.Sprintf("%d pods, %d Services of %d", c.onNode, c.services, c.pods), func(t *testing.T) {
			pods := neighbourPods(c.onNode)
			for i := range pods {
				pods[i].UID, pods[i].Name = fmt.Sprintf("5b1e7c5e-0000-4000-8000-%012d", i), fmt.Sprintf("cart-7d9f8b6c5d-%05d", i)
				pods[i].Netns = "/var/run/netns/cni-" + pods[i].UID
			}
			to := func(address string, pods []Pod) (w Way) {
				w.Dialled = address
				for i := range pods {
					w.To = append(w.To, Neighbour{Pod: &pods[i], At: netip.AddrPortFrom(pods[i].IPs[0], 8080)})
				}
				return w
			}
			few := to("10.97.0.1:80", pods[:1])
			ways := []Way{few}
			for i := range c.services {
				ways = append(ways, to(fmt.Sprintf("10.96.0.%d:80", i), pods[:c.pods]))
			}
			filter := Neighbours(pods, ways)
			translatetest.Validate(t, binary, bootstrap.Options{Listeners: []*listenerv3.Listener{{
				Name: "l", Address: envoy.Address(netip.MustParseAddrPort("127.0.0.1:1")),
				FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
					{Name: "neighbours", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(filter)}},
					{Name: "last", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(&tcpproxyv3.TcpProxy{
						StatPrefix: "last", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "none"},
					})}},
				}}},
			}}})
			have, left := read(t, filter), 0
			for _, w := range ways {
				if have.of(t, pods[c.onNode-1], w.Dialled, "8")[names.FilterStateNeighbour] != "" {
					left++
				}
			}
			require.GreaterOrEqual(t, left, c.left)
			require.NotEmpty(t, have.of(t, pods[c.onNode-1], few.Dialled, "8")[names.FilterStateNeighbour])
		})
	}
}
