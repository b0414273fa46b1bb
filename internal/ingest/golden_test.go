// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

// extras are what a case needs besides objects, in its extras.yaml.
type extras struct {
	// Consumer, Consumers and Author are small budgets: rules, expressions and bytes.
	Consumer, Consumers, Author *[3]int
	// Network, Application and Pod are those of AuthorizationPolicies.
	Network, Application, Pod *[3]int
	// Rejected are rules that proxies reject: whole, and with Refused also when they do nothing but match.
	Rejected []struct {
		Route   model.ObjectRef
		Rule    int
		Text    string
		Refused bool
	}
}

// TestGolden holds all that is decided on each testdata/<case>/input.yaml, in words, against model.txt and
// statuses.txt beside it. Run with -update after a wanted change, and read the difference.
func TestGolden(t *testing.T) {
	forCases(t, func(t *testing.T, dir string, x extras, objects []client.Object) {
		w := newWorld()
		w.set(t, objects...)
		w.store.Pods.MarkSettled()
		w.reject(t, x)
		translatetest.File(t, filepath.Join(dir, "model.txt"), []byte(w.modelText()))
		translatetest.File(t, filepath.Join(dir, "statuses.txt"), []byte(w.statusText()))
	})
}

// TestOrderOfObjectsDoesNotMatter: whichever way objects come and go, those that there are decide.
func TestOrderOfObjectsDoesNotMatter(t *testing.T) {
	forCases(t, func(t *testing.T, _ string, x extras, objects []client.Object) {
		all := newWorld()
		all.set(t, objects...)
		all.reject(t, x)
		for seed := range uint64(4) {
			r := rand.New(rand.NewPCG(seed, 11))
			w := newWorld()
			for _, f := range all.in.Rejected.All() {
				w.in.Rejected.Add(f)
			}
			for _, n := range r.Perm(len(all.objects)) {
				w.set(t, all.objects[n])
				w.flush()
				if r.IntN(4) == 0 { // one of those that are there goes and comes back
					again := w.objects[r.IntN(len(w.objects))]
					w.delete(t, again)
					w.flush()
					w.set(t, again)
					w.flush()
				}
			}
			require.Equal(t, all.modelText(), w.modelText(), "seed %d", seed)
			require.Equal(t, all.statusText(), w.statusText(), "seed %d", seed)
		}
	})
}

func forCases(t *testing.T, run func(t *testing.T, dir string, x extras, objects []client.Object)) {
	inputs, err := filepath.Glob("testdata/*/input.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		dir := filepath.Dir(input)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var x extras
			if text, err := os.ReadFile(filepath.Join(dir, "extras.yaml")); err == nil {
				require.NoError(t, yaml.UnmarshalStrict(text, &x))
			}
			budget(t, &mostOfConsumer, x.Consumer)
			budget(t, &mostOfConsumers, x.Consumers)
			budget(t, &mostOfAuthor, x.Author)
			budget(t, &mostOfNetwork, x.Network)
			budget(t, &mostOfApplication, x.Application)
			budget(t, &mostOfPod, x.Pod)
			run(t, dir, x, append(readManifests(t, "testdata/mesh.yaml"), readManifests(t, input)...))
		})
	}
}

func budget(t *testing.T, most *cost, small *[3]int) {
	if small != nil {
		before := *most
		t.Cleanup(func() { *most = before })
		*most = cost{rules: small[0], expressions: small[1], bytes: small[2], backends: before.backends}
	}
}

// world is an Ingest with the objects that it was given, in order.
type world struct {
	graph   *memo.Graph
	store   *cluster.Store
	in      *Ingest
	objects []client.Object
}

func newWorld() *world {
	w := &world{graph: memo.New()}
	w.store = cluster.NewStore(w.graph)
	w.in = New(w.graph, w.store, route.CheckRule)
	return w
}

// set stores objects; a later one of the same name takes the place of an earlier one.
func (w *world) set(t *testing.T, objects ...client.Object) {
	for _, o := range objects {
		require.NoError(t, w.store.Set(o))
		w.forget(o)
		w.objects = append(w.objects, o)
	}
	slices.SortFunc(w.objects, compareObjects)
}

func (w *world) delete(t *testing.T, o client.Object) {
	require.NoError(t, w.store.Delete(o))
	w.forget(o)
}

