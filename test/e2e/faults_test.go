// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

var faultUnits = flag.Int("fault-units", 0,
	"while each fault of TestNothingIsCut… is made again and again, so many requests, streams and connections at least;\n"+
		"those that aren't made by default are made then, too")

// fault is what happens to the mesh, or to what it stands on. In the end all is as it was before.
type fault struct {
	what string
	// asked for it must be, by -fault-units.
	asked bool
	// happens the n-th time.
	happens func(s *loaded, n int)
}

// TestNothingIsCutByTheOwner of a namespace: routes are edited, a waypoint and what is behind it come and go.
func TestNothingIsCutByTheOwner(t *testing.T) {
	t.Parallel()
	newLoaded(t).during(
		fault{what: "routes edited", happens: func(s *loaded, _ int) {
			for n := range 100 {
				edit(s.t, s.route, func() {
					s.route.Spec.Rules[0].Matches = [][]gwv1.HTTPRouteMatch{underPath("/"), nil}[n%2]
				})
			}
			s.programmed(s.route.Name)
		}},
		fault{what: "waypoint rolled", happens: func(s *loaded, n int) { s.rollWaypoint(fmt.Sprint(n)) }},
		fault{what: "waypoint scaled up and down", happens: func(s *loaded, _ int) {
			for _, replicas := range []int32{4, 2} {
				s.parameters(waypointReplicas(replicas))
				s.rolledOut(loadedWaypoint, func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == replicas })
			}
		}},
		fault{what: "endpoints scaled up and down", happens: func(s *loaded, _ int) {
			for _, replicas := range []int32{6, 1, 2} {
				s.scale("web", replicas)
				s.scale("mirror", replicas)
			}
		}},
	)
}

// TestNothingIsCutByTheMesh: its parts are replaced.
func TestNothingIsCutByTheMesh(t *testing.T) {
	newLoaded(t).during(
		fault{what: "node proxies rolled out", happens: func(s *loaded, _ int) {
			rollOut(s.t, nodeProxies())
			nodesRolledOut(s.t)
		}},
		fault{what: "node proxies deleted", asked: true, happens: func(s *loaded, _ int) {
			replaced(s.t, names.SystemNamespace, names.ComponentNode, nil)
		}},
		fault{what: "operators killed", happens: func(s *loaded, _ int) {
			replaced(s.t, names.SystemNamespace, names.ComponentOperator, nil, client.GracePeriodSeconds(0))
		}},
		fault{what: "agents killed", asked: true, happens: func(s *loaded, _ int) { s.killAgents() }},
		fault{what: "node proxies of another configuration", asked: true, happens: func(s *loaded, _ int) {
			for _, concurrency := range []string{"3", "null"} {
				s.nodesWith(`{"concurrency":` + concurrency + `}`)
			}
		}},
		fault{what: "CA changed", asked: true, happens: func(s *loaded, _ int) { s.changeCA() }},
	)
}

// loaded is a namespace that is used all the time: requests on connections that are kept, and on new ones, streams of
// gRPC, and connections of TCP whose bytes are counted, to pods and through a waypoint.
type loaded struct {
	*space
	route *gwv1.HTTPRoute
	// started is when the process of each load began.
	started map[string]time.Time
}

const loadedWaypoint = "mine"

// loadedWays are what is used, and for comparison the same beside the mesh, between nodes: what a fault, or a machine
// that has too much to do, keeps waiting by itself.
var loadedWays = []string{"pods", "waypoint", beside}

const beside = "beside"

func newLoaded(t *testing.T) *loaded {
	t.Helper()
	s := &loaded{space: enrolled(t, names.LabelMTLSMode, names.MTLSStrict), started: map[string]time.Time{}}
	s.server("web", twoReplicas)
	s.server("mirror", twoReplicas, arguments("tcp-mirror", "--port=8080"), spec(func(p *corev1.PodSpec) {
		p.Containers[0].ReadinessProbe.ProbeHandler = tcpProbe("http")
	}))
	s.create(&v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Name: loadedWaypoint}, Spec: waypointReplicas(2)})
	s.gateway(loadedWaypoint, parametersOf(loadedWaypoint))
	http, tcp := map[string]string{}, map[string]string{}
	for way, waypoint := range map[string]string{"pods": names.UseWaypointNone, "waypoint": loadedWaypoint} {
		// By address, for no fault of the mesh's is to be mistaken for one of the cluster's DNS, or the other way round.
		http[way] = s.service("web-"+way, "web", through(waypoint)).Spec.ClusterIP
		tcp[way] = s.service("mirror-"+way, "mirror", through(waypoint), func(svc *corev1.Service) {
			svc.Spec.Ports[0].Name, svc.Spec.Ports[0].AppProtocol = "tcp", nil
		}).Spec.ClusterIP
	}
	s.route = httpRoute("web", toService("web-waypoint"), rule(nil, backend("web-waypoint")))
	s.create(s.route)
	s.captured("web", "mirror")
	s.programmed("web")
	for way := range http {
		s.load(way, []string{"--http=" + http[way] + ":80", "--tcp=" + tcp[way] + ":80"})
		s.captured("load-" + way)
	}
	outside := podLabel(names.LabelMesh, names.MeshDisabled)
	s.server(beside, outside)
	s.load(beside, []string{"--http=" + s.service(beside, beside).Spec.ClusterIP + ":80", "--kinds=kept,new"},
		outside, apartFrom(beside))
	for _, way := range loadedWays {
		for _, r := range s.resultsOf("load-" + way) { // while it all came up
			s.started[way] = r.Started
		}
	}
	return s
}

