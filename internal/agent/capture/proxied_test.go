// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// TestEndProxied: the connections that are named end and no others, of either IP family. One that is gone is nobody's,
// and leaves the socket alone that listens where it was.
func TestEndProxied(t *testing.T) {
	pod, peer := netnstest.Linked(t,
		[]string{"10.244.0.1/24", "fd00:244::1/64"}, []string{"10.244.0.2/24", "fd00:244::2/64"})
	netnstest.Echo(t, pod, "0.0.0.0:15008")
	netnstest.Echo(t, pod, "[::]:15006")
	leg := func(o opened) Leg { // as the pod has it
		local, remote := addrPortOf(o.RemoteAddr()), addrPortOf(o.LocalAddr())
		return Leg{Local: local, Remote: remote}
	}
	ends := map[string]opened{
		"IPv4":                          open(t, peer, "", "10.244.0.1:15008"),
		"IPv4, to a socket of both":     open(t, peer, "", "10.244.0.1:15006"),
		"IPv6":                          open(t, peer, "", "[fd00:244::1]:15006"),
		"the second of two, all by one": open(t, peer, "", "10.244.0.1:15008"),
	}
	stays := []opened{
		open(t, peer, "", "10.244.0.1:15008"), open(t, peer, "", "[fd00:244::1]:15006"), open(t, pod, "", "10.244.0.1:15008"),
	}
	named := []Proxied{
		{Caller: leg(ends["IPv4"]), Application: leg(ends["the second of two, all by one"])},
		{Caller: leg(ends["IPv4, to a socket of both"])},
		{Caller: leg(ends["IPv6"])},
		{},
	}
	n, err := EndProxied(pod, named)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	for name, o := range ends {
		require.Error(t, o.say(), name)
	}
	for range 2 {
		n, err = EndProxied(pod, append(named, Proxied{
			Caller: Leg{netip.MustParseAddrPort("10.244.0.1:15008"), netip.MustParseAddrPort("10.244.0.2:1")},
			Application: Leg{
				netip.MustParseAddrPort("[fd00:244::1]:15006"), netip.MustParseAddrPort("[fd00:244::2]:1"),
			},
		}))
		require.NoError(t, err)
		require.Zero(t, n, "they are gone")
	}
	for _, o := range stays {
		require.NoError(t, o.say())
	}
	for _, to := range []string{"10.244.0.1:15008", "[fd00:244::1]:15006"} {
		require.NoError(t, open(t, peer, "", to).say(), "it still listens")
	}
}

func addrPortOf(a interface{ String() string }) netip.AddrPort {
	return netip.MustParseAddrPort(a.String())
}