func (w *world) forget(o client.Object) {
	same := func(have client.Object) bool { return compareObjects(have, o) == 0 }
	w.objects = slices.DeleteFunc(w.objects, same)
}

func compareObjects(a, b client.Object) int {
	kind := func(o client.Object) string { return o.GetObjectKind().GroupVersionKind().Kind }
	return cmp.Or(cmp.Compare(kind(a), kind(b)),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// flush derives, and keeps up to date from now on, all that can be asked of the objects that there are.
func (w *world) flush() {
	for _, ref := range w.routes() {
		w.in.Report.Watch(ref, func(*Report) {})
	}
	for _, key := range w.services() {
		w.in.Bound.Watch(key, func(Binding) {})
		w.in.LeftOut.Watch(key, func(LeftOut) {})
		w.in.CallerEndpoints.Watch(key, func([]model.Endpoint) {})
		for _, p := range w.in.Service.Get(nil, key).Ports {
			at := model.ServicePort{Namespace: key.Namespace, Service: key.Name, Port: p.Number}
			w.in.Table.Watch(model.Attachment{Port: at}, func(*model.RouteTable) {})
			w.in.Upstream.Watch(at, func(model.Upstream) {})
			w.in.Spread.Watch(at, func(bool) {})
			for _, node := range w.nodes() {
				w.in.NodeEndpoints.Watch(NodePort{at, node}, func([]model.Endpoint) {})
			}
		}
	}
	for _, key := range w.gateways() {
		w.in.Waypoint.Watch(key, func(*model.Waypoint) {})
		w.in.TCPGuards.Watch(key, func([]model.TCPGuard) {})
	}
	for _, key := range keysOf[*corev1.Pod](w) {
		w.in.PodGuard.Watch(key, func(*model.PodGuard) {})
	}
	for _, key := range w.accessPolicies() {
		w.in.accessTargetsOf.Watch(key, func([]AccessTarget) {})
	}
	for _, addr := range w.dialled() {
		w.in.Destination.Watch(addr, func(*model.Destination) {})
	}
	for _, ns := range w.namespaces() {
		w.in.NeedsAutomatic.Watch(ns, func(bool) {})
	}
	w.graph.Flush()
}

// reject has proxies reject rules as they are.
func (w *world) reject(t *testing.T, x extras) {
	for _, r := range x.Rejected {
		found := false
		for _, rule := range w.in.Route.Get(nil, r.Route).Rules {
			if rule.RuleIndex == r.Rule {
				found = true
				w.in.Rejected.Add(Rejection{Route: r.Route, Rule: RuleKey(rule), Text: r.Text})
				if r.Refused {
					w.in.Rejected.Add(Rejection{Route: r.Route, Rule: RuleKey(refused(rule)), Text: r.Text})
				}
			}
		}
		require.True(t, found, "%v has a rule %d", r.Route, r.Rule)
	}
}

func keysOf[T client.Object](w *world) (out []cluster.Key) {
	for _, o := range w.objects {
		if _, ok := o.(T); ok {
			out = append(out, client.ObjectKeyFromObject(o))
		}
	}
	return out
}

func (w *world) services() []cluster.Key { return keysOf[*corev1.Service](w) }
func (w *world) gateways() []cluster.Key { return keysOf[*gwv1.Gateway](w) }

func (w *world) nodes() []string      { return namesOf(keysOf[*corev1.Node](w)) }
func (w *world) namespaces() []string { return namesOf(keysOf[*corev1.Namespace](w)) }

func namesOf(keys []cluster.Key) (out []string) {
	for _, k := range keys {
		out = append(out, k.Name)
	}
	return out
}

func (w *world) routes() (out []model.ObjectRef) {
	for _, o := range w.objects {
		if ref, ok := ReportRef(o); ok {
			out = append(out, ref)
		}
	}
	return out
}

var testDecoder = func() runtime.Decoder {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwv1beta1.Install, gwxv1alpha1.Install,
	} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
}()

func readManifests(t *testing.T, file string) (out []client.Object) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		obj, _, err := testDecoder.Decode(doc, nil, nil)
		require.NoError(t, err, "%s:\n%s", file, doc)
		out = append(out, obj.(client.Object))
	}
	return out
}
