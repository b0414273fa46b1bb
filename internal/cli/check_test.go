// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/gateway-api/pkg/consts"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

func linuxNode(name, kernel, runtime string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: object(name, nil), Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}},
		Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{
			OperatingSystem: "linux", KernelVersion: kernel, ContainerRuntimeVersion: runtime,
		}},
	}
}

// gatewayAPI is the CRD that says which release is installed.
func gatewayAPI(version, channel string) *metav1.PartialObjectMetadata {
	crd := &metav1.PartialObjectMetadata{ObjectMeta: object("httproutes.gateway.networking.k8s.io", nil)}
	crd.SetGroupVersionKind(schema.GroupVersionKind{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	})
	crd.Annotations = map[string]string{
		"gateway.networking.k8s.io/bundle-version": version, "gateway.networking.k8s.io/channel": channel,
	}
	return crd
}

// allowing answers reviews of the user's rights, and knows the CRD of the Gateway API, which the scheme doesn't.
func allowing(c *cluster, crd *metav1.PartialObjectMetadata, allowed func(authorizationv1.ResourceAttributes) bool) {
	c.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
			review := o.(*authorizationv1.SelfSubjectAccessReview) //nolint:forcetypeassert // nothing else is created
			review.Status.Allowed = allowed(*review.Spec.ResourceAttributes)
			return nil
		},
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if m, ok := o.(*metav1.PartialObjectMetadata); ok {
				crd.DeepCopyInto(m)
				return nil
			}
			return w.Get(ctx, key, o, opts...)
		},
	})
}

func anything(authorizationv1.ResourceAttributes) bool { return true }

// versionless keeps golden files good from one version to the next.
func versionless(out []byte) []byte {
	out = bytes.ReplaceAll(out, []byte(consts.BundleVersion), []byte("v1.X"))
	return bytes.ReplaceAll(out, []byte(names.Version), []byte("v0.X"))
}

// drawnCheck is what people see.
func drawnCheck(t *testing.T, r checkReport) []byte {
	t.Helper()
	var out bytes.Buffer
	table := &table{out: &out}
	r.draw(table)
	require.NoError(t, table.err)
	return versionless(out.Bytes())
}

// runs is an operator or node proxy of an image.
func runs(image string) corev1.PodTemplateSpec {
	name := "agent"
	if strings.Contains(image, "operator") {
		name = "operator"
	}
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: name, Image: image}, {Name: "envoy", Image: "envoyproxy/envoy:v1"},
	}}}
}

func TestCheckOfAClusterThatHasAll(t *testing.T) {
	c := fakeCluster(t, nil, linuxNode("a", "6.8.0-40-generic", "containerd://2.0.1"),
		linuxNode("b", "5.14.0-427.el9.x86_64", "cri-o://1.33.0"),
		&appsv1.Deployment{
			ObjectMeta: in(names.SystemNamespace, object(names.OperatorDeployment, nil)),
			Spec:       appsv1.DeploymentSpec{Template: runs("registry:5000/operator:" + names.Version)},
		},
		&appsv1.DaemonSet{
			ObjectMeta: in(names.SystemNamespace, object(names.NodeDaemonSet, nil)),
			Spec:       appsv1.DaemonSetSpec{Template: runs("registry:5000/fairway@sha256:0")},
		})
	c.version = "v1.36.1"
	allowing(c, gatewayAPI(consts.BundleVersion, "experimental"), anything)
	r := check(t.Context(), c, names.SystemNamespace)
	require.True(t, r.OK)
	golden(t, "check-ok.txt", drawnCheck(t, r))
	var out bytes.Buffer
	require.NoError(t, (&outputFlag{"json"}).print(&out, r, nil))
	golden(t, "check-ok.json", versionless(out.Bytes()))
}

// found is what a report says of one thing that is checked.
func found(r checkReport, name string) checked {
	for _, c := range r.Checks {
		if c.Check == name {
			return c
		}
	}
	return checked{}
}

// TestCheckOfReleasesOfTheGatewayAPI: both that the mesh supports are well, and others are told.
func TestCheckOfReleasesOfTheGatewayAPI(t *testing.T) {
	for _, test := range []struct{ release, channel, state, found, do string }{
		{"v1.5.1", "standard", checkWarning, "v1.5.1, channel standard", "install " + gatewayapi.Built},
		{"v1.6.3", "experimental", checkOK, "v1.6.3, channel experimental", ""},
		{"v1.6.3", "standard", checkOK, "(retry, sessionPersistence, ", ""},
		{"v1.7.0", "standard", checkOK, "(sessionPersistence, ", ""},
		{"v1.7.0", "experimental", checkOK, "take the fields that v1.6 has", ""},
		{"v1.8.0", "standard", checkWarning, "v1.8.0, channel standard", "made for v1.6 and v1.7"},
		{"", "", checkWarning, "say no version", "make sure that they are of release " + gatewayapi.Built},
	} {
		c := fakeCluster(t, nil)
		c.version = "v1.36.1"
		allowing(c, gatewayAPI(test.release, test.channel), anything)
		got := found(check(t.Context(), c, names.SystemNamespace), "Gateway API")
		require.Equal(t, test.state, got.State, test.release)
		require.Contains(t, got.Found, test.found)
		require.Contains(t, got.Do, test.do)
	}
}

