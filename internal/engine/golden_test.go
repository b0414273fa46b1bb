// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
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
	reports   map[model.ObjectRef]*ingest.Report
	automatic map[string]bool
	bindings  map[string]ingest.Binding
	told      []string // of routes and Services, in order
}

func newHarness(t testing.TB) *harness {
	h := &harness{
		cache: xds.NewCache(), reports: map[model.ObjectRef]*ingest.Report{},
		automatic: map[string]bool{}, bindings: map[string]ingest.Binding{},
	}
	h.Engine = New(Options{
		Cache: h.cache,
		Log:   testr.NewWithInterface(t, testr.Options{}),
		OnReport: func(ref model.ObjectRef, r *ingest.Report) {
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

// given has all objects, and no more to wait for.
func (h *harness) given(objects []client.Object) {
	for _, o := range objects {
		h.Set(o)
	}
	h.Synced()
	h.process()
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
	h.process()
	for _, r := range h.cache.List(scope, xds.TypeScopedRoute) {
		want(xds.TypeRoute, r.Name())
	}
	for _, r := range h.cache.List(scope, xds.TypeCluster) {
		if name := edsName(r); name != "" {
			want(xds.TypeEndpoint, name)
		}
	}
	h.process()
}

// dump lists what a scope is served, by type and name, and what leads on from there. What is in it is for the goldens
// of internal/translate to show.
func (h *harness) dump(t testing.TB, scope xds.Scope) string {
	out := fmt.Sprintf("%s\n", scope)
	for _, typeURL := range []string{
		xds.TypeRuntime, xds.TypeListener, xds.TypeScopedRoute, xds.TypeRoute, xds.TypeCluster, xds.TypeEndpoint,
	} {
		for _, r := range h.cache.List(scope, typeURL) {
			out += fmt.Sprintf("  %s %s", typeURL[strings.LastIndex(typeURL, ".")+1:], r.Name())
			if on := leadsTo(t, r); on != "" {
				out += ": " + on
			}
			out += "\n"
		}
	}
	return out
}

func leadsTo(t testing.TB, r *xds.Resource) string {
	m, err := r.Any().UnmarshalNew()
	require.NoError(t, err)
	switch m := m.(type) {
	case *runtimev3.Runtime:
		return fmt.Sprint(m.GetLayer().AsMap())
	case *routev3.ScopedRouteConfiguration:
		return m.GetRouteConfigurationName()
	case *routev3.RouteConfiguration:
		var rules []string
		for _, host := range m.GetVirtualHosts() {
			for _, route := range host.GetRoutes() {
				if strings.Contains(route.GetName(), "Route/") {
					rules = append(rules, strings.TrimPrefix(route.GetName(), names.AmbiguousRoutes))
				}
			}
		}
		return strings.Join(slices.Compact(rules), ", ")
	case *clusterv3.Cluster:
		return edsName(r)
	case *endpointv3.ClusterLoadAssignment:
		var addresses []string
		for _, group := range m.GetEndpoints() {
			for _, e := range group.GetLbEndpoints() {
				a := e.GetEndpoint().GetAddress()
				at := a.GetEnvoyInternalAddress().GetServerListenerName()
				if s := a.GetSocketAddress(); s != nil {
					at = net.JoinHostPort(s.GetAddress(), fmt.Sprint(s.GetPortValue()))
				}
				addresses = append(addresses, fmt.Sprintf("%s (%d)", at, group.GetPriority()))
			}
		}
		return strings.Join(addresses, ", ")
	}
	return ""
}

func (h *harness) statuses(t testing.TB) []byte {
	var list []*ingest.Report
	for _, r := range h.reports {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *ingest.Report) int {
		return cmp.Or(cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name),
			cmp.Compare(a.Ref.Kind, b.Ref.Kind))
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
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwxv1alpha1.Install,
		gwv1beta1.Install,
	} {
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
	dir := filepath.Join("..", "ingest", "testdata")
	all, own := readManifests(t, filepath.Join(dir, "mesh.yaml")), readManifests(t, filepath.Join(dir, name, "input.yaml"))
	return append(all, own...)
}

// goldens are cases whose resources are listed, with the addresses that a node's pods dial.
var goldens = map[string]map[xds.Scope]string{
	"split": {
		"node/node1":                         "10.96.0.10:80 10.96.0.11:80 10.96.0.13:81 10.200.2.6:8080 10.200.2.8:8080",
		"waypoint/bookshop/fairway-waypoint": "",
	},
	"consumers-alone": {
		"node/node1":                      "10.96.3.10:80 10.96.3.11:80 10.96.3.12:80",
		"waypoint/owner/fairway-waypoint": "",
	},
	"families-and-nodes": {
		"node/node1":       "10.96.2.1:80 10.96.2.2:80 10.96.2.3:80 10.96.2.4:80 10.96.2.5:80 10.96.2.6:80 [fd00:96::2:1]:80",
		"node/node3":       "10.96.2.2:80 10.96.2.3:80 10.96.2.4:80 10.96.2.5:80",
		"waypoint/shop/wp": "",
	},
	"consumer-and-grpc": {
		"node/node2":             "10.96.0.15:7070 10.96.0.15:80 10.96.0.15:9090",
		"waypoint/bookshop/mine": "",
	},
}

// TestGolden feeds cases of internal/ingest to an engine and holds the names of what proxies are served against
// testdata/<case>.txt. Run with -update after a wanted change, and read the difference.
func TestGolden(t *testing.T) {
	for name, scopes := range goldens {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.given(caseOf(t, name))
			out := ""
			for _, scope := range slices.Sorted(maps.Keys(scopes)) {
				h.subscribe(scope, strings.Fields(scopes[scope])...)
				out += h.dump(t, scope)
			}
			h.tablesAreWhole(t)
			translatetest.File(t, filepath.Join("testdata", name+".txt"), []byte(out))
		})
	}
}

// TestEnvoyTakesAllThatIsDecided: whatever comes of the cases of internal/ingest, for their waypoints and for a node
// whose pods dial everything.
func TestEnvoyTakesAllThatIsDecided(t *testing.T) {
	if findEnvoy() == "" {
		t.Skip("needs Envoy in PATH or FAIRWAY_ENVOY")
	}
	cases, err := filepath.Glob("../ingest/testdata/*/input.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, file := range cases {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			objects := caseOf(t, name)
			h.given(objects)
			scopes := map[xds.Scope][]string{"node/node1": nil}
			for _, o := range objects {
				switch o := o.(type) {
				case *gwv1.Gateway:
					scopes[catalogue.WaypointScope(client.ObjectKeyFromObject(o))] = nil
				case *corev1.Service:
					scopes["node/node1"] = append(scopes["node/node1"], dialled(o)...)
				case *corev1.Pod:
					scopes["node/node1"] = append(scopes["node/node1"], podAddresses(o)...)
				}
			}
			for scope, dialled := range scopes {
				h.subscribe(scope, dialled...)
				validateWithEnvoy(t, h.cache, scope)
			}
		})
	}
}

func podAddresses(pod *corev1.Pod) (out []string) {
	for _, ip := range pod.Status.PodIPs {
		out = append(out, net.JoinHostPort(ip.IP, "8080"))
	}
	return out
}

func dialled(svc *corev1.Service) (out []string) {
	for _, ip := range svc.Spec.ClusterIPs {
		for _, port := range svc.Spec.Ports {
			out = append(out, net.JoinHostPort(ip, fmt.Sprint(port.Port)))
		}
	}
	return out
}
