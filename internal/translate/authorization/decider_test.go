// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"
	"testing"

	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

// asks as the agent does about a connection that is open.
func asks(c translatetest.Caller) Caller {
	if c.Identity == "" {
		return Caller{Port: c.Port}
	}
	return Caller{Identity: c.Identity, ServerName: fmt.Sprint(c.Port)}
}

// TestDecider says what guards mean, for guards and callers at random, and knows which let everybody in.
func TestDecider(t *testing.T) {
	for seed := range uint64(150) {
		some := random(seed)
		g := some.Pod()
		d, err := NewDecider(Node(g))
		require.NoError(t, err)
		for range 16 {
			c := some.Caller()
			verdict, err := d.Verdict(asks(c))
			require.NoError(t, err)
			require.Equal(t, translatetest.LetIn(g, c, false), verdict == "", "seed %d, %+v: %q", seed, c, verdict)
			if d.Open() {
				require.Empty(t, verdict)
			}
		}
	}
	for name, g := range map[string]model.PodGuard{
		"nothing": {},
		"tried": {Guard: model.Guard{Network: []model.AccessPolicy{
			tried(policy("closed", true, model.AccessRule{})),
		}}},
	} {
		d, err := NewDecider(Node(g))
		require.NoError(t, err)
		require.True(t, d.Open(), name)
	}
}

// TestDeciderOfOtherVersions: what isn't known is an error and no verdict.
func TestDeciderOfOtherVersions(t *testing.T) {
	filter := func(format string) *netstatev3.Config {
		return &netstatev3.Config{OnDownstreamTlsHandshake: []*statev3.FilterStateValue{
			envoy.FilterState(names.FilterStateVerdict, envoy.FactoryString, format, envoy.SharedNot),
		}}
	}
	for _, unknown := range []string{`source.zone == 'a' ? '' : 'far'`, `1`} {
		d, err := NewDecider(filter("%CEL(" + unknown + ")%"))
		require.NoError(t, err)
		_, err = d.Verdict(Caller{Identity: alice, ServerName: "80"})
		require.Error(t, err, unknown)
	}
	_, err := NewDecider(filter("%CEL(?)%"))
	require.Error(t, err)
	d, err := NewDecider(filter(tooLong))
	require.NoError(t, err)
	verdict, err := d.Verdict(Caller{Port: 80})
	require.NoError(t, err)
	require.Equal(t, tooLong, verdict)
}

// TestDeciderKnowsPortsByTheirNumber, however they are written.
func TestDeciderKnowsPortsByTheirNumber(t *testing.T) {
	d, err := NewDecider(Node(model.PodGuard{Guard: model.Guard{Network: []model.AccessPolicy{
		policy("metrics", false, model.AccessRule{Ports: []uint16{9090}}),
	}}}))
	require.NoError(t, err)
	for _, asked := range []string{"9090", "09090", "00009090"} {
		verdict, err := d.Verdict(Caller{Identity: alice, ServerName: asked})
		require.NoError(t, err)
		require.Empty(t, verdict, asked)
	}
	for _, asked := range []string{"9091", "+9090", " 9090", "9090x", "", "74626"} {
		verdict, err := d.Verdict(Caller{Identity: alice, ServerName: asked})
		require.NoError(t, err)
		require.NotEmpty(t, verdict, asked)
	}
}
