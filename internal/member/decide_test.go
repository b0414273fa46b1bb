// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

func testMesh() *v1alpha1.Mesh {
	return &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec:       v1alpha1.MeshSpec{TrustDomain: "example.org"},
		Status: v1alpha1.MeshStatus{Network: &v1alpha1.NetworkStatus{
			PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"},
		}},
	}
}

func testNamespace(labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels[labels[i]] = labels[i+1]
	}
	return ns
}

func testPod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "uid-1", Labels: map[string]string{}},
		Spec:       corev1.PodSpec{ServiceAccountName: "cart", NodeName: "node1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.244.1.5",
			PodIPs: []corev1.PodIP{{IP: "10.244.1.5"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func declares(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: "proxy", Image: "proxy",
			Ports: []corev1.ContainerPort{{ContainerPort: port}},
		})
	}
}

func labelled(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[key] = value }
}

// A pod of two IP families, in a mesh that knows the ranges of one, says what leaves in plaintext.
func TestAddressesOutsideOfTheMesh(t *testing.T) {
	mesh := testMesh()
	pod := testPod(func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00:244::5"}) })
	d := Decide(pod, testNamespace(), mesh, names.SystemNamespace)
	require.Equal(t, Capture, d.Action)
	require.Contains(t, d.Message, "Traffic to fd00:244::5 is sent in plaintext")
	mesh.Status.Network.PodCIDRs = append(mesh.Status.Network.PodCIDRs, "fd00:244::/56")
	require.NotContains(t, Decide(pod, testNamespace(), mesh, names.SystemNamespace).Message, "leaves in plaintext")
	require.NotContains(t, Decide(testPod(), testNamespace(), mesh, names.SystemNamespace).Message, "leaves")
}

func TestDecide(t *testing.T) {
	deleted := func(m *v1alpha1.Mesh) *v1alpha1.Mesh {
		m.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		return m
	}
	strictMesh, unknown := testMesh(), testMesh()
	strictMesh.Spec.MTLS.Mode = v1alpha1.MTLSModeStrict
	unknown.Status.Network = nil
	noPods, noServices := testMesh(), testMesh()
	noPods.Status.Network.PodCIDRs, noServices.Status.Network.ServiceCIDRs = nil, nil
	terminating := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }
	mirror := func(p *corev1.Pod) { p.Annotations = map[string]string{names.AnnotationMirror: "x"} }
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		ns     *corev1.Namespace
		mesh   *v1alpha1.Mesh
		action Action
		reason string
		strict bool
	}{
		"enrolled": {testPod(), testNamespace(), testMesh(), Capture, v1alpha1.PodReasonCaptured, false},
		"no Mesh":  {testPod(), testNamespace(), nil, Release, v1alpha1.PodReasonMeshAbsent, false},
		"Mesh goes": {
			testPod(), testNamespace(), deleted(testMesh()), Release, v1alpha1.PodReasonMeshAbsent,
			false,
		},
		"not labelled": {
			testPod(), testNamespace(names.LabelMesh, ""), testMesh(), Release,
			v1alpha1.PodReasonNotEnrolled, false,
		},
		"namespace disabled": {
			testPod(), testNamespace(names.LabelMesh, names.MeshDisabled), testMesh(), Release,
			v1alpha1.PodReasonNotEnrolled, false,
		},
		"namespace unknown": {testPod(), nil, testMesh(), Hold, v1alpha1.PodReasonNamespaceUnknown, false},
		"opted out": {
			testPod(labelled(names.LabelMesh, names.MeshDisabled)), testNamespace(), testMesh(),
			Release, v1alpha1.PodReasonOptedOut, false,
		},
		"pod can't opt in": {
			testPod(labelled(names.LabelMesh, names.MeshEnabled)),
			testNamespace(names.LabelMesh, ""), testMesh(), Release, v1alpha1.PodReasonNotEnrolled, false,
		},
		"no account": {
			testPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }), testNamespace(),
			testMesh(), Release, v1alpha1.PodReasonNoServiceAccount, false,
		},
		"static pod": {
			testPod(mirror), testNamespace(), testMesh(), Release,
			v1alpha1.PodReasonNoServiceAccount, false,
		},
		"host network": {
			testPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), testNamespace(), testMesh(),
			Release, v1alpha1.PodReasonHostNetwork, false,
		},
		"job that is done": {
			testPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), testNamespace(),
			testMesh(), Release, v1alpha1.PodReasonFinished, false,
		},
		"job that failed": {
			testPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), testNamespace(),
			testMesh(), Release, v1alpha1.PodReasonFinished, false,
		},
		"the mesh's own namespace": {
			testPod(func(p *corev1.Pod) { p.Namespace = names.SystemNamespace }), testNamespace(),
			testMesh(), Release, v1alpha1.PodReasonSystemNamespace, false,
		},
		"waypoint": {
			testPod(labelled(names.LabelComponent, names.ComponentWaypoint), labelled(names.LabelGatewayName, "w")),
			testNamespace(), testMesh(), Release, v1alpha1.PodReasonProxy, false,
		},
		"terminating": {
			testPod(terminating), testNamespace(), testMesh(), Hold,
			v1alpha1.PodReasonTerminating, false,
		},
		"terminating and strict": {
			testPod(terminating), testNamespace(), strictMesh, Hold,
			v1alpha1.PodReasonTerminating, true,
		},
		"terminating and opted out": {
			testPod(terminating, labelled(names.LabelMesh, names.MeshDisabled)), testNamespace(),
			testMesh(), Release, v1alpha1.PodReasonOptedOut, false,
		},
		"a port of the proxy's": {
			testPod(declares(15008)), testNamespace(), testMesh(), Release,
			v1alpha1.PodReasonReservedPort, false,
		},
		"ranges not known":         {testPod(), testNamespace(), unknown, Hold, v1alpha1.PodReasonNetworkUnknown, false},
		"ranges of pods not known": {testPod(), testNamespace(), noPods, Hold, v1alpha1.PodReasonNetworkUnknown, false},
		"ranges of Services not known": {
			testPod(), testNamespace(), noServices, Hold, v1alpha1.PodReasonNetworkUnknown,
			false,
		},
		"strict Mesh": {testPod(), testNamespace(), strictMesh, Capture, v1alpha1.PodReasonCaptured, true},
		"namespace over Mesh": {
			testPod(), testNamespace(names.LabelMTLSMode, names.MTLSPermissive), strictMesh, Capture,
			v1alpha1.PodReasonCaptured, false,
		},
		"pod over namespace": {
			testPod(labelled(names.LabelMTLSMode, names.MTLSStrict)),
			testNamespace(names.LabelMTLSMode, names.MTLSPermissive), testMesh(), Capture, v1alpha1.PodReasonCaptured, true,
		},
		"another case": {
			testPod(labelled(names.LabelMTLSMode, "Permissive")),
			testNamespace(names.LabelMTLSMode, "STRICT"), strictMesh, Capture, v1alpha1.PodReasonCaptured, false,
		},
		"no word": {
			testPod(labelled(names.LabelMTLSMode, "")), testNamespace(names.LabelMTLSMode, "Strict"),
			testMesh(), Capture, v1alpha1.PodReasonCaptured, true,
		},
		"a word that is no mode": {
			testPod(labelled(names.LabelMTLSMode, "none")),
			testNamespace(names.LabelMTLSMode, names.MTLSPermissive), testMesh(), Capture, v1alpha1.PodReasonCaptured, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(c.pod, c.ns, c.mesh, names.SystemNamespace)
			require.Equal(t, c.action, d.Action)
			require.Equal(t, c.reason, d.Reason)
			require.Equal(t, c.strict, d.Strict)
			require.NotEmpty(t, d.Message)
		})
	}
}

