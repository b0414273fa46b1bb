// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// harness is an engine with its cache and what it has reported.
type harness struct {
	*Engine
	cache     *xds.Cache
	reports   map[model.ObjectRef]*ingest.RouteReport
	automatic map[string]bool
	bindings  map[string]ingest.Binding
	told      []string // of routes and Services, in order
}

func newHarness(t testing.TB) *harness {
	h := &harness{
		cache: xds.NewCache(), reports: map[model.ObjectRef]*ingest.RouteReport{},
		automatic: map[string]bool{}, bindings: map[string]ingest.Binding{},
	}
	h.Engine = New(Options{
		Cache: h.cache,
		Log:   testr.NewWithInterface(t, testr.Options{}),
		OnReport: func(ref model.ObjectRef, r *ingest.RouteReport) {
			if r == nil {
				h.told = append(h.told, "no "+ref.Name)
				delete(h.reports, ref)
			} else {
				h.told = append(h.told, ref.Name)
				h.reports[ref] = r
			}
		},
		OnBinding: func(svc types.NamespacedName, b ingest.Binding) {
			if b.None() {
				h.told = append(h.told, "unbound "+svc.Name)
				delete(h.bindings, svc.String())
			} else {
				h.told = append(h.told, "bound "+svc.Name)
				h.bindings[svc.String()] = b
			}
		},
		OnAutomatic: func(ns string, needed, _ bool) { h.automatic[ns] = needed },
	})
	return h
}

// subscribe wants everything that a proxy of the scope would ask for, following the references in what it gets.
func (h *harness) subscribe(scope xds.Scope, dialled ...string) {
	want := func(typeURL, name string) {
		h.Interest(xds.Interest{Key: scope.Key(typeURL, name), Wanted: true})
	}
	want(xds.TypeRuntime, names.RuntimeLayer)
	if _, ok := catalogue.WaypointOf(scope); ok {
		want(xds.TypeListener, xds.Wildcard)
		want(xds.TypeScopedRoute, xds.Wildcard)
		want(xds.TypeCluster, xds.Wildcard)
	}
	for _, d := range dialled {
		want(xds.TypeCluster, d)
	}
	h.Process()
	for _, r := range h.cache.List(scope, xds.TypeScopedRoute) {
		want(xds.TypeRoute, r.Name())
	}
	for _, r := range h.cache.List(scope, xds.TypeCluster) {
		if name := edsName(r); name != "" {
			want(xds.TypeEndpoint, name)
		}
	}
	h.Process()
}

// dump renders what a scope is served, by type and name.
func (h *harness) dump(t testing.TB, scope xds.Scope) []byte {
	var out bytes.Buffer
	for _, typeURL := range []string{xds.TypeRuntime, xds.TypeListener, xds.TypeScopedRoute, xds.TypeRoute, xds.TypeCluster, xds.TypeEndpoint} {
		for _, r := range h.cache.List(scope, typeURL) {
			m, err := r.Any().UnmarshalNew()
			require.NoError(t, err)
			out.WriteString("---\n# " + typeURL[strings.LastIndex(typeURL, ".")+1:] + " " + r.Name() + "\n")
			out.Write(protoYAML(t, m))
		}
	}
	return out.Bytes()
}

// protoYAML leaves the HTTP filters out: all connection managers have the same, and package waypoint prints them.
func protoYAML(t testing.TB, m proto.Message) []byte {
	j, err := protojson.Marshal(m)
	require.NoError(t, err)
	var v any
	require.NoError(t, yaml.Unmarshal(j, &v))
	y, err := yaml.Marshal(without(v, "httpFilters"))
	require.NoError(t, err)
	return y
}

// without a key, at any depth.
func without(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, key)
		for k := range v {
			v[k] = without(v[k], key)
		}
	case []any:
		for i := range v {
			v[i] = without(v[i], key)
		}
	}
	return v
}

func (h *harness) statuses(t testing.TB) []byte {
	var list []*ingest.RouteReport
	for _, r := range h.reports {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *ingest.RouteReport) int {
		return cmp.Or(cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name), cmp.Compare(a.Ref.Kind, b.Ref.Kind))
	})
	var waypoints []string
	for ns, needed := range h.automatic {
		if needed {
			waypoints = append(waypoints, ns)
		}
	}
	slices.Sort(waypoints)
	out, err := yaml.Marshal(map[string]any{"routes": list, "automaticWaypoints": waypoints, "bindings": h.bindings})
	require.NoError(t, err)
	return out
}

var testScheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwv1beta1.Install} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}()

func readManifests(t testing.TB, file string) []client.Object {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	decoder := serializer.NewCodecFactory(testScheme, serializer.EnableStrict).UniversalDeserializer()
	var out []client.Object
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		obj, _, err := decoder.Decode(doc, nil, nil)
		require.NoError(t, err, "%s:\n%s", file, doc)
		out = append(out, obj.(client.Object))
	}
	return out
}

// caseOf is the cluster of a case of internal/ingest.
func caseOf(t testing.TB, name string) []client.Object {
	return readManifests(t, filepath.Join("..", "ingest", "testdata", name, "input.yaml"))
}

// TestGolden feeds cases of internal/ingest to an engine and holds what proxies are served, and what statuses are to
// say, against the files of testdata/<case>. Run with -update after a wanted change, and read the difference.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/scopes")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			h := newHarness(t)
			for _, obj := range caseOf(t, filepath.Base(dir)) {
				h.Set(obj)
			}
			h.Synced()
			h.Process()
			for _, line := range strings.Fields(string(readFile(t, filepath.Join(dir, "scopes")))) {
				name, dialled, _ := strings.Cut(line, "=")
				scope := xds.Scope(name)
				var addrs []string
				if dialled != "" {
					addrs = strings.Split(dialled, ",")
				}
				h.subscribe(scope, addrs...)
				got := h.dump(t, scope)
				require.NotEmpty(t, got, "scope %s is served nothing", scope)
				translatetest.File(t, filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".yaml"), got)
				validateWithEnvoy(t, h.cache, scope)
			}
			translatetest.File(t, filepath.Join(dir, "status.yaml"), h.statuses(t))
		})
	}
}

func readFile(t testing.TB, file string) []byte {
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return b
}
