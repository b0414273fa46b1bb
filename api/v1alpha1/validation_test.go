// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

var server = apiserver.Shared{Options: apiserver.Options{Fairway: true}}

func TestMain(m *testing.M) { server.Main(m) }

// TestValidation applies good and bad manifests to a real API server: what can't work is refused, in words that say
// what to do.
func TestValidation(t *testing.T) {
	c := connect(t)

	mesh := func(spec string) string {
		return "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: " + spec
	}
	params := func(spec string) string {
		return "apiVersion: fairway.dev/v1alpha1\nkind: ProxyParameters\nmetadata: {name: p, namespace: default}\nspec: " +
			spec
	}
	for _, tc := range []struct {
		name, manifest string
		refused        string // part of the message; accepted where empty
	}{
		{"mesh: empty", mesh("{}"), ""},
		{"mesh: without spec", "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}", ""},
		{
			"mesh: another name", "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: other}",
			"must be named 'default'",
		},
		{"mesh: builtin", mesh("{certificates: {builtin: {}, leafLifetime: 1h}}"), ""},
		{"mesh: cert-manager", mesh("{certificates: {certManager: {issuerRef: {name: ca}}}}"), ""},
		{"mesh: external issuer", mesh(
			"{certificates: {certManager: {issuerRef: {name: ca, kind: AWSPCAIssuer, group: awspca.cert-manager.io}}}}"), ""},
		{
			"mesh: issuer of wrong kind", mesh("{certificates: {certManager: {issuerRef: {name: ca, kind: Secret}}}}"),
			"Issuer or ClusterIssuer",
		},
		{"mesh: each certificate of an issuer", mesh("{certificates: {certManager: {mode: Direct, issuerRef: {name: ca}, " +
			"trustBundleRef: {name: roots}}}}"), ""},
		{
			"mesh: each certificate, without roots",
			mesh("{certificates: {certManager: {mode: Direct, issuerRef: {name: ca}}}}"),
			"mode Direct needs trustBundleRef",
		},
		{"mesh: an intermediate, with roots", mesh("{certificates: {certManager: {issuerRef: {name: ca}, " +
			"trustBundleRef: {name: roots}}}}"), "has no trustBundleRef"},
		{"mesh: roots of the mesh's own", mesh("{certificates: {certManager: {mode: Direct, issuerRef: {name: ca}, " +
			"trustBundleRef: {name: fairway-trust-bundle}}}}"), "name a ConfigMap of yours"},
		{
			"mesh: unknown mode", mesh("{certificates: {certManager: {mode: Some, issuerRef: {name: ca}}}}"),
			"Unsupported value",
		},
		{"mesh: issuer without name", mesh("{certificates: {certManager: {issuerRef: {kind: Issuer}}}}"), "Required value"},
		{"mesh: two sources", mesh("{certificates: {builtin: {}, certManager: {issuerRef: {name: ca}}}}"), "not both"},
		{"mesh: SPIRE", mesh("{certificates: {spire: {adminSocket: /run/spire/admin/admin.sock}}}"), ""},
		{"mesh: SPIRE without a socket", mesh("{certificates: {spire: {}}}"), "Required value"},
		{"mesh: SPIRE, a socket in the root", mesh("{certificates: {spire: {adminSocket: /admin.sock}}}"), "other than /"},
		{
			"mesh: SPIRE, a path for a name",
			mesh("{certificates: {spire: {adminSocket: /run/spire/admin.sock, workloadSocket: ../admin.sock}}}"), "should match",
		},
		{
			"mesh: SPIRE and an issuer", mesh("{certificates: {certManager: {issuerRef: {name: ca}}, " +
				"spire: {adminSocket: /run/spire/admin.sock}}}"), "nobody else signs",
		},
		{
			"mesh: SPIRE and a root", mesh("{certificates: {builtin: {}, spire: {adminSocket: /run/spire/admin.sock}}}"),
			"nobody else signs",
		},
		{
			"mesh: SPIRE and lifetimes",
			mesh("{certificates: {leafLifetime: 1h, spire: {adminSocket: /run/spire/admin.sock}}}"),
			"a setting of its server",
		},
		{"mesh: short-lived", mesh("{certificates: {leafLifetime: 1m}}"), "from 10m to 720h"},
		{"mesh: not a duration", mesh("{certificates: {leafLifetime: soon}}"), "should match"},
		{"mesh: strict", mesh("{mtls: {mode: Strict}}"), ""},
		{"mesh: unknown mode", mesh("{mtls: {mode: Off}}"), "Unsupported value"},
		{"mesh: ranges", mesh("{network: {podCIDRs: [10.0.0.0/8, 'fd00::/48'], serviceCIDRs: [10.96.0.0/16]}}"), ""},
		{"mesh: not a range", mesh("{network: {podCIDRs: [10.0.0.0]}}"), "must be a CIDR"},
		{"mesh: trust domain", mesh("{trustDomain: prod.example.com}"), ""},
		{"mesh: bad trust domain", mesh("{trustDomain: 'spiffe://x'}"), "should match"},
		{"mesh: node", mesh("{node: {logLevel: debug, concurrency: 4, resources: {requests: {cpu: 50m}}, tolerations: " +
			"[{operator: Exists}]}}"), ""},
		{"mesh: paths of the nodes", mesh(
			"{node: {host: {runtimeSocket: /run/k3s/containerd/containerd.sock, cniBinDir: /var/lib/rancher/k3s/data/cni, " +
				"cniConfDir: /etc/cni/net.d, netnsDir: /var/run/netns}}}"), ""},
		{"mesh: share of a pod", mesh("{node: {addressesPerPod: 20000}}"), ""},
		{"mesh: share of a pod beyond the proxy's", mesh("{node: {addressesPerPod: 20001}}"), "less than or equal to 20000"},
		{"mesh: as many connections of a peer as of all", mesh("{node: {connectionsPerPeer: 16384}}"), ""},
		{
			"mesh: more connections of a peer than of all", mesh("{node: {connectionsPerPeer: 16385}}"),
			"less than or equal to 16384",
		},
		{"mesh: no connections of a peer", mesh("{node: {connectionsPerPeer: 0}}"), "greater than or equal to 64"},
		{"mesh: share of a pod that is none", mesh("{node: {addressesPerPod: 0}}"), "greater than or equal to 100"},
		{"mesh: connections of a node proxy live on for a day", mesh("{node: {drainTimeout: 24h}}"), ""},
		{"mesh: connections of a node proxy end with it", mesh("{node: {drainTimeout: 0s}}"), ""},
		{"mesh: connections of a node proxy live too long", mesh("{node: {drainTimeout: 24h1s}}"), "at most 24h"},
		{"mesh: relative path", mesh("{node: {host: {cniBinDir: opt/cni}}}"), "should match"},
		{"mesh: path that climbs", mesh("{node: {host: {cniConfDir: /etc/../root}}}"), "without '..'"},
		{"mesh: path that is two", mesh("{node: {host: {netnsDir: '/run/netns:/etc'}}}"), "should match"},
		{"mesh: socket in the root", mesh("{node: {host: {runtimeSocket: /cri.sock}}}"), "other than /"},
		{"mesh: bad log level", mesh("{node: {logLevel: loud}}"), "Unsupported value"},
		{"mesh: access log", mesh("{accessLog: {mode: Errors}}"), ""},
		{"parameters: empty", params("{}"), ""},
		{"parameters: replicas", params("{replicas: 3, disruptionBudget: {minAvailable: 50%}}"), ""},
		{"parameters: autoscaling", params("{autoscaling: {minReplicas: 2}, disruptionBudget: {minAvailable: 1}}"), ""},
		{"parameters: replicas and autoscaling", params("{replicas: 3, autoscaling: {}}"), "not both"},
		{"parameters: min above max", params("{autoscaling: {minReplicas: 11}}"), "must not be above"},
		{"parameters: another Envoy", params("{images: {envoy: 'registry.example:5000/envoy:distroless-v1.41.0'}}"), ""},
		{"parameters: another Envoy by digest", params("{images: {envoy: 'registry.example/envoy@sha256:1039'}}"), ""},
		{"parameters: an old Envoy", params("{images: {envoy: 'envoyproxy/envoy:distroless-v1.39.2'}}"), "1.40 or later"},
		{"parameters: an old Envoy, by tag", params("{images: {envoy: 'envoyproxy/envoy:v1.9-latest'}}"), "1.40 or later"},
		{"mesh: an old Envoy", mesh("{images: {envoy: 'envoyproxy/envoy:1.38.0@sha256:00'}}"), "1.40 or later"},
		{"mesh: images", mesh("{images: {pullSecrets: [{name: registry}]}, paused: true}"), ""},
		{"mesh: surge", mesh("{node: {maxSurge: 10%}}"), ""},
		{"mesh: SELinux", mesh("{node: {seLinuxType: spc_t}}"), ""},
		{"mesh: SELinux context", mesh("{node: {seLinuxType: 'system_u:system_r:spc_t:s0'}}"), "should match"},
		{"mesh: no surge", mesh("{node: {maxSurge: 0}}"), "at least 1"},
		{"mesh: no surge in percent", mesh("{node: {maxSurge: 0%}}"), "should match"},
		{"parameters: two budgets", params("{disruptionBudget: {minAvailable: 1, maxUnavailable: 1}}"), "exactly one of"},
		{"parameters: no budget", params("{disruptionBudget: {}}"), "exactly one of"},
		{"parameters: negative budget", params("{disruptionBudget: {minAvailable: -1}}"), "at least 0"},
		{"parameters: budget that is no number", params("{disruptionBudget: {minAvailable: half}}"), "should match"},
		{"parameters: draining", params("{drainTimeout: 2m, terminationGracePeriod: 150s}"), ""},
		{"parameters: draining too long", params("{drainTimeout: 2m, terminationGracePeriod: 1m}"), "must be shorter"},
		{"parameters: draining long", params("{drainTimeout: 2m}"), ""},
		{"parameters: killed before drained", params("{terminationGracePeriod: 10s}"), "30s unless set"},
		{"parameters: header limits", params("{headerLimits: {sizeKiB: 8192, count: 50}}"), ""},
		{
			"parameters: headers smaller than proxies can have them", params("{headerLimits: {sizeKiB: 60}}"),
			"greater than or equal to 64",
		},
		{
			"parameters: headers larger than proxies can have them", params("{headerLimits: {sizeKiB: 8193}}"),
			"less than or equal to 8192",
		},
		{"parameters: too few headers", params("{headerLimits: {count: 1}}"), "greater than or equal to 50"},
		{"parameters: labels", params("{podLabels: {team: a}, podAnnotations: {a/b: c}}"), ""},
		{
			"parameters: labels of the mesh", params("{podLabels: {fairway.dev/mesh: enabled}}"),
			"are reserved for the operator",
		},
		{
			"parameters: annotations of the mesh", params("{podAnnotations: {fairway.dev/x: z}}"),
			"are reserved for the operator",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tries(t, c, tc.manifest, tc.refused)
		})
	}
}

