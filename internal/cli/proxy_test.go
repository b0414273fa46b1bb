// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testdata/*.json is what Envoy 1.40.0 answered.
var testNow = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

const testUID = "11111111-2222-3333-4444-555555555555"

// fakePods answers for pods: by pod and path, or by path alone.
type fakePods map[string]string

func (f fakePods) get(_ context.Context, pod types.NamespacedName, path string) ([]byte, error) {
	for _, key := range []string{pod.String() + path, path} {
		if answer, ok := f[key]; ok {
			return []byte(answer), nil
		}
	}
	return nil, errors.New("connection refused")
}

func fakeCluster(t *testing.T, reach reacher, objects ...client.Object) *cluster {
	t.Helper()
	scheme, err := newScheme()
	require.NoError(t, err)
	return &cluster{
		client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), reach: reach,
		namespace: "default",
	}
}

// golden compares with testdata/<name>; `go test -update` writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))
}

func TestProxyTables(t *testing.T) {
	answers := map[string]string{"config_dump": "config_dump.json", "clusters?format=json": "clusters.json"}
	for _, v := range proxyViews() {
		data, err := os.ReadFile(filepath.Join("testdata", answers[v.path]))
		require.NoError(t, err)
		section, err := v.section(data)
		require.NoError(t, err)
		for suffix, f := range map[string]filter{
			"all": {},
			"pod": {uid: testUID, account: "/ns/bookshop/sa/shop"},
		} {
			t.Run(v.name+"/"+suffix, func(t *testing.T) {
				var out bytes.Buffer
				table := &table{out: &out}
				require.NoError(t, v.draw(table, section, f, testNow))
				require.NoError(t, table.err)
				golden(t, v.name+"-"+suffix+".txt", out.Bytes())
			})
		}
		assert.Error(t, v.draw(&table{}, []byte("[1"), filter{}, testNow), v.name)
	}
}

func TestSectionsOfAnotherAnswer(t *testing.T) {
	s, err := dumpSection("SecretsConfigDump")(
		[]byte(`{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.Other"}]}`))
	require.NoError(t, err)
	assert.JSONEq(t, "{}", string(s), "Envoy leaves out what is empty")
	_, err = dumpSection("SecretsConfigDump")([]byte("upstream connect error"))
	assert.ErrorContains(t, err, "can't be read")
}

func pod(namespace, name, node, component string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "default"},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	if component != "" {
		p.Labels[names.LabelComponent], p.Labels[names.LabelManagedBy] = component, names.ManagedBy
	}
	if component == names.ComponentWaypoint {
		of := names.AutomaticWaypoint
		p.Labels[names.LabelGatewayName], p.Spec.ServiceAccountName = of, of
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: of + "-5d4f", Controller: new(true)}}
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func captured(status corev1.ConditionStatus, reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions,
			corev1.PodCondition{Type: v1alpha1.PodConditionCaptured, Status: status, Reason: reason, Message: message})
	}
}

// ofNodeA is a pod on node a that is not captured.
func ofNodeA(name, namespace, why string) target {
	return target{
		pod:    types.NamespacedName{Namespace: names.SystemNamespace, Name: "node-a"},
		filter: filter{uid: name, account: "/ns/" + namespace + "/sa/default"},
		note:   "pod " + namespace + "/" + name + " is not captured: " + why,
	}
}

