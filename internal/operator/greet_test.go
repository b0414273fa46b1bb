// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestAProxyIsToldWhereItRuns by what is known of the node of its token.
func TestAProxyIsToldWhereItRuns(t *testing.T) {
	c, err := client.New(apiserver.Start(t, apiserver.Options{}), client.Options{})
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "a"},
	}}))
	require.Equal(t, metadata.Pairs("fairway-node", "n1", "fairway-zone", "a"),
		pods{c}.greet(t.Context(), xds.Proxy{Node: "n1"}))
	require.Equal(t, metadata.Pairs("fairway-node", "n2"), pods{c}.greet(t.Context(), xds.Proxy{Node: "n2"}))
}
