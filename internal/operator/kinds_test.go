// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/cluster"
)

// plurals that apimachinery guesses wrong.
var plurals = map[string]string{"Gateway": "gateways", "Mesh": "meshes", "ProxyParameters": "proxyparameters"}

// TestKindsHaveRights: what the table of kinds says is read, the operator's scheme knows and its role may read; and
// where the mesh says something of what an object attaches to, it may write the status.
func TestKindsHaveRights(t *testing.T) {
	raw, err := os.ReadFile("../../config/rbac/role.yaml")
	require.NoError(t, err)
	var role rbacv1.ClusterRole
	require.NoError(t, yaml.UnmarshalStrict(raw, &role))
	may := func(verb, group, resource string) bool {
		return slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Verbs, verb) && slices.Contains(r.APIGroups, group) &&
				slices.Contains(r.Resources, resource)
		})
	}
	for _, kind := range cluster.Kinds() {
		gvk, err := apiutil.GVKForObject(kind.New(), scheme())
		require.NoError(t, err)
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		if own, ok := plurals[gvk.Kind]; ok {
			resource.Resource = own
		}
		for _, verb := range []string{"get", "list", "watch"} {
			require.True(t, may(verb, gvk.Group, resource.Resource), "%s %s", verb, resource)
		}
		if kind.Attaches() {
			status := resource.Resource + "/status"
			require.True(t, may("update", gvk.Group, status) || may("patch", gvk.Group, status), "%s", status)
		}
	}
}
