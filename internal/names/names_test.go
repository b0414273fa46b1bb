// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsersInvert(t *testing.T) {
	for prefix, name := range map[string]string{
		"service":  ServicePort("a", "b", 80),
		"waypoint": WaypointEndpoints("a", "b", 80),
	} {
		ns, svc, port, ok := ParseServicePort(name, prefix)
		require.True(t, ok, name)
		require.Equal(t, []any{"a", "b", uint16(80)}, []any{ns, svc, port})
		_, _, _, ok = ParseServicePort(name, "other")
		require.False(t, ok)
	}
	for _, ipv6 := range []bool{false, true} {
		ns, svc, port, v6, ok := ParseNodeEndpoints(NodeEndpoints("a", "b", 80, ipv6))
		require.Equal(t, []any{"a", "b", uint16(80), ipv6, true}, []any{ns, svc, port, v6, ok})
	}
	_, _, _, _, ok := ParseNodeEndpoints(WaypointEndpoints("a", "b", 80))
	require.False(t, ok)
	ns, svc, port, ok := ParseInboundCluster(InboundCluster("a", "b", 80))
	require.Equal(t, []any{"a", "b", uint16(80), true}, []any{ns, svc, port, ok})
	for _, bad := range []string{"inbound/80.b", "inbound/80.b.a.c", "inbound/80..a", "80.b.a", "inbound/99999.b.a"} {
		_, _, _, ok = ParseInboundCluster(bad)
		require.False(t, ok, bad)
	}
	ns, pod, ok := ParsePodAuthorization(PodAuthorization("a", "b"))
	require.Equal(t, []any{"a", "b", true}, []any{ns, pod, ok})
	for _, bad := range []string{AuthorizationTCP, "authorization/a/", "authorization//b", "authorization/a/b/c", "a/b"} {
		_, _, ok = ParsePodAuthorization(bad)
		require.False(t, ok, bad)
	}
	td, ns, sa, ok := ParseSPIFFEID(SPIFFEID("example.org", "a", "b"))
	require.True(t, ok)
	require.Equal(t, [3]string{"example.org", "a", "b"}, [3]string{td, ns, sa})
}

// FuzzParsers: names come from proxies, so no string may make a parser panic or take a name apart that it would not
// put together the same way.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{
		"service/a/b/80", "waypoint/a/b", "node/n", "inbound/80.b.a", "spiffe://t/ns/a/sa/b",
		"service/a/b/99999", "///",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if td, ns, sa, ok := ParseSPIFFEID(s); ok {
			require.Equal(t, s, SPIFFEID(td, ns, sa))
		}
		if ns, pod, ok := ParsePodAuthorization(s); ok {
			require.Equal(t, s, PodAuthorization(ns, pod))
		}
		_, _, _, _ = ParseInboundCluster(s)
		_, _, _, _ = ParseServicePort(s, "service")
	})
}
