// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"net/netip"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dnscachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
)

func externalHost(name string, port uint16) model.ExternalHost {
	return model.ExternalHost{
		Name: types.NamespacedName{Namespace: "shop", Name: name}, Version: "0123456789abcdef", Host: name + ".example",
		Port: port,
	}
}

func externalCase() bundle {
	refused := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}
	secure := func(name string) model.ExternalHost {
		h := externalHost(name, 443)
		h.Secure = true
		return h
	}
	tls := &model.BackendTLS{
		Hostname: "front.pay.example", Hosts: []string{"*.pay.example"}, URIs: []string{"https://pay.example/"}, System: true,
	}
	return bundle{clusters: []*clusterv3.Cluster{
		External(model.External{ExternalHost: secure("pay"), Protocol: model.ExternalNegotiated, TLS: tls}, refused, headers),
		External(model.External{ExternalHost: secure("old"), Protocol: model.ExternalHTTP11, TLS: tls}, refused, headers),
		External(model.External{ExternalHost: secure("new"), Protocol: model.ExternalHTTP2, TLS: tls}, refused, headers),
		External(model.External{ExternalHost: externalHost("plain", 80), Protocol: model.ExternalAsCaller}, refused, headers),
	}}
}

// TestNameCaches: a proxy has so many of them and no more, whatever tenants name; and another where other ranges are
// refused, for Envoy rejects a cache that is not as it was.
func TestNameCaches(t *testing.T) {
	cache := func(e model.ExternalHost, refused ...netip.Prefix) *dnscachev3.DnsCacheConfig {
		c := External(model.External{ExternalHost: e, Protocol: model.ExternalHTTP11}, refused, headers)
		config := &dfpv3.ClusterConfig{}
		require.NoError(t, c.GetClusterType().GetTypedConfig().UnmarshalTo(config))
		return config.GetDnsCacheConfig()
	}
	known := map[string]bool{}
	for n := range 10 * nameCaches {
		known[cache(externalHost(fmt.Sprint("host-", n), 443)).GetName()] = true
	}
	require.LessOrEqual(t, len(known), nameCaches)
	require.Greater(t, len(known), nameCaches/2)
	ten := netip.MustParsePrefix("10.0.0.0/8")
	one, other := cache(externalHost("pay", 443)), cache(externalHost("pay", 443), ten)
	require.NotEqual(t, one.GetName(), other.GetName())
	require.Equal(t, other.GetName(), cache(externalHost("pay", 443), ten).GetName())
	require.Nil(t, one.GetResolvedAddressFilter())
}
