// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

var update = flag.Bool("update", false, "write the golden files anew")

func control() deploy.Control {
	return deploy.Control{
		Namespace: names.SystemNamespace, Image: names.Image, EnvoyImage: names.EnvoyImage, TrustDomain: "cluster.local",
	}
}

// private is with images that take a Secret to pull.
func private() deploy.Control {
	c := control()
	c.PullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	return c
}

func ofSPIRE() deploy.Control {
	c := control()
	c.SPIRE = &v1alpha1.SPIRECertificates{AdminSocket: "/run/spire/admin/admin.sock"}
	return c
}

func gateway(change func(*gwv1.Gateway)) *gwv1.Gateway {
	g := &gwv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: "waypoint", Namespace: "shop"},
		Spec: gwv1.GatewaySpec{
			GatewayClassName: names.WaypointClass,
			Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: names.Domain + "/MTLS"}},
		},
	}
	if change != nil {
		change(g)
	}
	return g
}

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// Kubelet renews the token of a pod after 80% of its life or a day, but not once the pod was told to go.
func TestTheAgentsTokenOutlivesTheDrain(t *testing.T) {
	for _, drain := range []time.Duration{
		0, time.Second, time.Minute, time.Hour, 5 * time.Hour, 8 * time.Hour, 24 * time.Hour,
	} {
		ds := deploy.Node(&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Node: &v1alpha1.Node{
			DrainTimeout: duration(drain),
		}}}, control())
		pod := ds.Spec.Template.Spec
		life := time.Duration(0)
		for _, v := range pod.Volumes {
			if v.Projected != nil {
				life = time.Duration(*v.Projected.Sources[0].ServiceAccountToken.ExpirationSeconds) * time.Second
			}
		}
		left := life - min(life*8/10, 24*time.Hour)
		require.Greater(t, left, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, drain)
		require.Greater(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, drain)
	}
}

// TestGolden compares what is applied with testdata/<case>.yaml. Refresh with -update.
func TestGolden(t *testing.T) {
	for name, objects := range map[string][]client.Object{
		"node-defaults": {deploy.Node(&v1alpha1.Mesh{}, control())},
		"node-settings": {deploy.Node(&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Node: &v1alpha1.Node{
			MaxSurge: new(intstr.FromString("10%")),
			Resources: &corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			},
			LogLevel: "debug", Concurrency: new(int32(4)), DrainTimeout: duration(24 * time.Hour),
			NodeSelector: map[string]string{"mesh": "yes"},
			Tolerations:  []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}},
		}}}, private())},
		"node-host": {deploy.Node(&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Node: &v1alpha1.Node{Host: &v1alpha1.HostPaths{
			RuntimeSocket: "/run/k3s/containerd/containerd.sock", CNIBinDir: "/var/lib/rancher/k3s/data/cni",
			CNIConfDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", NetnsDir: "/run/other/netns",
		}, SELinuxType: "spc_t"}}}, control())},
		"node-spire":     {deploy.Node(&v1alpha1.Mesh{}, ofSPIRE())},
		"waypoint-spire": deploy.Waypoint{Control: ofSPIRE(), Gateway: gateway(nil)}.Objects(),
		"waypoint-defaults": deploy.Waypoint{
			Control: control(), Gateway: gateway(nil), TrustBundle: "PEM\n", SendBuffers: true,
		}.Objects(),
		"waypoint-parameters": deploy.Waypoint{
			Control: private(), TrustBundle: "PEM\n",
			Gateway: gateway(func(g *gwv1.Gateway) {
				g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{
					Labels: map[gwv1.LabelKey]gwv1.LabelValue{
						"team": "shop", names.LabelGatewayName: "stolen", names.LabelMesh: "enabled",
					},
					Annotations: map[gwv1.AnnotationKey]gwv1.AnnotationValue{"cost-centre": "42"},
				}
			}),
			Parameters: v1alpha1.ProxyParametersSpec{
				Images:           &v1alpha1.Images{Envoy: "registry.example/envoy:distroless-v1.41.0"},
				Replicas:         new(int32(3)),
				DisruptionBudget: &v1alpha1.DisruptionBudget{MinAvailable: new(intstr.FromString("50%"))},
				Resources: &corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
				},
				NodeSelector: map[string]string{"pool": "mesh"},
				Tolerations:  []corev1.Toleration{{Key: "mesh", Operator: corev1.TolerationOpExists}},
				Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname}},
				}},
				TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
					{MaxSkew: 2, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule},
				},
				PodLabels: map[string]string{"tier": "proxy"}, PodAnnotations: map[string]string{"note": "x"},
				PriorityClassName: "high", LogLevel: "debug", Concurrency: new(int32(8)),
				TrafficDistribution: corev1.ServiceTrafficDistributionPreferSameNode,
				DrainTimeout:        duration(2 * time.Minute), TerminationGracePeriod: duration(150 * time.Second),
			},
		}.Objects(),
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			for _, o := range objects {
				u, err := deploy.ForApply(o)
				require.NoError(t, err)
				b, err := yaml.Marshal(u.Object)
				require.NoError(t, err)
				got.WriteString("---\n")
				got.Write(b)
			}
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, got.Bytes(), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String(), "refresh with: go test ./internal/deploy -update")
		})
	}
}

