// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/deploy"
)

// A namespace that judges its pods by an old version of the Pod Security Standards gets a waypoint that it admits.
func TestSendBuffers(t *testing.T) {
	for pinned, want := range map[string]bool{
		"": true, "latest": true, "v1.33": true, "v1.32": true, "v1.31": false, "v1.0": false, "nonsense": true,
	} {
		namespace := &corev1.Namespace{}
		namespace.Labels = map[string]string{"pod-security.kubernetes.io/enforce-version": pinned}
		require.Equal(t, want, deploy.SendBuffers(namespace), pinned)
	}
	require.True(t, deploy.SendBuffers(&corev1.Namespace{}))
}
