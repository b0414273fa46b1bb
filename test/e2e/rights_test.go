// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestRightsForTheUsersCommands: the roles of docs/troubleshooting.md suffice for what it says of them.
func TestRightsForTheUsersCommands(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	s := enrolled(t)
	s.client("client")
	s.captured("client")
	// Names of this test's own, so that it takes away nobody's rights in the end.
	const documented = "fairway-status"
	text, err := os.ReadFile(filepath.Join(apiserver.Root(), "docs", "troubleshooting.md"))
	g.Expect(err).NotTo(HaveOccurred())
	_, roles, _ := strings.Cut(string(text), "```yaml\n")
	roles, _, _ = strings.Cut(roles, "```")
	g.Expect(roles).To(ContainSubstring("name: " + documented))
	create := func(o client.Object) {
		g.Expect(world.client.Create(t.Context(), o)).To(Succeed())
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
	g.Expect(err).NotTo(HaveOccurred())
	for _, user := range config.AuthInfos {
		user.Impersonate = s.name
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(clientcmd.WriteToFile(*config, file)).To(Succeed())

	g.Eventually(func(g Gomega) { // an authorizer hears of rights a moment later; what else is not well is not the matter here
		out, _, _ := fairway(t, "status", "--kubeconfig", file)
		g.Expect(out).To(ContainSubstring("Mesh: trust domain"))
		g.Expect(out).NotTo(ContainSubstring("Could not be found out"))
	}).Should(Succeed())
	out, _, err := fairway(t, "proxy", "listeners", "--kubeconfig", file, "-n", s.name, s.pod("client").Name)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(ContainSubstring("outbound/" + string(s.pod("client").UID)))
}
