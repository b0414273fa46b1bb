// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package xdsauth authenticates xDS streams by the bearer token of the proxy's pod.
package xdsauth

import (
	"context"
	"errors"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Authenticator implements xds.Authenticator. Errors carry a gRPC status.
type Authenticator struct {
	Callers interface {
		Caller(ctx context.Context, token string, peer netip.Addr) (auth.Caller, error)
	}
	Scopes interface {
		Scope(c auth.Caller) (auth.Grant, error)
	}
}

// Authenticate takes the token from the metadata "authorization: Bearer <token>" of the stream.
func (a *Authenticator) Authenticate(ctx context.Context) (xds.Proxy, error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	caller, err := a.Callers.Caller(ctx, auth.Bearer(md.Get("authorization")), accept.Address(from))
	if err != nil {
		return xds.Proxy{}, toStatus(err)
	}
	grant, err := a.Scopes.Scope(caller)
	if err != nil {
		return xds.Proxy{}, toStatus(err)
	}
	return xds.Proxy{
		Scope:   grant.Scope,
		Pod:     caller.Namespace + "/" + caller.PodName,
		PodUID:  caller.PodUID,
		Node:    caller.NodeName,
		Address: from,
	}, nil
}

func toStatus(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, auth.ErrUnauthenticated):
		code = codes.Unauthenticated
	case errors.Is(err, auth.ErrForbidden):
		code = codes.PermissionDenied
	case errors.Is(err, auth.ErrUnavailable):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}
