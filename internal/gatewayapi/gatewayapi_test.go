// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/version"
)

func crds(bundle, channel string) CRDs {
	return Of(map[string]string{
		"gateway.networking.k8s.io/bundle-version": bundle, "gateway.networking.k8s.io/channel": channel,
	})
}

func TestReleases(t *testing.T) {
	for bundle, want := range map[string]struct{ known, older, newer bool }{
		"v1.5.9": {known: true, older: true}, "v0.8.1": {known: true, older: true},
		"v1.6.0": {known: true}, "v1.6.3": {known: true}, "v1.7.0": {known: true}, "v1.7.4-rc.1": {known: true},
		"v1.8.0": {known: true, newer: true}, "v2.0.0": {known: true, newer: true}, "v1.10.0": {known: true, newer: true},
		"": {}, "latest": {},
	} {
		c := crds(bundle, "standard")
		require.Equal(t, want.known, c.Known(), bundle)
		require.Equal(t, want.older, c.Older(), bundle)
		require.Equal(t, want.newer, c.Newer(), bundle)
		require.Equal(t, want.known && !want.older && !want.newer, c.Supported(), bundle)
	}
	require.False(t, Of(nil).Known())
	require.True(t, crds(Built, "standard").Supported())
	require.Equal(t, "v1.6 and v1.7", Supported)
	// What is read of later releases is as of the types that the mesh is built with: see Lacking.
	require.Equal(t, first.String(), version.MajorMinor(version.MustParseGeneric(Built).Major(),
		version.MustParseGeneric(Built).Minor()).String())
}

func TestLacking(t *testing.T) {
	require.Empty(t, crds("v1.6.3", "experimental").Lacking())
	require.Contains(t, crds("v1.6.3", "standard").Lacking(), "retry")
	require.NotContains(t, crds("v1.7.0", "standard").Lacking(), "retry", "1.7 has it in the standard channel")
	require.Contains(t, crds("v1.7.0", "standard").Lacking(), "ExternalAuth, XBackends and XBackendTrafficPolicies")
	require.Contains(t, crds("v1.7.0", "experimental").Lacking(), "the fields that v1.6 has")
}
