// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// as is a kubeconfig of a user of the API server.
func as(t *testing.T, cfg *rest.Config, user string) string {
	t.Helper()
	out := clientcmdapi.NewConfig()
	out.Clusters["c"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	out.AuthInfos["u"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, Impersonate: user,
	}
	out.Contexts["test"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	out.CurrentContext = "test"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*out, file))
	return file
}

// ran is what status prints, says and returns.
func ran(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	cmd := statusCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// shopOf makes an enrolled namespace with a Service, a route that names nothing, and a user who may view it.
func shopOf(t *testing.T, c client.Client) {
	t.Helper()
	roles, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "rbac", "user_roles.yaml"))
	require.NoError(t, err)
	for _, o := range apiserver.Objects(t, string(roles)) {
		require.NoError(t, c.Create(t.Context(), o))
	}
	subjects := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}
	}
	enrolled := map[string]string{names.LabelMesh: names.MeshEnabled, names.LabelMTLSMode: names.MTLSStrict}
	for _, o := range []client.Object{
		&v1alpha1.Mesh{ObjectMeta: object(names.Mesh, nil)},
		&corev1.Namespace{ObjectMeta: object("shop", enrolled)},
		&corev1.Namespace{ObjectMeta: object("other", enrolled)},
		&corev1.Service{
			ObjectMeta: in("shop", object("reviews", nil)),
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		},
		&corev1.Service{
			ObjectMeta: in("other", object("secret", nil)),
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: in("shop", object("viewer", nil)), Subjects: subjects("viewer"),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		},
		// With less than "view".
		&rbacv1.Role{ObjectMeta: in("shop", object("pods", nil)), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"pods", "services"}, Verbs: []string{"get", "list"}},
		}},
		&rbacv1.RoleBinding{
			ObjectMeta: in("shop", object("pods", nil)), Subjects: subjects("pods"),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "pods"},
		},
	} {
		require.NoError(t, c.Create(t.Context(), o), o.GetName())
	}
	// What the controller manager would do, which doesn't run here.
	const aggregated = "rbac.authorization.k8s.io/aggregate-to-view"
	var parts rbacv1.ClusterRoleList
	require.NoError(t, c.List(t.Context(), &parts, client.MatchingLabels{aggregated: "true"}))
	require.Greater(t, len(parts.Items), 1)
	view := &rbacv1.ClusterRole{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: "view"}, view))
	for _, p := range parts.Items {
		view.Rules = append(view.Rules, p.Rules...)
	}
	require.NoError(t, c.Update(t.Context(), view))
}

