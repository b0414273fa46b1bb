// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

var shared = apiserver.Shared{Options: apiserver.Options{Fairway: true, GatewayAPI: apiserver.Experimental}}

func TestMain(m *testing.M) {
	log := logr.Discard()
	if os.Getenv("FAIRWAY_TEST_LOG") != "" {
		log = funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{Verbosity: 1})
	}
	ctrl.SetLogger(log)
	shared.Main(m)
}

// operator is a running manager with all reconcilers, and what the rest of the operator would tell them.
type operator struct {
	client.Client
	t      *testing.T
	system string

	mu           sync.Mutex
	certificates controllers.CertificatesStatus
	reports      []controllers.NodeReport
	refused      []ingest.RefusedClaim
	programmed   map[types.NamespacedName]programmed
	automatic    map[string]bool
	asked        map[string]bool // for whose need a reconciler asked

	statusesCleared atomic.Bool
	clearedAsked    atomic.Int32

	// stop ends the operator, which the end of the test does otherwise.
	stop func()

	certificatesChanged, nodesChanged, programmedChanged, automaticChanged *controllers.Trigger
}

type programmed struct {
	acked    int
	rejected string
}

// automaticLinger is shorter than in earnest.
const automaticLinger = time.Second

func testScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwxv1alpha1.Install, certmanagerv1.AddToScheme,
	} {
		require.NoError(t, add(scheme))
	}
	return scheme
}

// start runs an operator until the test ends, then removes the Mesh.
func start(t *testing.T, cfg *rest.Config) *operator {
	t.Helper()
	scheme := testScheme(t)
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	require.NoError(t, err)
	o := &operator{
		Client: c, t: t,
		certificates: controllers.CertificatesStatus{
			Ready: true, Signing: true, Reason: v1alpha1.MeshReasonIssued,
			Message: "ok",
		},
		programmed:          map[types.NamespacedName]programmed{},
		automatic:           map[string]bool{},
		asked:               map[string]bool{},
		certificatesChanged: controllers.NewTrigger(), nodesChanged: controllers.NewTrigger(),
		programmedChanged: controllers.NewTrigger(), automaticChanged: controllers.NewTrigger(),
	}
	o.statusesCleared.Store(true)
	o.system = o.namespace("fairway-system-")
	o.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.system, Name: names.TrustBundleConfigMap, Labels: map[string]string{
			names.LabelManagedBy: names.ManagedBy,
		}},
		Data: map[string]string{names.TrustBundleKey: "BUNDLE 1"},
	})

	mgr, err := ctrl.NewManager(o.asOperator(cfg), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
		Cache:      cache.Options{ByObject: controllers.CacheByObject(o.system)},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: controllers.Uncached()}},
	})
	require.NoError(t, err)
	kinds, err := controllers.NewKinds(mgr)
	require.NoError(t, err)
	require.NoError(t, controllers.Setup(mgr, kinds, controllers.Options{
		Namespace: o.system, Image: "fairway:test", EnvoyImage: "envoy:test",
		Certificates: o, CertificatesChanged: o.certificatesChanged,
		NodeReports: o.nodeReports, NodesChanged: o.nodesChanged, RefusedClaims: o.refusedClaims,
		Programmed: o.probe, ProgrammedChanged: o.programmedChanged,
		AutomaticWaypoints: o.needsWaypoint, AutomaticChanged: o.automaticChanged,
		StatusesCleared: func() bool { o.clearedAsked.Add(1); return o.statusesCleared.Load() },
		AutomaticLinger: automaticLinger, DeployRetry: 500 * time.Millisecond, ReleaseGrace: 100 * time.Millisecond,
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(o.stop)
	t.Cleanup(func() {
		_ = c.Delete(context.Background(), &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}})
		class := &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: names.WaypointClass}}
		_ = c.Delete(context.Background(), class)
	})
	return o
}

// asOperator grants the operator's service account what config/rbac grants it, and becomes it: what the reconcilers do
// must be permitted.
func (o *operator) asOperator(cfg *rest.Config) *rest.Config {
	o.t.Helper()
	for _, file := range []string{"service_account.yaml", "role.yaml", "role_binding.yaml"} {
		raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "rbac", file))
		require.NoError(o.t, err)
		for _, obj := range apiserver.Objects(o.t, strings.ReplaceAll(string(raw), names.SystemNamespace, o.system)) {
			if obj.GetNamespace() == "" { // one of each test, in the same cluster
				obj.SetName(o.system)
				if obj.GetKind() == "ClusterRoleBinding" {
					require.NoError(o.t, unstructured.SetNestedField(obj.Object, o.system, "roleRef", "name"))
				}
			}
			o.create(obj)
		}
	}
	out := rest.CopyConfig(cfg)
	out.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + o.system + ":" + names.OperatorServiceAccount,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + o.system, "system:authenticated"},
	}
	return out
}

