// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestRemovalInAnyOrder: once Mesh and operator are gone, the node proxies go, whichever of the two went first, and
// though no operator runs any more. Each keeps them while it is there.
func TestRemovalInAnyOrder(t *testing.T) {
	cfg := shared.Config(t)
	collectGarbage(t, cfg)
	for name, operatorFirst := range map[string]bool{"the Mesh first": false, "the operator first": true} {
		t.Run(name, func(t *testing.T) {
			o := start(t, cfg)
			ctx := context.Background()
			d := operatorDeployment(o.system)
			o.create(d)
			ns := o.namespace("auto-")
			o.automatic[ns] = true
			mesh := o.mesh()
			o.automaticChanged.Notify(types.NamespacedName{Name: ns})
			ds := get(o, "the DaemonSet appears", o.system, names.NodeDaemonSet, exists[*appsv1.DaemonSet])
			class := get(o, "the class appears", "", names.WaypointClass, exists[*gwv1.GatewayClass])
			get(o, "a waypoint appears", ns, names.AutomaticWaypoint, exists[*appsv1.Deployment])
			require.ElementsMatch(t, []string{"Mesh", "Deployment"}, owners(ds))
			for _, p := range deploy.Policies(o.system) {
				require.NoError(t, o.Get(ctx, client.ObjectKeyFromObject(p), p))
				require.ElementsMatch(t, []string{"Mesh", "Namespace"}, owners(p))
			}
			o.stop()

			first, second := client.Object(mesh), client.Object(d)
			if operatorFirst {
				first, second = second, first
			}
			require.NoError(t, o.Delete(ctx, first))
			require.NoError(t, o.gone(first))
			get(o, "the owner that is gone is dropped", o.system, names.NodeDaemonSet, func(ds *appsv1.DaemonSet) error {
				if ds.DeletionTimestamp != nil || len(ds.OwnerReferences) > 1 {
					return errors.New("not yet")
				}
				return nil
			})
			require.NoError(t, o.Delete(ctx, second))
			require.NoError(t, o.gone(second))
			eventually.NoError(o.t, "the DaemonSet goes", func() error { return o.gone(ds) })
			eventually.NoError(o.t, "the class goes", func() error { return o.gone(class) })
		})
	}
}

// TestMeshAfterMesh: a Mesh that is created before all of the former one is gone takes over what is left.
func TestMeshAfterMesh(t *testing.T) {
	o := start(t, shared.Config(t))
	o.create(operatorDeployment(o.system))
	former := o.mesh()
	get(o, "the DaemonSet appears", o.system, names.NodeDaemonSet, exists[*appsv1.DaemonSet])
	o.tell(func() { o.reports = []controllers.NodeReport{{Node: "a", Captured: 1}} }, o.nodesChanged, meshName)
	require.NoError(t, o.Delete(context.Background(), former))
	mesh := o.mesh()
	get(o, "it has the new owner", o.system, names.NodeDaemonSet, func(ds *appsv1.DaemonSet) error {
		if ref := metav1.GetControllerOf(ds); ds.DeletionTimestamp != nil || ref == nil || ref.UID != mesh.UID {
			return errors.New("not yet")
		}
		return nil
	})
	// A Mesh of an earlier version had a finalizer, which its operator would have removed.
	change(o, "", names.Mesh, func(m *v1alpha1.Mesh) { m.Finalizers = []string{"fairway.dev/node-proxies"} })
	o.tell(func() { o.reports = nil }, o.nodesChanged, meshName)
	finishDaemonSet(o)
	eventually.NoError(o.t, "the Mesh goes", func() error { return o.gone(mesh) })
}

func operatorDeployment(namespace string) *appsv1.Deployment {
	labels := map[string]string{names.LabelComponent: names.ComponentOperator}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: names.OperatorDeployment},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "operator", Image: "x"}}},
			},
		},
	}
}

func owners(obj client.Object) []string {
	var out []string
	for _, ref := range obj.GetOwnerReferences() {
		out = append(out, ref.Kind)
	}
	return out
}

// collectGarbage runs Kubernetes' own garbage collector until the test ends.
func collectGarbage(t *testing.T, cfg *rest.Config) {
	t.Helper()
	bin, err := apiserver.BinDir()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	require.NoError(t, clientcmd.WriteToFile(*config, path))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kube-controller-manager"), "--kubeconfig="+path,
		"--controllers=garbage-collector-controller", "--leader-elect=false", "--secure-port=0")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Wait() // the test's context has ended it
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Log(string(said))
		}
	})
}