// TestDecideOutbound: a pod is closed by its own label, or else its namespace's, or else the Mesh.
func TestDecideOutbound(t *testing.T) {
	closedMesh := testMesh()
	closedMesh.Spec.Outbound = v1alpha1.OutboundDeny
	label := names.LabelOutbound
	for name, c := range map[string]struct {
		pod     *corev1.Pod
		ns      *corev1.Namespace
		mesh    *v1alpha1.Mesh
		closed  bool
		problem string
	}{
		"nobody says anything": {testPod(), testNamespace(), testMesh(), false, ""},
		"the Mesh":             {testPod(), testNamespace(), closedMesh, true, ""},
		"namespace over Mesh":  {testPod(), testNamespace(label, names.OutboundAllow), closedMesh, false, ""},
		"namespace closed":     {testPod(), testNamespace(label, names.OutboundDeny), testMesh(), true, ""},
		"pod over namespace": {
			testPod(labelled(label, names.OutboundAllow)), testNamespace(label, names.OutboundDeny), closedMesh, false, "",
		},
		"pod closed": {
			testPod(labelled(label, names.OutboundDeny)), testNamespace(label, names.OutboundAllow), testMesh(), true, "",
		},
		"another case": {testPod(labelled(label, "DENY")), testNamespace(label, "Allow"), testMesh(), true, ""},
		"no word":      {testPod(labelled(label, "")), testNamespace(label, "Deny"), testMesh(), true, ""},
		"a word that means nothing": {
			testPod(labelled(label, "off")), testNamespace(label, names.OutboundAllow), testMesh(), true,
			`Label fairway.dev/outbound of the pod has the unknown value "off", so outbound is closed: set allow or deny.`,
		},
		"one of the namespace": {
			testPod(), testNamespace(label, "none"), testMesh(), true,
			`Label fairway.dev/outbound of namespace shop has the unknown value "none", so outbound is closed: set allow or deny.`,
		},
		"beside a mode that means nothing": {
			testPod(labelled(label, "off"), labelled(names.LabelMTLSMode, "on")), testNamespace(), testMesh(), true,
			`Label fairway.dev/mtls-mode of the pod has the unknown value "on", so mode strict applies: set strict or permissive. ` +
				`Label fairway.dev/outbound of the pod has the unknown value "off", so outbound is closed: set allow or deny.`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(c.pod, c.ns, c.mesh, names.SystemNamespace)
			require.Equal(t, Capture, d.Action)
			require.Equal(t, c.closed, d.Closed)
			require.Equal(t, c.problem, d.Problem)
			require.True(t, strings.HasSuffix(d.Message, c.problem))
			require.Equal(t, c.closed, strings.Contains(d.Message, "Outbound is closed"))
		})
	}
	ofNode := testPod(func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault })
	require.Contains(t, Decide(ofNode, testNamespace(), closedMesh, "").Message, "dnsPolicy Default")
	require.NotContains(t, Decide(ofNode, testNamespace(), testMesh(), "").Message, "dnsPolicy")
}

