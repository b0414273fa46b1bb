// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/model"
)

func TestPortProtocol(t *testing.T) {
	for name, want := range map[string]model.Protocol{
		"http": model.ProtocolHTTP, "http-web": model.ProtocolHTTP, "grpc-web": model.ProtocolHTTP,
		"grpc-web-2": model.ProtocolHTTP,
		"grpc":       model.ProtocolHTTP2, "grpc-website": model.ProtocolHTTP2, "http2": model.ProtocolHTTP2,
		"https": model.ProtocolTLS, "tls-sni": model.ProtocolTLS, "redis-main": model.ProtocolTCP,
		"": model.ProtocolUndeclared, "web": model.ProtocolUndeclared,
	} {
		require.Equal(t, want, portProtocol(corev1.ServicePort{Name: name}), "name %q", name)
	}
	for declared, want := range map[string]model.Protocol{
		"http": model.ProtocolHTTP, "grpc-web": model.ProtocolHTTP, "kubernetes.io/ws": model.ProtocolHTTP,
		"kubernetes.io/h2c": model.ProtocolHTTP2, "GRPC": model.ProtocolHTTP2,
		"kubernetes.io/wss": model.ProtocolTLS, "https": model.ProtocolTLS, "example.org/odd": model.ProtocolTCP,
	} {
		require.Equal(t, want, portProtocol(corev1.ServicePort{Name: "http", AppProtocol: &declared}), "appProtocol %q",
			declared)
	}
}
