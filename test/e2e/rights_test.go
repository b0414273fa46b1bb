// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestRightsForTheUsersCommands: the roles of docs/troubleshooting.md suffice for what it says of them.
func TestRightsForTheUsersCommands(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.captured("client")
	// Names of this test's own, so that it takes away nobody's rights in the end.
	const documented = "fairway-status"
	text, err := os.ReadFile(filepath.Join(apiserver.Root(), "docs", "troubleshooting.md"))
	require.NoError(t, err)
	_, roles, _ := strings.Cut(string(text), "```yaml\n")
	roles, _, _ = strings.Cut(roles, "```")
	require.Contains(t, roles, "name: "+documented)
	create := func(o client.Object) {
		require.NoError(t, world.client.Create(t.Context(), o))
		t.Cleanup(func() { _ = world.client.Delete(context.Background(), o) })
	}
	for _, o := range apiserver.Objects(t, strings.ReplaceAll(roles, documented, s.name)) {
		create(o)
	}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: s.name}}
	create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metaOf(s.name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: s.name},
	})
	create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: s.name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: s.name},
	})
	config, err := clientcmd.LoadFromFile(os.Getenv("KUBECONFIG"))
	require.NoError(t, err)
	for _, user := range config.AuthInfos {
		user.Impersonate = s.name
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, file))

	// An authorizer hears of rights a moment later; what else is not well is not the matter here.
	eventually.Passes(t, "a status with all that the rights are for", func(look require.TestingT) {
		out, _, _ := fairway(t, "status", "--kubeconfig", file)
		require.Contains(look, out, "Mesh: trust domain")
		require.NotContains(look, out, "\nUnknown:")
	})
	alone, _, _ := fairway(t, "status", "-n", s.name, "--kubeconfig", file)
	require.Contains(t, alone, "Namespace "+s.name+": in the mesh")
	require.NotContains(t, alone, "\nUnknown:")
	out, _, err := fairway(t, "proxy", "listeners", "--kubeconfig", file, "-n", s.name, s.pod("client").Name)
	require.NoError(t, err)
	require.Contains(t, out, "outbound/"+string(s.pod("client").UID))
}
