// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xdsauth_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
	"github.com/fairway-mesh/fairway/internal/identity/xdsauth"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

var _ xds.Authenticator = (*xdsauth.Authenticator)(nil)

func TestAuthenticate(t *testing.T) {
	c := identitytest.NewCluster(nil)
	a := &xdsauth.Authenticator{
		Callers: auth.NewAuthenticator(c, nil, nil),
		Scopes:  &auth.Authorizer{SystemNamespace: names.SystemNamespace, Pods: c, Workloads: c, Waypoint: c.Waypoint},
	}
	token := c.Token(identitytest.NodeAgent("n1"), time.Hour)
	pod := auth.Pod{Namespace: "shop", Name: "cart", UID: "u", Node: "n1", ServiceAccount: "cart"}
	c.Run(pod)
	app := c.Token(auth.Caller{Namespace: "shop", ServiceAccount: "cart", PodName: "cart", PodUID: "u", NodeName: "n1"},
		time.Hour)
	for _, tc := range []struct {
		name   string
		header []string
		code   codes.Code
	}{
		{"good", []string{"authorization", "Bearer " + token}, codes.OK},
		{"none", nil, codes.Unauthenticated},
		{"wrong", []string{"authorization", "Bearer x"}, codes.Unauthenticated},
		{"no scheme", []string{"authorization", token}, codes.Unauthenticated},
		{"basic", []string{"authorization", "Basic " + token}, codes.Unauthenticated},
		{"two", []string{"authorization", "Bearer " + token, "authorization", "Bearer " + token}, codes.Unauthenticated},
		{"an application's", []string{"authorization", "Bearer " + app}, codes.PermissionDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(tc.header...))
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}})
			p, err := a.Authenticate(ctx)
			assert.Equal(t, tc.code, status.Code(err))
			if tc.code == codes.OK {
				assert.Equal(t, xds.Proxy{
					Scope: "node/n1", Pod: "fairway-system/fairway-node-n1", PodUID: "uid-agent-n1", Node: "n1", Address: "10.0.0.1:7",
				}, p)
			}
		})
	}
	c.SetDown(true)
	ctx := metadata.NewIncomingContext(
		t.Context(), metadata.Pairs("authorization", "Bearer "+c.Token(identitytest.NodeAgent("n2"), time.Hour)))
	_, err := a.Authenticate(ctx)
	require.Equal(t, codes.Unavailable, status.Code(err))
}
