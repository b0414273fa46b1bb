// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestEveryAddressOfAPod is captured, also those that nobody told the mesh of: no other one leads past the proxy.
func TestEveryAddressOfAPod(t *testing.T) {
	pod, peer := podAndPeer(t)
	for _, a := range []string{"10.244.0.4/24", "fd00:244::4/64", "fe80::4/64"} {
		netnstest.Address(t, pod, "eth0", netip.MustParsePrefix(a))
	}
	netnstest.Address(t, peer, "eth0", netip.MustParsePrefix("fe80::1/64"))
	netnstest.Sysctl(t, pod, "net/ipv6/conf/all/forwarding", "1") // it has the subnet's anycast address, too
	says(t, pod, fmt.Sprintf(":%d", names.PortInbound), "the proxy")
	require.NoError(t, Apply(pod, testPod))
	for _, to := range []string{"10.244.0.3", "10.244.0.4", "[fd00:244::3]", "[fd00:244::4]", "[fe80::4%eth0]"} {
		word, err := ask(peer, to+":8080", nil)
		require.NoError(t, err, to)
		require.Equal(t, "the proxy", word, to)
		_, err = ask(peer, fmt.Sprintf("%s:%d", to, names.PortInbound), nil)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "%s: nobody dials the proxy's own port", to)
	}
	_, err := ask(peer, "[fd00:244::]:8080", nil)
	require.Error(t, err, "anycast")
	word, err := ask(pod, "[::ffff:10.244.0.1]:80", nil)
	require.NoError(t, err)
	require.Equal(t, "the proxy", word, "an address of IPv4 that is written as one of IPv6")
}
