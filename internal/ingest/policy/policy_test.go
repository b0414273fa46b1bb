// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// limit is what the policies of these tests ask for.
type limit int

// world has a Service web with ports http and metrics, a Gateway edge with a listener https, and policies; all in
// namespace shop, but for a Service web in namespace other.
type world struct {
	*Policies[limit]
	graph    *memo.Graph
	policies map[types.NamespacedName]*Policy[limit]
	objects  map[Object][]Section
}

func name(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func port(namespace string, number uint16) model.Attachment {
	return model.Attachment{Port: model.ServicePort{Namespace: namespace, Service: "web", Port: number}}
}

var (
	http, metrics = port("shop", 80), port("shop", 9090)
	https         = model.Attachment{
		Listener: model.Listener{Gateway: name("shop", "edge"), Section: "https", Hostname: "*.example.org"},
	}
)

func newWorld() *world {
	w := &world{graph: memo.New(), policies: map[types.NamespacedName]*Policy[limit]{}, objects: map[Object][]Section{
		{Service, name("shop", "web")}:  {{"http", http}, {"metrics", metrics}},
		{Service, name("other", "web")}: {{"http", port("other", 80)}},
		{Gateway, name("shop", "edge")}: {{"https", https}},
	}}
	find := func(kind schema.GroupKind) Find {
		return func(c *memo.Ctx, name types.NamespacedName) ([]Section, *conditions.Verdict) {
			o := Object{kind, name}
			c.Read(o)
			if sections, ok := w.objects[o]; ok {
				return sections, nil
			}
			return nil, &conditions.Verdict{Reason: string(gwv1.PolicyReasonTargetNotFound), Message: o.String() +
				" does not exist"}
		}
	}
	w.Policies = Define(w.graph, Kind[limit]{
		Name: "LimitPolicy",
		Get: func(c *memo.Ctx, name types.NamespacedName) *Policy[limit] {
			c.Read(name)
			return w.policies[name]
		},
		Naming: func(c *memo.Ctx, _ Object) (out []types.NamespacedName) {
			c.Read("policies")
			for name := range w.policies {
				out = append(out, name)
			}
			return out
		},
		Targets: map[schema.GroupKind]Find{Service: find(Service), Gateway: find(Gateway)},
	})
	return w
}

// change stores policies, and deletes those without targets.
func (w *world) change(policies ...*Policy[limit]) {
	for _, p := range policies {
		key := name(p.Ref.Namespace, p.Ref.Name)
		if w.policies[key] = p; p.Targets == nil {
			delete(w.policies, key)
		}
		w.graph.Touch(key)
	}
	w.graph.Touch("policies")
}

// with is a policy of namespace shop that was created at a time, and has the same number as limit.
func with(called string, created int, targets ...Target) *Policy[limit] {
	return &Policy[limit]{
		Ref:     model.ObjectRef{Kind: "LimitPolicy", Namespace: "shop", Name: called},
		Created: time.Unix(int64(created), 0), Generation: 7, Targets: targets, Content: limit(created),
	}
}

func of(kind, called, section string) Target {
	ref := gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(called),
	}}
	if kind == Gateway.Kind {
		ref.Group = gwv1.GroupName
	}
	if section != "" {
		ref.SectionName = new(gwv1.SectionName)
		*ref.SectionName = gwv1.SectionName(section)
	}
	return LocalSection("shop", ref)
}

func web(section string) Target { return of("Service", "web", section) }

// said is what the status says, an entry a line.
func (w *world) said(called string) (out []string) {
	for _, a := range w.Report.Get(nil, name("shop", called)).Ancestors {
		c := meta.FindStatusCondition(a.Conditions, "Accepted")
		out = append(out, fmt.Sprintf("%s %s %s", c.Type, c.Reason, c.Message))
	}
	return out
}

// inForce are the limits of ports and listener; 0 where there is none.
func (w *world) inForce() [3]limit {
	var out [3]limit
	for n, at := range []model.Attachment{http, metrics, https} {
		if p := w.InForce.Get(nil, at); p != nil {
			out[n] = p.Content
		}
	}
	return out
}

