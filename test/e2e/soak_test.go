// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

var soak = flag.Duration("soak", 0,
	"for how long TestNothingGrows keeps the dev cluster busy, such as 1h; without, it is left out")

// TestNothingGrows keeps a namespace in use, and has the same changes made to it again and again: routes edited,
// Services, service accounts and pods that come, are used, and go, endpoints scaled. In the last third of the time the
// processes of the mesh hold no more than in the one before, and write as often.
func TestNothingGrows(t *testing.T) {
	if *soak == 0 {
		t.Skip("skipped: it takes an hour; run it by make soak")
	}
	s := newLoaded(t)
	var held []holding
	for start, n := time.Now(), 0; time.Since(start) < *soak; n++ {
		// What a round opens, such as forwarded ports, goes with it.
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			here := *s
			here.space = &space{t: t, name: s.name}
			here.churn(n)
			here.results("meanwhile")
			held = append(held, here.held())
			t.Logf("after %s", time.Since(start).Round(time.Second))
		})
		if t.Failed() {
			break
		}
	}
	tellGrowth(t, held)
}

// churn is one round of changes, after which everything is as it was before.
func (s *loaded) churn(round int) {
	s.t.Helper()
	for n := range 20 {
		edit(s.t, s.route, func() {
			s.route.Spec.Rules[0].Matches = [][]gwv1.HTTPRouteMatch{underPath("/"), nil}[n%2]
		})
	}
	s.programmed(s.route.Name)
	s.scale("web", 4)
	name := fmt.Sprintf("visitor-%d", round)
	s.server(name, twoReplicas)
	direct := s.service(name, name, through(names.UseWaypointNone))
	behind := s.service(name+"-l7", name, through(loadedWaypoint))
	route := httpRoute(name, toService(behind.Name), rule(nil, backend(behind.Name)))
	s.create(route)
	s.captured(name)
	s.programmed(name)
	s.answers(name, "http://"+direct.Name+"/", name)
	s.routed(name, "http://"+behind.Name+"/", name)
	s.goes(name)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: name}}
	for _, o := range []client.Object{route, behind, direct, account} {
		require.NoError(s.t, world.client.Delete(s.t.Context(), o))
	}
	s.scale("web", 2)
	eventually.PassesWithin(s.t, 2*time.Minute, name+" is gone", func(look require.TestingT) {
		var pods corev1.PodList
		require.NoError(look, world.client.List(s.t.Context(), &pods, client.InNamespace(s.name),
			client.MatchingLabels{"app": name}))
		require.Empty(look, pods.Items)
	})
}

// holding is what each process of the mesh holds, and how often it has written to the API server so far.
type holding map[string]float64

// held by the processes of the mesh now.
func (s *loaded) held() holding {
	s.t.Helper()
	out := holding{}
	out.of(s.t, "operator", names.PortAdmin, client.InNamespace(names.SystemNamespace),
		client.MatchingLabels{names.LabelComponent: names.ComponentOperator})
	out.of(s.t, "node", names.PortAdmin, client.InNamespace(names.SystemNamespace),
		client.MatchingLabels{names.LabelComponent: names.ComponentNode})
	out.of(s.t, "waypoint", names.PortAgent, client.InNamespace(s.name),
		client.MatchingLabels{names.LabelGatewayName: loadedWaypoint})
	for _, node := range nodeNames(s.t) {
		out[node+", descriptors of Envoys"] = countedOn(s.t, node,
			`for p in $(pgrep -x envoy); do ls /proc/$p/fd; done | wc -l`)
		out[node+", connections tracked"] = countedOn(s.t, node, `total=0
			for ns in /var/run/netns/*; do
				n=$(nsenter --net=$ns cat /proc/sys/net/netfilter/nf_conntrack_count) && total=$((total + n))
			done
			echo $((total + $(cat /proc/sys/net/netfilter/nf_conntrack_count)))`)
	}
	return out
}

// kept are the metrics of what a process holds; an agent tells its Envoy's, too.
var kept = map[string]string{
	"process_resident_memory_bytes":     "resident",
	"go_memstats_heap_inuse_bytes":      "heap",
	"process_open_fds":                  "descriptors",
	"go_goroutines":                     "goroutines",
	"envoy_server_memory_allocated":     "Envoy's memory",
	"envoy_server_memory_physical_size": "Envoy's pages",
	"fairway_relay_contexts":            "certificates' contexts",
}

// of the pods of a part of the mesh, by their metrics.
func (h holding) of(t *testing.T, part string, port int, which ...client.ListOption) {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, world.client.List(t.Context(), &pods, which...))
	require.NotEmpty(t, pods.Items, part)
	for i := range pods.Items {
		all := families(t, t, &pods.Items[i], port)
		h.sum(part+" "+pods.Items[i].Name, all)
	}
}

func (h holding) sum(of string, all map[string]*dto.MetricFamily) {
	for name, what := range kept {
		if family := all[name]; family != nil {
			h[of+", "+what] = family.GetMetric()[0].GetGauge().GetValue() + family.GetMetric()[0].GetUntyped().GetValue()
		}
	}
	for _, m := range all["rest_client_requests_total"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "method" && l.GetValue() != "GET" {
				h[of+", "+written] += m.GetCounter().GetValue()
			}
		}
	}
}

// written are requests to the API server that change something: what is counted, and not held.
const written = "writes"

// countedOn a node of the dev cluster, by a script that prints a number.
func countedOn(t *testing.T, node, script string) (n float64) {
	t.Helper()
	out, err := devClusterCommand(t, node, script).Output()
	require.NoError(t, err, script)
	_, err = fmt.Sscan(string(out), &n)
	require.NoError(t, err, "%s: %s", script, out)
	return n
}

// tellGrowth of everything from the second third of the rounds to the last: caches fill in the first.
func tellGrowth(t *testing.T, rounds []holding) {
	t.Helper()
	require.GreaterOrEqual(t, len(rounds), 9, "rounds are too few to tell growth")
	third := len(rounds) / 3
	middle, last := rounds[third:2*third], rounds[2*third:]
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "before\tafter\t\t")
	for _, what := range slices.Sorted(maps.Keys(rounds[0])) {
		before, after := median(middle, what), median(last, what)
		if strings.HasSuffix(what, ", "+written) {
			before, after = perRound(middle, what), perRound(last, what)
		}
		fmt.Fprintf(w, "%.0f\t%.0f\t%s\t\n", before, after, what)
		// A tenth and a little is what one round differs from another by.
		assert.LessOrEqual(t, after, before*1.1+slack(what), "%s: it grew", what)
	}
	require.NoError(t, w.Flush())
	t.Logf("medians of rounds %d to %d, and of those after them:\n%s", third+1, 2*third, table.String())
}

// slack that a median may differ by, whatever it is of.
func slack(what string) float64 {
	switch {
	case strings.HasSuffix(what, "resident"), strings.HasSuffix(what, "heap"), strings.HasSuffix(what, "memory"),
		strings.HasSuffix(what, "pages"):
		return 4 << 20
	case strings.HasSuffix(what, "connections tracked"):
		return 4000 // each is for two minutes after its end, and how many are made is the machine's to say
	default:
		return 10
	}
}

func median(rounds []holding, what string) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, r[what])
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// perRound is how much a count rises from one round to the next.
func perRound(rounds []holding, what string) float64 {
	return (rounds[len(rounds)-1][what] - rounds[0][what]) / float64(len(rounds)-1)
}