func connect(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(server.Config(t), client.Options{Scheme: scheme})
	require.NoError(t, err)
	return c
}

// tries creates the objects of a manifest, and deletes them. They must be refused with a message that has the text;
// accepted where it is empty.
func tries(t *testing.T, c client.Client, manifest, refused string) {
	t.Helper()
	for _, u := range apiserver.Objects(t, manifest) {
		err := c.Create(t.Context(), u)
		if err == nil {
			require.NoError(t, c.Delete(t.Context(), u))
		}
		if refused == "" {
			require.NoError(t, err)
			continue
		}
		require.Error(t, err)
		require.True(t, apierrors.IsInvalid(err), err)
		require.ErrorContains(t, err, refused)
	}
}

// TestMeshDefaultsAndTrustDomain shows what an empty Mesh is, and that its trust domain stays.
func TestMeshDefaultsAndTrustDomain(t *testing.T) {
	c := connect(t)
	ctx := context.Background()

	mesh := &v1alpha1.Mesh{}
	mesh.Name = "default"
	require.NoError(t, c.Create(ctx, mesh))
	t.Cleanup(func() { require.NoError(t, c.Delete(ctx, mesh)) })
	require.Equal(t, "cluster.local", mesh.Spec.TrustDomain)
	require.Equal(t, v1alpha1.MTLSModePermissive, mesh.Spec.MTLS.Mode)
	require.Equal(t, v1alpha1.AccessLogAll, mesh.Spec.AccessLog.Mode)
	require.Equal(t, v1alpha1.DefaultLeafLifetime, mesh.Spec.LeafLifetime())
	require.Nil(t, mesh.Spec.Certificates)

	mesh.Spec.MTLS.Mode = v1alpha1.MTLSModeStrict
	require.NoError(t, c.Update(ctx, mesh))
	mesh.Spec.TrustDomain = "example.com"
	require.ErrorContains(t, c.Update(ctx, mesh), "can't be changed")
}