func TestFindProxy(t *testing.T) {
	c := fakeCluster(t, nil,
		mesh(metav1.ConditionTrue, "Ready", ""),
		&corev1.Namespace{ObjectMeta: object("shop", map[string]string{names.LabelMesh: names.MeshEnabled})},
		&corev1.Namespace{ObjectMeta: object("other", nil)},
		pod("shop", "opted-out", "a", "", func(p *corev1.Pod) { p.Labels[names.LabelMesh] = names.MeshDisabled }),
		pod("shop", "on-the-host", "a", "", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		pod("other", "stranger", "a", ""),
		pod(names.SystemNamespace, "node-a", "a", names.ComponentNode),
		pod(names.SystemNamespace, "operator", "a", names.ComponentOperator),
		pod("shop", "waypoint", "a", names.ComponentWaypoint),
		pod("shop", "app", "a", "", captured(corev1.ConditionTrue, "Captured", ""), func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "app"
			p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
		}),
		pod("shop", "plain", "a", ""),
		pod("shop", "elsewhere", "b", ""),
		pod("shop", "pending", "", ""),
	)
	for name, want := range map[string]struct {
		target target
		says   string
	}{
		"shop/waypoint": {target: target{
			pod: types.NamespacedName{Namespace: "shop", Name: "waypoint"}, gateway: names.AutomaticWaypoint,
		}},
		"fairway-system/node-a":   {target: target{pod: types.NamespacedName{Namespace: "fairway-system", Name: "node-a"}}},
		"fairway-system/operator": {says: "is the operator, which has no proxy"},
		"shop/app": {target: target{
			pod:    types.NamespacedName{Namespace: "fairway-system", Name: "node-a"},
			filter: filter{uid: "app", account: "/ns/shop/sa/app"},
		}},
		"shop/plain": {target: target{
			pod:    types.NamespacedName{Namespace: "fairway-system", Name: "node-a"},
			filter: filter{uid: "plain", account: "/ns/shop/sa/default"},
			note:   "pod shop/plain is not captured: the agent of its node has not reported it",
		}},
		"shop/opted-out": {target: ofNodeA("opted-out", "shop", "OptedOut: the pod has label fairway.dev/mesh=disabled")},
		"shop/on-the-host": {target: ofNodeA(
			"on-the-host", "shop", "HostNetwork: the pod uses the host network, where its traffic can't be told apart from "+
				"the node's")},
		"other/stranger": {target: ofNodeA(
			"stranger", "other", "NotEnrolled: label namespace other with fairway.dev/mesh=enabled to bring its pods into the "+
				"mesh")},
		"shop/elsewhere": {says: "node b, where pod shop/elsewhere runs, has no node proxy"},
		"shop/pending":   {says: "is not scheduled to a node yet"},
		"shop/none":      {says: "there is no pod none in namespace shop"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace, pod := filepath.Split(name)
			got, err := findProxy(t.Context(), c, names.SystemNamespace,
				types.NamespacedName{Namespace: filepath.Clean(namespace), Name: pod})
			if want.says != "" {
				assert.ErrorContains(t, err, want.says)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, want.target, got)
		})
	}
}

func TestProxyAsJSONIsWhatEnvoySays(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "config_dump.json"))
	require.NoError(t, err)
	c := fakeCluster(t, fakePods{"/v1/envoy/config_dump": string(data)},
		pod("shop", "waypoint", "a", names.ComponentWaypoint))
	var out, notes bytes.Buffer
	key := types.NamespacedName{Namespace: "shop", Name: "waypoint"}
	of := askedProxy{target{pod: key}, key}
	require.NoError(t, proxyViews()[3].run(t.Context(), c, of, &outputFlag{"json"}, &out, &notes))
	assert.Contains(t, out.String(), `"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"`)
	assert.NotContains(t, out.String(), "ListenersConfigDump")
	assert.Empty(t, notes.String())

	c.reach = fakePods{}
	err = proxyViews()[0].run(t.Context(), c, askedProxy{target{pod: key}, key}, &outputFlag{"table"}, &out, &notes)
	assert.ErrorContains(t, err, "connection refused")
}

// TestNothingToShow is said to people, beside the table that is not there.
func TestNothingToShow(t *testing.T) {
	c := fakeCluster(t, fakePods{"/v1/envoy/config_dump": `{"configs": []}`},
		pod(names.SystemNamespace, "node-a", "a", names.ComponentNode))
	key := types.NamespacedName{Namespace: names.SystemNamespace, Name: "node-a"}
	for format, want := range map[string]string{"table": "pod fairway-system/node-a has no routes\n", "json": ""} {
		var out, notes bytes.Buffer
		asked := askedProxy{target{pod: key}, key}
		require.NoError(t, proxyViews()[1].run(t.Context(), c, asked, &outputFlag{format}, &out, &notes))
		assert.Equal(t, want, notes.String(), format)
		assert.Equal(t, want == "", out.Len() > 0, format)
	}
}

// TestProxyAsJSONOfAnApplicationsPod: of the proxy of a whole node, only what is the pod's.
func TestProxyAsJSONOfAnApplicationsPod(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "config_dump.json"))
	require.NoError(t, err)
	f := filter{uid: testUID, account: "/ns/bookshop/sa/shop"}
	for _, v := range proxyViews() {
		if v.keeps == nil {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			section, err := v.section(data)
			require.NoError(t, err)
			whole, err := v.prune(section, filter{})
			require.NoError(t, err)
			require.JSONEq(t, string(section), string(whole))
			pruned, err := v.prune(section, f)
			require.NoError(t, err)
			require.Less(t, len(pruned), len(whole), "other pods' are left out")
			// What is left is what the table shows of the pod.
			var before, after bytes.Buffer
			require.NoError(t, v.draw(&table{out: &before}, section, f, testNow))
			require.NoError(t, v.draw(&table{out: &after}, pruned, f, testNow))
			require.Equal(t, before.String(), after.String())
			_, err = v.prune([]byte("[1"), f)
			require.ErrorContains(t, err, "can't be read")
		})
	}
}