// A label whose value can't be understood is said, and never lets anybody in.
func TestDecideNamesUnknownLabels(t *testing.T) {
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		ns   *corev1.Namespace
		want string
	}{
		"known": {testPod(labelled(names.LabelMesh, names.MeshEnabled)), testNamespace(names.LabelMTLSMode, "Strict"), ""},
		"mode of the pod": {
			testPod(labelled(names.LabelMTLSMode, "permisive")), testNamespace(),
			`Label fairway.dev/mtls-mode of the pod has the unknown value "permisive", so mode strict applies: set strict or permissive.`,
		},
		"mode of the namespace": {
			testPod(), testNamespace(names.LabelMTLSMode, "on"),
			`Label fairway.dev/mtls-mode of namespace shop has the unknown value "on", so mode strict applies: set strict or permissive.`,
		},
		"mesh": {
			testPod(labelled(names.LabelMesh, "Disabled")), testNamespace(),
			`Label fairway.dev/mesh of the pod has the unknown value "Disabled", which has no effect: only disabled takes a pod out of the mesh.`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(c.pod, c.ns, testMesh(), names.SystemNamespace)
			require.Equal(t, Capture, d.Action)
			require.Equal(t, c.want, d.Problem)
			require.True(t, strings.HasSuffix(d.Message, c.want))
		})
	}
}
