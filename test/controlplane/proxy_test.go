// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// proxy is a client that takes all that a proxy would, follows what it names, and accepts everything at once.
type proxy struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

	sending sync.Mutex
	asked   map[xds.ID]bool
	// told is told of every resource, on the goroutine that receives.
	told func(*discoveryv3.Resource)
}

// connect opens the stream of a pod's proxy to a replica, with a token of the pod's as kubelet gets it.
func (w *world) connect(r *replica, pod *corev1.Pod, told func(*discoveryv3.Resource)) *proxy {
	t := w.t
	t.Helper()
	token, err := apiserver.Token(t.Context(), w, pod)
	require.NoError(t, err)
	conn, err := grpc.NewClient("passthrough:///operator",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.dial(ctx, names.PortXDS) }),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			InsecureSkipVerify: true, // it is the operator that this test started
		})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	p := &proxy{t: t, asked: map[xds.ID]bool{}, told: told}
	p.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(
		metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token))
	require.NoError(t, err)
	_, err = p.stream.Header()
	require.NoError(t, err)
	go p.take()
	return p
}

// want asks for resources that it has not asked for yet.
func (p *proxy) want(typeURL string, resources ...string) {
	p.sending.Lock()
	defer p.sending.Unlock()
	var fresh []string
	for _, name := range resources {
		if id := (xds.ID{TypeURL: typeURL, Name: name}); !p.asked[id] {
			p.asked[id] = true
			fresh = append(fresh, name)
		}
	}
	if len(fresh) > 0 {
		_ = p.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: fresh})
	}
}

func (p *proxy) take() {
	for {
		resp, err := p.stream.Recv()
		if err != nil {
			return
		}
		p.sending.Lock()
		_ = p.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()})
		p.sending.Unlock()
		for _, r := range resp.GetResources() {
			p.told(r)
			p.follow(resp.GetTypeUrl(), r)
		}
	}
}

// follow what a resource names, as Envoy does.
func (p *proxy) follow(typeURL string, r *discoveryv3.Resource) {
	switch typeURL {
	case xds.TypeScopedRoute:
		p.want(xds.TypeRoute, r.GetName())
	case xds.TypeCluster:
		var c clusterv3.Cluster
		if r.GetResource().UnmarshalTo(&c) == nil && c.GetType() == clusterv3.Cluster_EDS {
			name := c.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = c.GetName()
			}
			p.want(xds.TypeEndpoint, name)
		}
	}
}