func TestWhichPolicyIsInForce(t *testing.T) {
	const conflict = "Accepted Conflicted LimitPolicy shop/%s has the same target and takes precedence " +
		"(the oldest policy does, then the first by name)."
	other := web("")
	other.Namespace = "other"
	for what, tc := range map[string]struct {
		policies []*Policy[limit]
		inForce  [3]limit
		said     map[string][]string
	}{
		"one of the whole is for all sections": {
			policies: []*Policy[limit]{with("a", 1, web(""))}, inForce: [3]limit{1, 1, 0},
			said: map[string][]string{"a": {"Accepted Accepted In force for Service shop/web."}},
		},
		"of two for the same, the older one": {
			policies: []*Policy[limit]{with("a", 2, web("")), with("b", 1, web(""))}, inForce: [3]limit{1, 1, 0},
			said: map[string][]string{
				"a": {fmt.Sprintf(conflict, "b")}, "b": {"Accepted Accepted In force for Service shop/web."},
			},
		},
		"of two of one age, the first by name": {
			policies: []*Policy[limit]{with("b", 1, web("http")), with("a", 1, web("http"))}, inForce: [3]limit{1, 0, 0},
			said: map[string][]string{
				"a": {"Accepted Accepted In force for Service shop/web, section http."}, "b": {fmt.Sprintf(conflict, "a")},
			},
		},
		"one of a section, though it is younger than that of the whole": {
			policies: []*Policy[limit]{with("whole", 1, web("")), with("section", 2, web("metrics"))},
			inForce:  [3]limit{1, 2, 0},
			said: map[string][]string{
				"whole": {"Accepted Accepted In force for Service shop/web, except for section metrics, " +
					"which LimitPolicy shop/section targets by name."},
				"section": {"Accepted Accepted In force for Service shop/web, section metrics."},
			},
		},
		"a section of its own is no conflict with the whole": {
			policies: []*Policy[limit]{with("a", 1, web(""), web("http"), web(""))}, inForce: [3]limit{1, 1, 0},
			said: map[string][]string{"a": {
				"Accepted Accepted In force for Service shop/web.",
				"Accepted Accepted In force for Service shop/web, section http.",
			}},
		},
		"none without the target": {
			policies: []*Policy[limit]{with("a", 1, of("Service", "none", ""))},
			said:     map[string][]string{"a": {"Accepted TargetNotFound Service shop/none does not exist."}},
		},
		"none with an unknown section, not even for the others": {
			policies: []*Policy[limit]{with("a", 1, web("htpp"))},
			said:     map[string][]string{"a": {`Accepted TargetNotFound Service shop/web has no section "htpp".`}},
		},
		"none in another namespace": {
			policies: []*Policy[limit]{with("a", 1, other)},
			said:     map[string][]string{"a": {"Accepted Invalid A LimitPolicy can only target objects in its own namespace."}},
		},
		"none for an unsupported kind": {
			policies: []*Policy[limit]{with("a", 1, of("ConfigMap", "web", ""))},
			said: map[string][]string{"a": {
				"Accepted Invalid A LimitPolicy can't target a ConfigMap: supported kinds are Gateway.gateway.networking.k8s.io, " +
					"Service.",
			}},
		},
		"each target by itself": {
			policies: []*Policy[limit]{
				with("a", 2, of("Service", "none", ""), web("http"), of("Gateway", "edge", "https")),
				with("b", 1, web("http")),
			},
			inForce: [3]limit{1, 0, 2},
			said: map[string][]string{"a": {
				"Accepted TargetNotFound Service shop/none does not exist.", fmt.Sprintf(conflict, "b"),
				"Accepted Accepted In force for Gateway shop/edge, section https.",
			}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld()
			w.change(tc.policies...)
			require.Equal(t, tc.inForce, w.inForce())
			for called, want := range tc.said {
				require.Equal(t, want, w.said(called))
			}
		})
	}
	require.Nil(t, newWorld().InForce.Get(nil, port("shop", 81)))
}

// TestPoliciesFollowWhatChanges: the next one has the target when the first one goes, and its target when that comes.
func TestPoliciesFollowWhatChanges(t *testing.T) {
	w := newWorld()
	var reports, inForce int
	w.Report.Watch(name("shop", "b"), func(*Report) { reports++ })
	w.InForce.Watch(http, func(*Policy[limit]) { inForce++ })
	is := func(want [3]limit, toldReports, toldInForce int) {
		w.graph.Flush()
		require.Equal(t, want, w.inForce())
		require.Equal(t, [2]int{toldReports, toldInForce}, [2]int{reports, inForce})
	}
	w.change(with("a", 1, web("")), with("b", 2, web(""), of("Gateway", "late", "")))
	is([3]limit{1, 1, 0}, 1, 1)
	w.change(with("c", 3, web("metrics")))
	is([3]limit{1, 3, 0}, 1, 1)
	w.change(with("a", 1))
	is([3]limit{2, 3, 0}, 2, 2)
	late := Object{Gateway, name("shop", "late")}
	w.objects[late] = nil
	w.graph.Touch(late)
	is([3]limit{2, 3, 0}, 3, 2)
	w.change(with("b", 2))
	is([3]limit{0, 3, 0}, 4, 3)
	require.Nil(t, w.Report.Get(nil, name("shop", "b")))
}

// TestAnInvalidPolicyKeepsItsTargets: a mistake in one doesn't put the next in force, which may allow more.
func TestAnInvalidPolicyKeepsItsTargets(t *testing.T) {
	w := newWorld()
	bad := with("a", 1, web(""))
	bad.Invalid = "-1 is no limit"
	w.change(bad, with("b", 2, web("")))
	require.Equal(t, bad, w.InForce.Get(nil, http))
	require.Equal(t, []string{"Accepted Invalid -1 is no limit."}, w.said("a"))
}

