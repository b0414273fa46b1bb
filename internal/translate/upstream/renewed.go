// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// metadataRenewed is read by nobody. A cluster that differs in it is another one to Envoy.
const metadataRenewed = "fairway.renewed"

// Renewed is a packed cluster that does the same, and replaces the one before in Envoy.
func Renewed(packed *anypb.Any, mark string) (*anypb.Any, error) {
	c := &clusterv3.Cluster{}
	if err := packed.UnmarshalTo(c); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if c.Metadata == nil {
		c.Metadata = &corev3.Metadata{}
	}
	if c.Metadata.FilterMetadata == nil {
		c.Metadata.FilterMetadata = map[string]*structpb.Struct{}
	}
	c.Metadata.FilterMetadata[metadataRenewed] = &structpb.Struct{
		Fields: map[string]*structpb.Value{"mark": structpb.NewStringValue(mark)},
	}
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, c, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.GetName(), err)
	}
	return out, nil
}

// TakesCertificates tells whether connections of a packed cluster may be in mTLS, each with its caller's certificate.
func TakesCertificates(packed *anypb.Any) bool {
	c := &clusterv3.Cluster{}
	return packed.UnmarshalTo(c) == nil && c.GetTransportSocket().GetTypedConfig().MessageIs(&tlsv3.UpstreamTlsContext{})
}
