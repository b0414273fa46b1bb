// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

var shared = apiserver.Shared{Options: apiserver.Options{Fairway: true}}

func testLog() logr.Logger {
	if os.Getenv("FAIRWAY_TEST_LOG") == "" {
		return logr.Discard()
	}
	return funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{Verbosity: 1})
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(testLog())
	shared.Main(m)
}

const originalCNI = `{"cniVersion":"1.0.0","name":"dev","plugins":[{"type":"ptp"}]}`

// fixture is a node with an agent, against a real API server.
type fixture struct {
	client.Client // an administrator's
	*world
	t         *testing.T
	config    *rest.Config
	node      string
	namespace string
	dir       string
	agent     *Agent
	podName   string // of the agent itself
	metrics   *prometheus.Registry
	stop      func() error
}

// setUp makes an enrolled namespace and what all agents need in the cluster. The agent is started by start.
func setUp(t *testing.T) *fixture {
	cfg := shared.Config(t)
	scheme, err := newScheme()
	require.NoError(t, err)
	require.NoError(t, eventsv1.AddToScheme(scheme))
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	require.NoError(t, err)
	f := &fixture{Client: c, world: newWorld(t), t: t, config: cfg, dir: t.TempDir()}
	name := strings.ToLower(t.Name())
	f.node, f.namespace = "node-"+name, "ns-"+name
	for _, dir := range []string{"bin", "net.d"} {
		require.NoError(t, os.Mkdir(filepath.Join(f.dir, dir), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "net.d", "10-dev.conflist"), []byte(originalCNI), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "fairway-cni"), []byte("binary"), 0o755))
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}})
	rbac, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "rbac", "node.yaml"))
	require.NoError(t, err)
	for _, o := range apiserver.Objects(t, string(rbac)) {
		f.ensure(o)
	}
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace, Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}})
	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	f.ensure(mesh)
	mesh.Status.Network = testMesh().Status.Network
	f.setMesh(mesh)
	t.Cleanup(func() {
		require.NoError(t, client.IgnoreNotFound(f.Delete(context.Background(), mesh)))
	})
	return f
}

func (f *fixture) setMesh(mesh *v1alpha1.Mesh) {
	f.t.Helper()
	patch := client.MergeFrom(&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}})
	require.NoError(f.t, f.Status().Patch(context.Background(), mesh, patch))
}

func (f *fixture) ensure(o client.Object) {
	f.t.Helper()
	require.NoError(f.t, client.IgnoreAlreadyExists(f.Create(context.Background(), o)))
}

// asBoundAgent is the API server as an agent on a node reaches it: with a token that names the node, as a pod's does,
// and with the rights that the manifests give.
func (f *fixture) asBoundAgent() *rest.Config {
	f.t.Helper()
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}}
	f.ensure(node)
	require.NoError(f.t, f.Get(ctx, client.ObjectKeyFromObject(node), node))
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Node", APIVersion: "v1", Name: node.Name,
			UID: node.UID,
		},
	}}
	account := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeServiceAccount},
	}
	require.NoError(f.t, f.SubResource("token").Create(ctx, account, token))
	cfg := rest.AnonymousClientConfig(f.config)
	cfg.BearerToken, cfg.QPS = token.Status.Token, f.config.QPS
	return cfg
}

// asAgent is who an agent on a node is to admission, whether or not there is such a node.
func asAgent(cfg *rest.Config, node string) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + names.SystemNamespace + ":" + names.NodeServiceAccount,
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
		Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {node}},
	}
	return cfg
}

func (f *fixture) start() {
	f.t.Helper()
	f.metrics = prometheus.NewRegistry()
	f.agent, f.stop = f.launch(f.world, Options{PodName: f.podName, Registerer: f.metrics})
}