// TestTheSourceOfIdentitiesStays: proxies trust one source, so that SPIRE neither comes nor goes while they run. Where
// its sockets are may change.
func TestTheSourceOfIdentitiesStays(t *testing.T) {
	c := connect(t)
	ctx := context.Background()
	for name, from := range map[string]*v1alpha1.Certificates{
		"default": nil,
		"builtin": {Builtin: &v1alpha1.BuiltinCertificates{}},
		"SPIRE":   {SPIRE: &v1alpha1.SPIRECertificates{AdminSocket: "/run/spire/admin.sock"}},
	} {
		mesh := &v1alpha1.Mesh{}
		mesh.Name = "default"
		mesh.Spec.Certificates = from
		require.NoError(t, c.Create(ctx, mesh), name)
		change := func(to *v1alpha1.Certificates) error {
			next := mesh.DeepCopy()
			next.Spec.Certificates = to
			return c.Update(ctx, next, client.DryRunAll)
		}
		spire := &v1alpha1.Certificates{SPIRE: &v1alpha1.SPIRECertificates{AdminSocket: "/run/other/admin.sock"}}
		if from != nil && from.SPIRE != nil {
			require.Equal(t, v1alpha1.DefaultWorkloadSocket, mesh.Spec.SPIRE().WorkloadSocket)
			require.NoError(t, change(spire))
			require.ErrorContains(t, change(nil), "can't be set or removed later")
			require.ErrorContains(t, change(&v1alpha1.Certificates{}), "can't be set or removed later")
		} else {
			require.NoError(t, change(&v1alpha1.Certificates{}), name)
			require.ErrorContains(t, change(spire), "can't be set or removed later", name)
		}
		require.NoError(t, c.Delete(ctx, mesh), name)
	}
}