// letsIn is a policy for all pods with a label that lets in at ports, if any.
func letsIn(name string, ports ...networkingv1.NetworkPolicyPort) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: in("shop", object(name, nil)),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
		},
	}
	if len(ports) > 0 {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
	}
	return p
}

func at(port int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(port))}
}

func appOf(name string) *corev1.Pod {
	return pod("shop", name, "a", "", func(p *corev1.Pod) { p.Labels["app"] = name })
}

func TestCheckOfAClusterThatLacksThings(t *testing.T) {
	far := at(15000)
	far.EndPort = new(int32(15100))
	named := networkingv1.NetworkPolicyPort{Port: new(intstr.FromString("http"))}
	noRange := linuxNode("d", "6.8.0", "containerd://2.0.1")
	noRange.Spec.PodCIDRs = nil
	c := fakeCluster(t, nil, linuxNode("a", "4.18.0-553.el8", "docker://27.0"),
		linuxNode("b", "5.13.1", "containerd://2.0.1"), linuxNode("c", "5.13.1", "containerd://1.7.1-k3s1"), noRange,
		&corev1.Node{ObjectMeta: object("w", nil), Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{
			OperatingSystem: "windows",
		}}},
		&corev1.Namespace{ObjectMeta: object("shop", map[string]string{
			names.LabelMesh: names.MeshEnabled, "istio-injection": "enabled",
		})},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "legacy", Annotations: map[string]string{
			"linkerd.io/inject": "enabled",
		}}},
		&corev1.Namespace{ObjectMeta: object("out", map[string]string{"istio-injection": "disabled"})},
		appOf("shut"), letsIn("shut", at(80), named), appOf("open"), letsIn("open", at(80), far),
		appOf("closed"), letsIn("closed"), appOf("free"),
		&appsv1.Deployment{
			ObjectMeta: in(names.SystemNamespace, object(names.OperatorDeployment, nil)),
			Spec:       appsv1.DeploymentSpec{Template: runs("operator:v0.0.0-former")},
		})
	c.version = "v1.35.2"
	allowing(c, gatewayAPI("v1.4.0", "standard"), func(a authorizationv1.ResourceAttributes) bool {
		return !strings.HasPrefix(a.Resource, "clusterrole")
	})
	r := check(t.Context(), c, names.SystemNamespace)
	require.False(t, r.OK)
	golden(t, "check-lacking.txt", drawnCheck(t, r))

	older := *c
	withoutKinds(&older, "HTTPExtensionList")
	last := check(t.Context(), &older, names.SystemNamespace).Checks
	require.Equal(t, "CRDs of an older version: no HTTPExtension", last[len(last)-2].Found)

	old := *c
	old.version = "v1.32.0"
	require.Equal(t, checkFailed, check(t.Context(), &old, names.SystemNamespace).Checks[0].State)
	old.version = ""
	require.Equal(t, checkUnknown, check(t.Context(), &old, names.SystemNamespace).Checks[0].State)
}

// What can't be asked is neither there nor missing.
func TestCheckWithoutRights(t *testing.T) {
	c := fakeCluster(t, nil)
	c.version = "v1.36.0"
	c = forbidding(c, func(any) bool { return true })
	r := check(t.Context(), c, names.SystemNamespace)
	require.False(t, r.OK)
	for _, c := range r.Checks {
		switch c.Check {
		case "Kubernetes", "inside of nodes", "rights":
		default:
			assert.Equal(t, checkUnknown, c.State, c.Check)
			assert.Contains(t, c.Found, "you have no right to")
		}
	}
}

func TestTagsOfImages(t *testing.T) {
	for image, want := range map[string]string{
		"fairway.dev/fairway:v0.1.0": "v0.1.0", "registry:5000/fairway": "", "fairway@sha256:00": "",
		"fairway:v1@sha256:00": "v1", "fairway": "",
	} {
		assert.Equal(t, want, tagOf(image), image)
	}
}

// TestCheckOfARealAPIServer before and after the installation of kinds, with and without rights.
func TestCheckOfARealAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{})
	look := func(user string) (r checkReport, out string) {
		cmd := checkCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		var stdout bytes.Buffer
		cmd.SetOut(&stdout)
		cmd.SetArgs([]string{"-o", "json", "--kubeconfig", as(t, cfg, user)})
		require.ErrorIs(t, cmd.ExecuteContext(t.Context()), errUnhealthy, "there are no nodes")
		require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), filepath.Base(user))
		return r, stdout.String()
	}
	r, _ := look("")
	require.Regexp(t, `^v1\.`, found(r, "Kubernetes").Found)
	require.Equal(t, checkWarning, found(r, "Gateway API").State)
	require.Equal(t, "the mesh is not installed yet", found(r, "versions").Found)
	require.Equal(t, checkOK, found(r, "rights").State)
	require.Equal(t, checkFailed, found(r, "nodes").State)

	eventually.Passes(t, "a user without rights", func(req require.TestingT) {
		r, out := look("nobody")
		require.Equal(req, checkFailed, found(r, "rights").State)
		require.Equal(req, checkUnknown, found(r, "nodes").State)
		require.NotContains(req, out, "forbidden")
	})

	with := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	cfg = with
	r, _ = look("")
	require.Equal(t, checkOK, found(r, "Gateway API").State)
	require.Contains(t, found(r, "Gateway API").Found, "channel standard")
	require.Equal(t, "this command "+names.Version, found(r, "versions").Found)
}
