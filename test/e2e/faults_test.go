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
	"while each fault of TestNothingIsCut… is made again and again, so many requests, streams and connections at least")

// TestNothingIsCutByTheOwner of a namespace: routes are edited, a waypoint and what is behind it come and go.
func TestNothingIsCutByTheOwner(t *testing.T) {
	t.Parallel()
	s := newLoaded(t)
	parameters := func(spec v1alpha1.ProxyParametersSpec) {
		p := &v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: loadedWaypoint}}
		edit(t, p, func() { p.Spec = spec })
	}
	s.during("routes edited", func(int) {
		for n := range 100 {
			edit(t, s.route, func() {
				s.route.Spec.Rules[0].Matches = [][]gwv1.HTTPRouteMatch{underPath("/"), nil}[n%2]
			})
		}
		s.programmed(s.route.Name)
	})
	s.during("waypoint rolled", func(n int) {
		changed := waypointReplicas(2)
		changed.PodAnnotations = map[string]string{"example.com/round": fmt.Sprint(n)}
		parameters(changed)
		s.rolledOut(loadedWaypoint, func(d *appsv1.Deployment) bool {
			return d.Spec.Template.Annotations["example.com/round"] == fmt.Sprint(n)
		})
	})
	s.during("waypoint scaled up and down", func(int) {
		for _, replicas := range []int32{4, 2} {
			parameters(waypointReplicas(replicas))
			s.rolledOut(loadedWaypoint, func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == replicas })
		}
	})
	s.during("endpoints scaled up and down", func(int) {
		for _, replicas := range []int32{6, 1, 2} {
			s.scale("web", replicas)
			s.scale("mirror", replicas)
		}
	})
}

// TestNothingIsCutByTheMesh: its parts are replaced. Now and then a connection of TCP still ends early while node
// proxies are rolled out, which is known (docs/design/replacing-node-proxies.md), so that is asked for by -fault-units.
func TestNothingIsCutByTheMesh(t *testing.T) {
	s := newLoaded(t)
	if *faultUnits > 0 {
		s.during("node proxies rolled out", func(int) {
			rollOut(t, nodeProxies())
			nodesRolledOut(t)
		})
		s.during("node proxies deleted", func(int) { replaced(t, names.SystemNamespace, names.ComponentNode, nil) })
	}
	s.during("operators killed", func(int) {
		replaced(t, names.SystemNamespace, names.ComponentOperator, nil, client.GracePeriodSeconds(0))
	})
}

// loaded is a namespace that is used all the time: requests on connections that are kept, and on new ones, streams of
// gRPC, and connections of TCP whose bytes are counted, to pods and through a waypoint.
type loaded struct {
	*space
	route *gwv1.HTTPRoute
}

const loadedWaypoint = "mine"

// loadedWays are what is used.
var loadedWays = []string{"pods", "waypoint"}

func newLoaded(t *testing.T) *loaded {
	t.Helper()
	s := &loaded{space: enrolled(t, names.LabelMTLSMode, names.MTLSStrict)}
	s.server("web", twoReplicas)
	s.server("mirror", twoReplicas, arguments("tcp-mirror", "--port=8080"), spec(func(p *corev1.PodSpec) {
		p.Containers[0].ReadinessProbe.ProbeHandler = tcpProbe("http")
	}))
	s.create(&v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Name: loadedWaypoint}, Spec: waypointReplicas(2)})
	s.gateway(loadedWaypoint, parametersOf(loadedWaypoint))
	for _, way := range loadedWays {
		through := func(svc *corev1.Service) {
			if way == "waypoint" {
				svc.Labels = map[string]string{names.LabelUseWaypoint: loadedWaypoint}
			}
		}
		s.service("web-"+way, "web", through)
		s.service("mirror-"+way, "mirror", through, func(svc *corev1.Service) {
			svc.Spec.Ports[0].Name, svc.Spec.Ports[0].AppProtocol = "tcp", nil
		})
	}
	s.route = httpRoute("web", toService("web-waypoint"), rule(nil, backend("web-waypoint")))
	s.create(s.route)
	s.captured("web", "mirror")
	s.programmed("web")
	for _, way := range loadedWays {
		s.client("load-"+way, arguments("load", "--http=web-"+way+":80", "--tcp=mirror-"+way+":80", "--every=20ms"),
			spec(func(p *corev1.PodSpec) { p.Containers[0].ReadinessProbe, p.Containers[0].Lifecycle = nil, nil }))
		s.captured("load-" + way)
	}
	for _, way := range loadedWays {
		s.results("load-" + way) // while it all came up
	}
	return s
}

// during a fault nothing fails.
func (s *loaded) during(what string, fault func(n int)) {
	s.t.Helper()
	for _, way := range loadedWays {
		for _, r := range s.results("load-" + way) { // what the fault before did late
			require.Zero(s.t, r.Failed, "before %s, %s, %s: %d failed: %v", what, way, r.Kind, r.Failed, r.Failures)
		}
	}
	start, total := time.Now(), map[string]int{}
	for n, units := 0, 0; n == 0 || units < *faultUnits; n++ {
		fault(n)
		for _, way := range loadedWays {
			for _, r := range s.results("load-" + way) {
				require.Zero(s.t, r.Failed, "%s, %s, %s: %d of %d failed: %v", what, way, r.Kind, r.Failed, r.Done, r.Failures)
				require.NotZero(s.t, r.Done, "%s, %s, %s", what, way, r.Kind)
				total[way+"/"+r.Kind] += r.Done
				units += r.Done
			}
		}
	}
	s.t.Logf("%s, %s: none failed of %v", what, time.Since(start).Round(time.Second), total)
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
	Kind         string
	Done, Failed int
	Failures     map[string]int
}

// results of a load since they were asked for last, once all that began has ended.
func (s *loaded) results(load string) (out []loadResult) {
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
