// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/spf13/cobra"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// headerAuthorizedFor is set on requests that pass: whom the service took for the caller.
const headerAuthorizedFor = "X-Authorized-For"

// authorizer lets all requests pass but those below some paths.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer
	refused []string
}

func authorize() *cobra.Command {
	a := &authorizer{}
	var ports []int
	cmd := &cobra.Command{
		Use: "authorize", Short: "Authorization service for proxies, by gRPC (envoy.service.auth.v3) and by HTTP",
		Long: "Say of requests whether they may pass, at one port by gRPC (envoy.service.auth.v3) and by HTTP, where 200\n" +
			"is yes and 403 no. What passes has the header " + headerAuthorizedFor + ": the caller, as the proxy names it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listenAll(cmd.Context(), a.handler(), ports, "")
		},
	}
	cmd.Flags().IntSliceVar(&ports, "port", []int{8080}, "port to listen on (repeatable)")
	cmd.Flags().StringArrayVar(&a.refused, "refuse", nil, "paths that begin so may not pass (repeatable)")
	return cmd
}

func (a *authorizer) handler() http.Handler {
	byGRPC := grpc.NewServer()
	authv3.RegisterAuthorizationServer(byGRPC, a)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			byGRPC.ServeHTTP(w, r)
			return
		}
		w.Header().Set(headerAuthorizedFor, r.Header.Get("X-Forwarded-Client-Cert"))
		if !a.passes(r.URL.Path) {
			w.WriteHeader(http.StatusForbidden)
		}
	})
}

func (a *authorizer) passes(path string) bool {
	return !slices.ContainsFunc(a.refused, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

// Check implements envoy.service.auth.v3.
func (a *authorizer) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	about := r.GetAttributes()
	if !a.passes(about.GetRequest().GetHttp().GetPath()) {
		return &authv3.CheckResponse{
			Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
			}},
		}, nil
	}
	return &authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{
				Key: headerAuthorizedFor, Value: about.GetSource().GetPrincipal(),
			}}},
		}},
	}, nil
}