// does is what a command prints, says and returns.
func does(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	root := Root(&cobra.Command{Use: "fairway"})
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// Who may view a namespace can have its objects described, as far as that goes.
func TestDescribeWithTheRightsOfANamespacesUser(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	shopOf(t, c)
	require.NoError(t, c.Create(t.Context(), unansweredRoute("shop", "split", refersTo("", "Service", "", "reviews"))))
	pods, viewer := as(t, cfg, "pods"), as(t, cfg, "viewer")
	eventually.Passes(t, "a Service", func(look require.TestingT) { // an authorizer hears of rights later
		out, _, err := does(t, "describe", "svc/reviews", "-n", "shop", "--kubeconfig", pods)
		require.NoError(look, err)
		require.Contains(look, out, "Service shop/reviews\n  In the mesh   yes\n  Connections   direct\n")
		require.Contains(look, out, "Routes: unknown, see below")
		require.Contains(look, out, "you have no right to read the Mesh")
		require.NotContains(look, out, `User "`)
	})
	_, _, err = does(t, "describe", "route", "split", "-n", "shop", "--kubeconfig", pods)
	require.ErrorContains(t, err, "could not be asked for")
	eventually.Passes(t, "a route", func(look require.TestingT) {
		out, _, err := does(t, "describe", "route", "split", "-n", "shop", "--kubeconfig", viewer)
		require.NoError(look, err)
		require.Contains(look, out, "PARENT                 CONDITION")
		require.Contains(look, out, "you have no right to read the Mesh")
	})
	// A shell completes what the user may list, and nothing else.
	completes := func(kubeconfig string, args ...string) string {
		out, _, err := does(t, append([]string{"__complete", "--kubeconfig", kubeconfig}, args...)...)
		require.NoError(t, err)
		return out
	}
	require.Contains(t, completes(viewer, "describe", "-n", "shop", "route", ""), "split\n:4\n")
	require.Contains(t, completes(pods, "describe", "-n", "shop", "svc/"), "svc/reviews\n:4\n")
	require.Equal(t, ":4\n", completes(pods, "describe", "-n", "shop", "route", ""))
	require.Contains(t, completes(pods, "describe", ""), "httproute\n")
	require.Contains(t, completes(pods, "proxy", "clusters", "-n", "shop", "svc/"), "svc/reviews\n")
	require.Contains(t, completes(pods, "explain", "-n", "shop", "outside", ""), "service/shop/reviews\n")
	require.Contains(t, completes(as(t, cfg, ""), "status", "-n", ""), "other\nshop\n")
	require.Contains(t, completes(pods, "check", "--context", ""), "test\n")

	// An administrator is told of all, and there is nothing that could not be asked but what doesn't run here.
	out, _, err := does(t, "describe", "route", "split", "-n", "shop", "--kubeconfig", as(t, cfg, ""))
	require.NoError(t, err)
	require.NotContains(t, out, "no right")
	_, _, err = does(t, "describe", "pod", "nobody", "-n", "shop", "--kubeconfig", as(t, cfg, ""))
	require.ErrorContains(t, err, "there is no pod shop/nobody")
}

// A user of a namespace sees what is theirs, and is told in one line what is not shown.
func TestStatusWithTheRightsOfANamespacesUser(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	shopOf(t, c)
	viewer, pods := as(t, cfg, "viewer"), as(t, cfg, "pods")
	quiet := func(t require.TestingT, out, notes string, err error) {
		require.NotContains(t, out+notes, "forbidden")
		require.NotContains(t, out+notes, `User "`)
		require.NotContains(t, out+notes, "secret", "of another namespace")
		if err != nil {
			require.ErrorIs(t, err, errUnhealthy)
		}
	}

	eventually.Passes(t, "a namespace that is well", func(look require.TestingT) { // an authorizer hears of rights later
		out, notes, err := ran(t, "-n", "shop", "--kubeconfig", viewer)
		require.NoError(look, err, out+notes)
		quiet(look, out, notes, err)
		require.Contains(look, out, "Namespace shop: in the mesh, mTLS strict, outbound as the Mesh says, waypoint auto")
		require.Regexp(look, `reviews +- +direct`, out)
		require.Contains(look, out, "\nNot shown, for it takes other rights: nodes, proxies, the operator and the Mesh.\n")
	})
	eventually.Passes(t, "a namespace with the rights to look at pods and Services", func(look require.TestingT) {
		out, notes, err := ran(t, "-n", "shop", "--kubeconfig", pods)
		quiet(look, out, notes, err)
		require.Regexp(look, "\nNot shown, for it takes other rights: .*, Gateways, HTTPRoutes, GRPCRoutes, ", out)
	})

	service := unansweredRoute("shop", "without-group", refersTo("default", "Service", "", "reviews"))
	require.NoError(t, c.Create(t.Context(), service))
	eventually.Passes(t, "a route that names nothing", func(look require.TestingT) {
		out, notes, err := ran(t, "-n", "shop", "--kubeconfig", viewer)
		quiet(look, out, notes, err)
		require.Error(look, err)
		require.Contains(look, out, `for Service shop/reviews, set group to ""`)
		require.NotContains(look, out, "HTTPRoutes")
	})

	out, notes, err := ran(t, "-n", "shop", "--kubeconfig", viewer, "-o", "json")
	quiet(t, out, notes, err)
	var report namespaceReport
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Len(t, report.ProblemDetails, 1)
	require.Equal(t, "HTTPRoute shop/without-group", report.ProblemDetails[0].About)

	out, notes, err = ran(t, "-n", "other", "--kubeconfig", viewer)
	quiet(t, out, notes, err)
	require.Error(t, err)
	require.Contains(t, out, "namespace other can't be read: you have no right to")

	out, notes, err = ran(t, "--kubeconfig", viewer)
	quiet(t, out, notes, err)
	require.Error(t, err)
	require.Contains(t, out, "Mesh: unknown, see below")
	require.Contains(t, out, "or use -n NAMESPACE")

	_, notes, err = ran(t, "-n", "shop", "--kubeconfig", viewer, "--wait", "--timeout", "3s")
	require.ErrorIs(t, err, errUnhealthy)
	require.Regexp(t, `^waiting: HTTPRoute without-group: .*\n$`, notes, "said once")
	require.NoError(t, c.Delete(t.Context(), service))
	out, _, err = ran(t, "-n", "shop", "--kubeconfig", viewer, "--wait", "--timeout", "1m")
	require.NoError(t, err)
	require.Contains(t, out, "All is well")
}
