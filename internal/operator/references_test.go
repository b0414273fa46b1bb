// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// taken is what came to the engine, in order.
type taken struct {
	mu    sync.Mutex
	order []string
	now   map[string]client.Object
}

func (s *taken) Set(obj client.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = map[string]client.Object{}
	}
	s.order = append(s.order, obj.GetName())
	s.now[obj.GetName()] = obj
}

func (s *taken) Delete(obj client.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, "no "+obj.GetName())
	delete(s.now, obj.GetName())
}

func (s *taken) get(name string) client.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now[name]
}

func (s *taken) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.order...)
}

// referring is a policy that refers to ConfigMaps.
func referring(name string, to ...string) *gwv1.BackendTLSPolicy {
	p := &gwv1.BackendTLSPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, n := range to {
		p.Spec.Validation.CACertificateRefs = append(p.Spec.Validation.CACertificateRefs,
			gwv1.LocalObjectReference{Kind: "ConfigMap", Name: gwv1.ObjectName(n)})
	}
	return p
}

// running is an extension that refers to a ConfigMap for its module.
func running(name, module string) *v1alpha1.HTTPExtension {
	e := &v1alpha1.HTTPExtension{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	e.Spec.Wasm = &v1alpha1.WasmExtension{ConfigMapRef: v1alpha1.WasmConfigMapReference{Name: module}}
	return e
}

// TestReferencedConfigMaps are read from a real API server, none but those, and of them no more than is needed.
func TestReferencedConfigMaps(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{})
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
	})
	require.NoError(t, err)
	c, err := client.New(cfg, client.Options{})
	require.NoError(t, err)
	module := []byte("\x00asm")
	make := func(name string) *corev1.ConfigMap {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		cm.Labels, cm.Data = map[string]string{"a": "b"}, map[string]string{"ca.crt": name, "other": "x"}
		cm.BinaryData = map[string][]byte{"module.wasm": module, "another": module}
		require.NoError(t, c.Create(t.Context(), cm))
		return cm
	}
	one := make("one")
	make("unrelated")
	getter, err := configMapsOf(mgr)
	require.NoError(t, err)
	to := &taken{}
	r := newReferences(t.Context(), getter, to)

	r.set(referring("policy", "one", "later"))
	r.settle(t.Context())
	require.Equal(t, []string{"one", "policy"}, to.all(), "a policy comes after what it refers to")
	got := to.get("one").(*corev1.ConfigMap)
	require.Equal(t, map[string]string{"ca.crt": "one"}, got.Data)
	require.Empty(t, got.Labels)
	require.Empty(t, got.BinaryData, "nobody asks for a module")
	has := func() map[string][]byte { return to.get("one").(*corev1.ConfigMap).BinaryData }
	r.set(running("extension", "one"))
	r.settle(t.Context())
	require.Equal(t, map[string][]byte{"module.wasm": module}, has())
	require.NotNil(t, to.get("extension"))
	r.remove(running("extension", "one"))
	eventually.True(t, "the module is forgotten", func() bool { return has() == nil })

	make("later")
	eventually.True(t, "one that is made later", func() bool { return to.get("later") != nil })
	one.Data["ca.crt"] = "two"
	require.NoError(t, c.Update(t.Context(), one))
	eventually.True(t, "a change", func() bool { return to.get("one").(*corev1.ConfigMap).Data["ca.crt"] == "two" })
	require.NoError(t, c.Delete(t.Context(), one))
	eventually.True(t, "one that is gone", func() bool { return to.get("one") == nil })

	r.set(referring("policy"))
	require.Nil(t, to.get("later"), "nobody refers to it any more")
	require.NotNil(t, to.get("policy"))
	require.Empty(t, r.watched)
	require.Empty(t, r.by)
	require.NotContains(t, to.all(), "unrelated")
}

// TestReferences: an object waits for what it refers to, and not for ever; the latest version counts; and how many
// ConfigMaps a namespace may have read is bounded.
func TestReferences(t *testing.T) {
	to, known := &taken{}, map[string]func(){}
	var mu sync.Mutex
	ended := 0
	r := newReferences(t.Context(), nil, to)
	r.watch = func(ctx context.Context, key client.ObjectKey, _ bool, _ sink, is func()) {
		context.AfterFunc(ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			ended++
		})
		mu.Lock()
		defer mu.Unlock()
		known[key.Name] = is
	}
	is := func(name string) {
		eventually.True(t, "a watch of "+name, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return known[name] != nil
		})
		known[name]()
	}
	r.set(referring("first", "a", "b"))
	r.set(referring("free"))
	require.Equal(t, []string{"free"}, to.all())
	is("a")
	require.Nil(t, to.get("first"))
	second := referring("first", "a", "b")
	r.set(second)
	is("b")
	require.Same(t, second, to.get("first"))
	r.set(referring("gone", "c"))
	r.remove(referring("gone", "c"))
	is("c")
	require.Nil(t, to.get("gone"))

	r.patience = time.Millisecond
	r.set(referring("impatient", "never"))
	eventually.True(t, "it goes without", func() bool { return to.get("impatient") != nil })
	r.settle(t.Context())

	for n := range 20 {
		var names []string
		for m := range 8 {
			names = append(names, fmt.Sprintf("z%02d-%d", n, m))
		}
		r.set(referring(fmt.Sprint("many", n), names...))
	}
	for n := range cluster.MostModules + 8 {
		r.set(running(fmt.Sprint("ext", n), fmt.Sprintf("module-%02d", n)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.watched, cluster.MostReferences+cluster.MostModules)
	require.Contains(t, r.watched, client.ObjectKey{Namespace: "default", Name: "a"})
}
