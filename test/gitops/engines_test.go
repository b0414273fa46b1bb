// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	argodiff "github.com/argoproj/argo-cd/v3/util/argo/diff"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Argo CD logs by itself what it reads.
func init() { logrus.SetOutput(io.Discard) }

const config = "../../config/gitops"

// argo is Argo CD with the health scripts of config/gitops/argocd. Its settings are read as it reads them, of the ConfigMap that
// kustomize makes.
type argo struct {
	t         *testing.T
	overrides map[string]v1alpha1.ResourceOverride
}

func newArgo(t *testing.T) argo {
	t.Helper()
	made, err := krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: types.LoadRestrictionsRootOnly, PluginConfig: types.DisabledPluginConfig(),
	}).Run(filesys.MakeFsOnDisk(), filepath.Join(config, "argocd"))
	require.NoError(t, err)
	text, err := made.AsYaml()
	require.NoError(t, err)
	settingsMap := &corev1.ConfigMap{}
	require.NoError(t, yaml.UnmarshalStrict(text, settingsMap))
	// By this label Argo CD finds its own; the one that is there already has it.
	settingsMap.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	secret := &corev1.Secret{}
	secret.Namespace, secret.Name, secret.Labels = settingsMap.Namespace, "argocd-secret", settingsMap.Labels
	manager := settings.NewSettingsManager(t.Context(), fake.NewClientset(settingsMap, secret), settingsMap.Namespace)
	overrides, err := manager.GetResourceOverrides()
	require.NoError(t, err)
	return argo{t, overrides}
}

// health is what Argo CD shows of an object; Healthy of what it has no opinion on.
func (a argo) health(obj *unstructured.Unstructured) health.HealthStatus {
	a.t.Helper()
	h, err := health.GetResourceHealth(obj, lua.ResourceHealthOverrides(a.overrides))
	require.NoError(a.t, err)
	if h == nil {
		return health.HealthStatus{Status: health.HealthStatusHealthy}
	}
	return *h
}

// differs tells whether Argo CD shows an object as OutOfSync, and with what difference.
func (a argo) differs(live, wanted *unstructured.Unstructured) string {
	a.t.Helper()
	c, err := argodiff.NewDiffConfigBuilder().
		WithDiffSettings(nil, a.overrides, false, normalizers.IgnoreNormalizerOpts{}).
		WithTracking("app.kubernetes.io/instance", string(v1alpha1.TrackingMethodAnnotation)).
		WithNoCache().
		Build()
	require.NoError(a.t, err)
	d, err := argodiff.StateDiff(a.t.Context(), live, wanted, c)
	require.NoError(a.t, err)
	if !d.Modified {
		return ""
	}
	return string(d.NormalizedLive) + "\n" + string(d.PredictedLive)
}

// flux is Flux with the expressions of config/gitops/flux, by API version and kind.
type flux struct {
	t           *testing.T
	expressions map[string]*cel.StatusEvaluator
}

func newFlux(t *testing.T) flux {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(config, "flux", "kustomization.yaml"))
	require.NoError(t, err)
	var k struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(text, &k))
	f := flux{t, map[string]*cel.StatusEvaluator{}}
	for _, e := range k.Spec.HealthCheckExprs {
		f.expressions[e.APIVersion+" "+e.Kind], err = cel.NewStatusEvaluator(&e.HealthCheckExpressions)
		require.NoError(t, err)
	}
	require.NotEmpty(t, f.expressions)
	return f
}

func (f flux) health(obj *unstructured.Unstructured) status.Status {
	f.t.Helper()
	e := f.expressions[obj.GetAPIVersion()+" "+obj.GetKind()]
	if e == nil {
		return kstatus(f.t, obj)
	}
	r, err := e.Evaluate(f.t.Context(), obj)
	if err != nil { // the status is missing, so Flux goes on waiting
		return status.UnknownStatus
	}
	return r.Status
}

// kstatus is what tools conclude that know nothing of the kind.
func kstatus(t *testing.T, obj *unstructured.Unstructured) status.Status {
	t.Helper()
	r, err := status.Compute(obj)
	require.NoError(t, err)
	return r.Status
}