func (o *operator) Reconcile(context.Context, *v1alpha1.Mesh) (controllers.CertificatesStatus, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.certificates, nil
}

func (o *operator) nodeReports() []controllers.NodeReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reports
}

func (o *operator) refusedClaims() []ingest.RefusedClaim {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused
}

func (o *operator) probe(gateway types.NamespacedName) (acked int, rejected string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.programmed[gateway]
	return p.acked, p.rejected
}

func (o *operator) needsWaypoint(namespace string) (needed, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	needed, known = o.automatic[namespace]
	o.asked[namespace] = true
	return needed, known
}

// lookedAt says whether a reconciler has asked for the namespace's need.
func (o *operator) lookedAt(namespace string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[namespace]
}

// tell changes what the rest of the operator says and lets the reconcilers know.
func (o *operator) tell(change func(), trigger *controllers.Trigger, name types.NamespacedName) {
	o.mu.Lock()
	change()
	o.mu.Unlock()
	trigger.Notify(name)
}

// namespace makes one that is enrolled.
func (o *operator) namespace(prefix string) string {
	o.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix, Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}}
	o.create(ns)
	return ns.Name
}

func (o *operator) create(objs ...client.Object) {
	o.t.Helper()
	for _, obj := range objs {
		require.NoError(o.t, o.Create(context.Background(), obj))
	}
}

// mesh creates the Mesh; the cluster has no nodes, so its ranges are given.
func (o *operator) mesh() *v1alpha1.Mesh {
	o.t.Helper()
	mesh := &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec:       v1alpha1.MeshSpec{Network: &v1alpha1.Network{PodCIDRs: []v1alpha1.CIDR{"10.244.0.0/16"}}},
	}
	o.create(mesh)
	return mesh
}

// gone tells whether an object is no more; nil if so.
func (o *operator) gone(obj client.Object) error {
	err := o.Get(context.Background(), client.ObjectKeyFromObject(obj), obj)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return errors.Join(errors.New("is still there"), err)
}

// get waits until an object is as check wants it.
func get[T client.Object](o *operator, what, namespace, name string, check func(T) error) T {
	o.t.Helper()
	var obj T
	eventually.NoError(o.t, what, func() error {
		obj = newOf[T]()
		if err := o.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, obj); err != nil {
			return err
		}
		return check(obj)
	})
	return obj
}

// change updates an object, as kubectl edit would.
func change[T client.Object](o *operator, namespace, name string, edit func(T)) {
	o.t.Helper()
	eventually.NoError(o.t, "change "+name, func() error {
		obj := newOf[T]()
		if err := o.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, obj); err != nil {
			return err
		}
		edit(obj)
		return o.Update(context.Background(), obj)
	})
}

// changeStatus plays the controller that writes an object's status.
func changeStatus[T client.Object](o *operator, namespace, name string, edit func(T)) {
	o.t.Helper()
	eventually.NoError(o.t, "change the status of "+name, func() error {
		obj := newOf[T]()
		if err := o.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, obj); err != nil {
			return err
		}
		edit(obj)
		return o.Status().Update(context.Background(), obj)
	})
}

// condition checks a condition's status and reason.
func condition(list []metav1.Condition, kind string, status metav1.ConditionStatus, reason string) error {
	c := meta.FindStatusCondition(list, kind)
	switch {
	case c == nil:
		return errors.New("no condition " + kind)
	case c.Status != status || c.Reason != reason:
		return errors.New(kind + " is " + string(c.Status) + " (" + c.Reason + "): " + c.Message)
	}
	return nil
}

// progress checks which of the conditions Reconciling and Stalled is there; empty for neither.
func progress(list []metav1.Condition, want string) error {
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		if c := meta.FindStatusCondition(list, kind); (c != nil) != (kind == want) {
			return fmt.Errorf("of Reconciling and Stalled, %q was to be there: %s is %v", want, kind, c)
		}
	}
	return nil
}