// load of a way: as much as others can spare who run beside it, or enough for many units. What fails is told at once,
// but what hangs is left to hang: for how long is compared.
func (s *loaded) load(way string, flags []string, opts ...option) {
	s.t.Helper()
	every := "100ms"
	if *faultUnits > 0 {
		every = "20ms"
	}
	flags = append([]string{"load", "--every=" + every, "--timeout=30s"}, flags...)
	s.client("load-"+way, append(opts, arguments(flags...),
		spec(func(p *corev1.PodSpec) { p.Containers[0].ReadinessProbe, p.Containers[0].Lifecycle = nil, nil }))...)
}

// impatience is how much longer than beside the mesh nobody waits for anything: who runs into the node proxies' time
// limit for a connection waits so long.
const impatience = 5 * time.Second

// during faults, one after the other, nothing fails.
func (s *loaded) during(faults ...fault) {
	for _, f := range faults {
		if f.asked && *faultUnits == 0 {
			continue
		}
		s.t.Run(f.what, func(t *testing.T) {
			here := *s
			here.space = &space{t: t, name: s.name}
			here.whole(f)
		})
	}
}

// whole is everything while a fault happens.
func (s *loaded) whole(f fault) {
	s.t.Helper()
	s.results("before it") // what the fault before did late
	start, units, all := time.Now(), 0, map[string]*loadResult{}
	for n := 0; n == 0 || units < *faultUnits; n++ {
		f.happens(s, n)
		for what, r := range s.results("meanwhile") {
			units += r.Done
			if all[what] == nil {
				all[what] = &loadResult{}
			}
			all[what].Done += r.Done
			all[what].LongestSeconds = max(all[what].LongestSeconds, r.LongestSeconds)
		}
	}
	for what, r := range all {
		s.t.Logf("%s: none of %d failed, the longest wait was %.2fs", what, r.Done, r.LongestSeconds)
	}
	s.t.Logf("%d in all, in %s", units, time.Since(start).Round(time.Second))
}

// rollWaypoint replaces its pods by others that have a mark of this round.
func (s *loaded) rollWaypoint(round string) {
	s.t.Helper()
	changed := waypointReplicas(2)
	changed.PodAnnotations = map[string]string{"example.com/round": round}
	s.parameters(changed)
	s.rolledOut(loadedWaypoint, func(d *appsv1.Deployment) bool {
		return d.Spec.Template.Annotations["example.com/round"] == round
	})
}

func (s *loaded) parameters(spec v1alpha1.ProxyParametersSpec) {
	p := &v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: loadedWaypoint}}
	edit(s.t, p, func() { p.Spec = spec })
}

func waypointReplicas(n int32) v1alpha1.ProxyParametersSpec {
	return v1alpha1.ProxyParametersSpec{Replicas: &n}
}

// rolledOut waits until a Deployment is as a change has it, and complete; what goes may still drain.
func (s *space) rolledOut(name string, changed func(*appsv1.Deployment) bool) {
	s.t.Helper()
	what := fmt.Sprintf("Deployment %s is rolled out", name)
	eventually.PassesWithin(s.t, 2*time.Minute, what, func(look require.TestingT) {
		var d appsv1.Deployment
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKey{Namespace: s.name, Name: name}, &d))
		require.True(look, changed(&d), "it isn't changed")
		require.Equal(look, d.Generation, d.Status.ObservedGeneration)
		require.Equal(look, *d.Spec.Replicas, d.Status.UpdatedReplicas)
		require.Equal(look, *d.Spec.Replicas, d.Status.AvailableReplicas)
		require.Equal(look, *d.Spec.Replicas, d.Status.Replicas)
		var pods corev1.PodList
		require.NoError(look, world.client.List(s.t.Context(), &pods, client.InNamespace(s.name),
			client.MatchingLabels{names.LabelGatewayName: name}))
		require.Len(look, pods.Items, int(*d.Spec.Replicas), "what goes has drained")
	})
}

// loadResult is what came of one kind of load, as the test tool tells it.
type loadResult struct {
	Kind           string
	Started        time.Time
	Done, Failed   int
	LongestSeconds float64
	Failures       map[string]int
}

// results of each way and kind since they were asked for last, once all that began has ended. In the mesh none failed,
// and nothing was waited for much longer than beside it.
func (s *loaded) results(when string) map[string]loadResult {
	s.t.Helper()
	out, longest := map[string]loadResult{}, 0.0
	for _, way := range loadedWays {
		for _, r := range s.resultsOf("load-" + way) {
			require.True(s.t, s.started[way].Equal(r.Started), "%s, the load %s: it was restarted", when, way)
			if way == beside {
				longest = max(longest, r.LongestSeconds)
				continue
			}
			out[way+", "+r.Kind] = r
		}
	}
	limit := 2*longest + impatience.Seconds()
	for what, r := range out {
		assert.Zero(s.t, r.Failed, "%s, %s: %d of %d failed: %v", when, what, r.Failed, r.Done, r.Failures)
		assert.NotZero(s.t, r.Done, "%s, %s", when, what)
		assert.Less(s.t, r.LongestSeconds, limit, "%s, %s: seconds for which something was waited; beside the mesh %.2f",
			when, what, longest)
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
	s.t.Logf("%s: the longest wait beside the mesh was %.2fs", when, longest)
	return out
}

func (s *loaded) resultsOf(load string) (out []loadResult) {
	s.t.Helper()
	text, err := s.exec(s.t.Context(), load, "get", "--timeout=1m", "http://127.0.0.1:8090/results")
	require.NoError(s.t, err)
	status, lines, _ := strings.Cut(text, "\n")
	require.Equal(s.t, "200", status, text)
	for line := range strings.Lines(lines) {
		var r loadResult
		require.NoError(s.t, json.Unmarshal([]byte(line), &r), line)
		out = append(out, r)
	}
	require.NotEmpty(s.t, out, text)
	return out
}