// launch an agent beside a proxy, on the fixture's node. Some options may be given.
func (f *fixture) launch(proxy *world, o Options) (*Agent, func() error) {
	f.t.Helper()
	a, err := New(Options{
		Config: f.asBoundAgent(), NodeName: f.node, PodName: o.PodName, PodUID: o.PodUID, Drain: o.Drain,
		Proxy: proxy, Envoy: process{proxy}, Certificates: proxy, Neighbours: proxy, sandboxes: f.world, kernel: f.world,
		nodeDir: f.dir, cniSocket: filepath.Join(f.dir, "cni.sock"), CNIBinDir: filepath.Join(f.dir, "bin"),
		CNIConfDir:   filepath.Join(f.dir, "net.d"),
		pluginSource: filepath.Join(f.dir, "fairway-cni"), NetnsDir: f.netnsDir,
		Log: testLog(), Registerer: o.Registerer,
		waits: waits{
			enrol: enrol.Waits{Certificate: 500 * time.Millisecond, Linger: 100 * time.Millisecond, Verify: time.Second},
			pods: pods.Waits{
				Attempt: time.Second, Verify: time.Second, Runtime: time.Second, Orphan: 200 * time.Millisecond, Shown: time.Second,
			},
			closed: 10 * time.Millisecond, successor: time.Second, crash: 300 * time.Millisecond,
		},
	})
	require.NoError(f.t, err)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(context.Background(), stop) }()
	end := sync.OnceValue(func() error {
		close(stop)
		return <-done
	})
	f.t.Cleanup(func() { require.NoError(f.t, end()) })
	return a, end
}

// pod makes a pod of the node; with an IP it runs.
func (f *fixture) pod(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	f.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name, Labels: map[string]string{}},
		Spec: corev1.PodSpec{
			NodeName: f.node, ServiceAccountName: "cart", TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{
				Name: "app", Image: "app",
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
					TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)},
				}},
			}},
		},
	}
	for _, c := range change {
		c(p)
	}
	require.NoError(f.t, f.Create(context.Background(), p))
	f.t.Cleanup(func() { require.NoError(f.t, client.IgnoreNotFound(f.Delete(context.Background(), p))) })
	if ip != "" {
		f.run(p, ip)
	}
	return p
}

// run says, as kubelet does, that a pod runs.
func (f *fixture) run(p *corev1.Pod, ip string) {
	f.t.Helper()
	before := p.DeepCopy()
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	require.NoError(f.t, f.Status().Patch(context.Background(), p, client.StrategicMergeFrom(before)))
}

// condition waits until a pod's condition has a status and a reason, and returns it.
func (f *fixture) condition(p *corev1.Pod, status corev1.ConditionStatus, reason string) *corev1.PodCondition {
	f.t.Helper()
	var have *corev1.PodCondition
	eventually.NoError(f.t, fmt.Sprintf("condition %s %s", status, reason), func() error {
		now := &corev1.Pod{}
		if err := f.Get(context.Background(), client.ObjectKeyFromObject(p), now); err != nil {
			return err
		}
		if have = member.Condition(now); have == nil || have.Status != status || have.Reason != reason {
			return fmt.Errorf("have %v", have)
		}
		return nil
	})
	return have
}

func (f *fixture) state(p *corev1.Pod) pods.Status {
	for _, s := range f.agent.Snapshot() {
		if s.UID == string(p.UID) {
			return s
		}
	}
	return pods.Status{}
}

// daemonSet of the agents is there, so that stopping one is no uninstallation.
func (f *fixture) daemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"a": "b"}
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
		}},
	}
	f.ensure(ds)
	f.t.Cleanup(func() { require.NoError(f.t, client.IgnoreNotFound(f.Delete(context.Background(), ds))) })
	return ds
}

// ask is the CNI plugin.
func (f *fixture) ask(req plugin.Request) plugin.Response {
	f.t.Helper()
	var conn net.Conn
	eventually.True(f.t, "the agent listens for the plugin", func() bool {
		var err error
		conn, err = net.Dial("unix", filepath.Join(f.dir, "cni.sock"))
		return err == nil
	})
	defer conn.Close()
	require.NoError(f.t, plugin.WriteMessage(conn, req))
	var answer plugin.Response
	require.NoError(f.t, plugin.ReadMessage(conn, &answer))
	return answer
}