// TestEveryObjectIsTheGateways: whatever is deployed can be found by the Gateway's name, and no infrastructure label of
// a user turns into one of the mesh.
func TestEveryObjectIsTheGateways(t *testing.T) {
	w := deploy.Waypoint{Control: control(), Gateway: gateway(func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{
			Labels: map[gwv1.LabelKey]gwv1.LabelValue{"team": "shop", names.LabelMesh: "enabled", names.LabelManagedBy: "me"},
		}
	})}
	for _, o := range w.Objects() {
		assert.Equal(t, "shop", o.GetNamespace())
		assert.Equal(t, "waypoint", o.GetLabels()[names.LabelGatewayName], "%T", o)
		assert.Equal(t, "shop", o.GetLabels()["team"], "%T", o)
		assert.Equal(t, names.ManagedBy, o.GetLabels()[names.LabelManagedBy], "%T", o)
	}
}

func TestMergeParameters(t *testing.T) {
	class := &v1alpha1.ProxyParameters{Spec: v1alpha1.ProxyParametersSpec{
		Autoscaling: &v1alpha1.Autoscaling{MinReplicas: 2}, LogLevel: "info", DrainTimeout: duration(50 * time.Second),
		HeaderLimits: &v1alpha1.HeaderLimits{SizeKiB: 64, Count: 100},
		Images:       &v1alpha1.Images{Envoy: "a", PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}},
		PodLabels:    map[string]string{"a": "class", "b": "class"},
	}}
	own := &v1alpha1.ProxyParameters{Spec: v1alpha1.ProxyParametersSpec{
		Replicas: new(int32(3)), TerminationGracePeriod: duration(40 * time.Second), PodLabels: map[string]string{"b": "own"},
		Images: &v1alpha1.Images{Envoy: "b"},
	}}
	before := class.DeepCopy()
	got := deploy.MergeParameters(class, own)
	require.Equal(t, v1alpha1.ProxyParametersSpec{
		Replicas: new(int32(3)), LogLevel: "info", DrainTimeout: duration(50 * time.Second),
		TerminationGracePeriod: duration(40 * time.Second), HeaderLimits: &v1alpha1.HeaderLimits{SizeKiB: 64, Count: 100},
		Images:    &v1alpha1.Images{Envoy: "b", PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}},
		PodLabels: map[string]string{"a": "class", "b": "own"}, PodAnnotations: map[string]string{},
	}, got)
	require.Equal(t, before, class, "the class's parameters are shared and must not change")
	require.Equal(t, class.Spec, deploy.MergeParameters(class, nil))
	require.Equal(t, v1alpha1.ProxyParametersSpec{}, deploy.MergeParameters(nil, nil))

	// The two together would kill before the drain ends; the grace period gives way.
	for _, o := range (deploy.Waypoint{Control: control(), Gateway: gateway(nil), Parameters: got}).Objects() {
		if u, err := deploy.ForApply(o); err == nil && u.GetKind() == "Deployment" {
			b, err := yaml.Marshal(u.Object)
			require.NoError(t, err)
			require.Contains(t, string(b), "terminationGracePeriodSeconds: 60")
			require.Contains(t, string(b), "--drain-timeout=50s")
		}
	}
}

// What the user guide says to wait for comes: its selector leaves out waypoints, which are never captured.
func TestTheGuideWaitsForNoWaypoint(t *testing.T) {
	guide, err := os.ReadFile("../../docs/user-guide.md")
	require.NoError(t, err)
	waits := regexp.MustCompile(
		`kubectl wait .* pods (.*) --for=condition=`+v1alpha1.PodConditionCaptured).FindAllStringSubmatch(string(guide), -1)
	require.NotEmpty(t, waits)
	for _, wait := range waits {
		text, ok := strings.CutPrefix(wait[1], "-l ")
		require.True(t, ok, wait[0])
		selector, err := labels.Parse(strings.Trim(text, "'"))
		require.NoError(t, err)
		require.True(t, selector.Matches(labels.Set{"app": "reviews"}))
		for _, o := range (deploy.Waypoint{Control: control(), Gateway: gateway(nil)}).Objects() {
			if d, ok := o.(*appsv1.Deployment); ok {
				require.False(t, selector.Matches(labels.Set(d.Spec.Template.Labels)))
			}
		}
	}
}