// TestReports say what the API wants of a status.
func TestReports(t *testing.T) {
	w := newWorld()
	w.change(with("a", 1, web("http"), of("Gateway", "edge", "")))
	group, core, gateway, service := gwv1.Group(gwv1.GroupName), gwv1.Group(""), gwv1.Kind("Gateway"), gwv1.Kind("Service")
	namespace, section := gwv1.Namespace("shop"), gwv1.SectionName("http")
	accepted := func(message string) []metav1.Condition {
		return []metav1.Condition{{
			Type: "Accepted", Status: "True", Reason: "Accepted", Message: message,
			ObservedGeneration: 7,
		}}
	}
	require.Equal(t, &Report{
		Ref: model.ObjectRef{Kind: "LimitPolicy", Namespace: "shop", Name: "a"}, Generation: 7,
		Ancestors: []Ancestor{{
			Ref: gwv1.ParentReference{
				Group: &core, Kind: &service, Namespace: &namespace, Name: "web",
				SectionName: &section,
			},
			Conditions: accepted("In force for Service shop/web, section http."), At: []model.Attachment{http},
		}, {
			Ref:        gwv1.ParentReference{Group: &group, Kind: &gateway, Namespace: &namespace, Name: "edge"},
			Conditions: accepted("In force for Gateway shop/edge."), At: []model.Attachment{https},
		}},
	}, w.Report.Get(nil, name("shop", "a")))
}

// TestAPolicyIsInForceWhereItsStatusCanSaySo: for 16 ancestors in all, with those of other controllers.
func TestAPolicyIsInForceWhereItsStatusCanSaySo(t *testing.T) {
	w := newWorld()
	p := with("a", 1)
	for n := range 16 {
		called := fmt.Sprint("s", n)
		at := model.Attachment{Port: model.ServicePort{Namespace: "shop", Service: called, Port: 80}}
		w.objects[Object{Service, name("shop", called)}] = []Section{{"http", at}}
		p.Targets = append(p.Targets, of("Service", called, ""))
	}
	p.Taken = 2
	w.change(p)
	report := w.Report.Get(nil, name("shop", "a"))
	require.Len(t, report.Ancestors, 16, "the writer leaves out, and counts, those that have no room")
	for n, a := range report.Ancestors {
		at := model.Attachment{Port: model.ServicePort{Namespace: "shop", Service: fmt.Sprint("s", n), Port: 80}}
		if n < 14 {
			require.Equal(t, []model.Attachment{at}, a.At)
			require.NotNil(t, w.InForce.Get(nil, at))
			continue
		}
		require.Empty(t, a.At)
		require.Nil(t, w.InForce.Get(nil, at))
	}
}

// TestAListenersPolicyIsForAllOfItsHosts: a route may ask for a narrower hostname than the listener's.
func TestAListenersPolicyIsForAllOfItsHosts(t *testing.T) {
	w := newWorld()
	w.change(with("a", 1, of("Gateway", "edge", "https")))
	narrow := https
	narrow.Listener.Hostname = "shop.example.org"
	require.NotNil(t, w.InForce.Get(nil, narrow))
	narrow.Listener.Section = "http"
	require.Nil(t, w.InForce.Get(nil, narrow))
}

func TestReferences(t *testing.T) {
	far, group, kind, section := gwv1.Namespace("far"), gwv1.Group(""), gwv1.Kind("Service"), gwv1.SectionName("http")
	local := gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "web"}
	whole := Target{Object: Object{Service, name("shop", "web")}}
	inSection := Target{Object: whole.Object, section: "http"}
	elsewhere := Target{Object: Object{Service, name("far", "web")}}

	require.Equal(t, whole, Local("shop", local))
	require.Equal(t, whole, LocalSection("shop", gwv1.LocalPolicyTargetReferenceWithSectionName{
		LocalPolicyTargetReference: local,
	}))
	require.Equal(t, inSection, LocalSection("shop",
		gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: local, SectionName: &section}))
	require.Equal(t, whole, Namespaced("shop", gwv1.NamespacedPolicyTargetReference{Kind: "Service", Name: "web"}))
	require.Equal(t, elsewhere, Namespaced("shop", gwv1.NamespacedPolicyTargetReference{
		Kind: "Service", Name: "web", Namespace: &far,
	}))
	require.Equal(t, Target{Object: Object{Gateway, name("shop", "edge")}},
		Parent("shop", gwv1.ParentReference{Name: "edge"}))
	require.Equal(t, inSection, Parent(
		"shop", gwv1.ParentReference{Group: &group, Kind: &kind, Name: "web", SectionName: &section}))
	for _, target := range []Target{whole, inSection, elsewhere, {Object: Object{Gateway, name("shop", "edge")}}} {
		require.Equal(t, target, Parent("", target.ancestor()))
	}
}
