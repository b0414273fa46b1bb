// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Flags of `make bench`.
var (
	benchRoutes = flag.String("bench-routes", "",
		"numbers of routes to measure at, growing, such as 0,1000,3000; without, nothing is measured")
	benchOneService = flag.String("bench-one", "",
		"numbers of routes to measure at where all are for one Service, growing, such as 1000,3000")
	benchChurn = flag.Int("bench-churn", 50,
		"endpoint changes in a second, under which everything is measured once more")
	benchPolicyCounts = flag.String("bench-policies", "0",
		"numbers of policies to measure at, growing, such as 0,1000; each ten of them are for fifty pods")
	benchSamples = flag.Int("bench-samples", 20, "how often each figure is measured")
	benchOutput  = flag.String("bench-output", "", "file for the report, without .md, and for its figures, without .json")
)

// How routes of the load are spread over Services.
const (
	tenEach   = 10
	allForOne = 1 << 30
)

// TestBench measures how soon a change of the user's is in force, and what it costs, at growing numbers of routes. It
// reports and asserts nothing about time. `make bench` runs it, alone; `make test` leaves it out.
func TestBench(t *testing.T) {
	if *benchRoutes == "" {
		t.Skip("skipped: measures for minutes; run it by make bench")
	}
	report := benchReport{
		Cores: runtime.NumCPU(), Samples: *benchSamples, Churn: *benchChurn, Date: time.Now().Format(time.DateOnly),
	}
	version, err := world.clientset.Discovery().ServerVersion()
	require.NoError(t, err)
	report.Kubernetes = version.GitVersion
	for _, of := range []struct {
		perService int
		counts     string
	}{{tenEach, *benchRoutes}, {allForOne, *benchOneService}} {
		t.Run(fmt.Sprint(of.perService), func(t *testing.T) {
			b := newBench(t, of.perService)
			for _, routes := range numbers(t, of.counts) {
				report.Columns = append(report.Columns, b.column(routes))
				report.Load = max(report.Load, loadAverage(t))
				if *benchChurn > 0 {
					report.Columns = append(report.Columns, b.churned(*benchChurn, routes))
				}
			}
		})
	}
	p := newBenchPolicies(t)
	for _, policies := range numbers(t, *benchPolicyCounts) {
		report.Policies = append(report.Policies, p.column(policies))
		report.Load = max(report.Load, loadAverage(t))
	}
	t.Log("\n" + report.String())
	if *benchOutput != "" {
		require.NoError(t, os.WriteFile(*benchOutput+".md", []byte(report.String()), 0o644))
		figures, err := json.MarshalIndent(report.drawn(), "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*benchOutput+".json", append(figures, '\n'), 0o644))
	}
}

// loadAverage of the last minute, on the machine that the cluster runs on.
func loadAverage(t *testing.T) (load float64) {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	_, err = fmt.Sscan(string(text), &load)
	require.NoError(t, err)
	return load
}

// numbers of a flag, separated by commas.
func numbers(t *testing.T, list string) (out []int) {
	if list == "" {
		return nil
	}
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		require.NoError(t, err, list)
		out = append(out, n)
	}
	return out
}

// bench is one namespace: Service app, routed to app-v1, load-… with as many routes as are asked for, and Services
// whose only endpoint the benchmark moves from app-v1 to app-v2 and back: one dialled directly, two behind the
// waypoint, of which nobody asks the last.
type bench struct {
	*space
	routes, perService int
	// changing: endpoints change all the time, so the operators are never at rest.
	changing bool
}

const (
	benchDirect = "moving-direct"
	benchRouted = "moving-routed"
	benchBusy   = "moving-always"
)

func newBench(t *testing.T, perService int) *bench {
	t.Helper()
	// What is still being deleted keeps everyone busy.
	eventually.PassesWithin(t, 10*time.Minute, "the namespaces of other tests are gone", func(look require.TestingT) {
		var others corev1.NamespaceList
		require.NoError(look, world.client.List(t.Context(), &others, client.HasLabels{labelTest}))
		require.Empty(look, others.Items, "namespaces of other tests")
	})
	b := &bench{space: enrolled(t), perService: perService}
	b.client("client")
	b.versions("app")
	b.captured("client", "app-v1", "app-v2")
	b.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	b.programmed("app")
	b.routed("client", "http://app/", "app-v1")
	for _, name := range []string{benchDirect, benchRouted, benchBusy} {
		b.service(name, "", func(s *corev1.Service) { s.Spec.Selector = nil })
		http, port, ready := "http", int32(8080), true
		b.create(&discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{b.pod("app-v1").Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}},
			},
		})
	}
	for _, name := range []string{benchRouted, benchBusy} {
		b.create(httpRoute(name, toService(name), rule(nil, backend(name))))
		b.programmed(name)
	}
	b.answers("client", "http://"+benchDirect+"/", "app-v1")
	b.routed("client", "http://"+benchRouted+"/", "app-v1")
	return b
}

// column measures everything at a number of routes.
func (b *bench) column(routes int) benchColumn {
	b.t.Helper()
	out := benchColumn{Routes: routes, OnOne: b.perService == allForOne, Churn: b.changing}
	out.Fill = b.fill(routes)
	b.t.Logf("%d routes", routes)
	out.NewRoute = b.newEntries()
	b.t.Logf("new route: %s", out.NewRoute)
	out.EditedRoute, out.EditCost, out.Requests, out.Failed = b.edits()
	b.t.Logf("edited route: %s, failed %d of %d", out.EditedRoute, out.Failed, out.Requests)
	out.Direct = b.moves(benchDirect)
	out.Routed = b.moves(benchRouted)
	b.t.Logf("endpoint: %s; behind the waypoint: %s", out.Direct, out.Routed)
	out.Memory = b.usage().memory
	return out
}

// churned is column while endpoints of another Service change so many times in a second.
func (b *bench) churned(perSecond, routes int) benchColumn {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	var g errgroup.Group
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	made := 0
	g.Go(func() error {
		for ; ; made++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := b.move(ctx, benchBusy, []string{"app-v2", "app-v1"}[made%2]); err != nil && ctx.Err() == nil {
				return err
			}
		}
	})
	b.changing = true
	start := time.Now()
	out := b.column(routes)
	cancel()
	tick.Stop()
	b.changing = false
	require.NoError(b.t, g.Wait())
	b.t.Logf("meanwhile %.0f endpoint changes in a second", float64(made)/time.Since(start).Seconds())
	return out
}

// move replaces the only endpoint of a Service by another pod.
func (b *bench) move(ctx context.Context, service, to string) error {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: b.name, Name: service}}
	patch := fmt.Appendf(nil, `[{"op":"replace","path":"/endpoints/0/addresses","value":[%q]}]`, b.pod(to).Status.PodIP)
	return world.client.Patch(ctx, slice, client.RawPatch("application/json-patch+json", patch))
}

// fill creates what is missing of a number of routes and waits until all are Programmed.
func (b *bench) fill(routes int) benchFill {
	b.t.Helper()
	if routes <= b.routes {
		return benchFill{}
	}
	before, start := b.usage(), time.Now()
	var g errgroup.Group
	g.SetLimit(16)
	for i := b.routes; i < routes; i++ {
		service := fmt.Sprintf("load-%d", i/b.perService)
		if i%b.perService == 0 {
			b.service(service, "app-v1")
		}
		route := httpRoute(fmt.Sprintf("load-%d", i), toService(service),
			rule(underPath(fmt.Sprintf("/load-%d", i)), backend("app-v1")))
		route.Namespace = b.name
		g.Go(func() error { return world.client.Create(b.t.Context(), route) })
	}
	require.NoError(b.t, g.Wait())
	written := time.Since(start)
	eventually.PassesWithin(b.t, 10*time.Minute, "all routes are Programmed", func(look require.TestingT) {
		var list gwv1.HTTPRouteList
		require.NoError(look, world.client.List(b.t.Context(), &list, client.InNamespace(b.name)))
		pending := 0
		for i := range list.Items {
			if !meta.IsStatusConditionTrue(conditionsOf(list.Items[i].Status.Parents), v1alpha1.EntryConditionProgrammed) {
				pending++
			}
		}
		require.Zero(look, pending, "routes that are not Programmed")
	})
	out := benchFill{
		Routes: routes - b.routes, Written: written, Programmed: time.Since(start),
		CPU: b.usage().cpu - before.cpu,
	}
	b.routes = routes
	return out
}

// newEntries measures from before a route is created until it answers.
func (b *bench) newEntries() benchTimes {
	b.t.Helper()
	var out benchTimes
	for i := range *benchSamples {
		path := fmt.Sprintf("/new-%d", i)
		route := httpRoute("new", toService("app"), rule(underPath(path), backend("app-v2")))
		out = append(out, b.until("app-v2", "http://app"+path, func() { b.create(route) }))
		require.NoError(b.t, world.client.Delete(b.t.Context(), route))
	}
	return out
}

// edits measures from before a route is updated until it answers as it now says, what an edit costs the operator, and
// whether requests fail meanwhile.
func (b *bench) edits() (times benchTimes, cost benchCost, requests, failed int) {
	b.t.Helper()
	route := httpRoute("edited", toService("app"), rule(underPath("/edited"), backend("app-v1")))
	b.create(route)
	b.programmed(route.Name)
	steady := b.steady("client", "http://app/")
	cost = b.costs(1, func(i int) {
		to := []string{"app-v2", "app-v1"}[i%2]
		times = append(times, b.until(to, "http://app/edited", func() {
			edit(b.t, route, func() { route.Spec.Rules[0].BackendRefs = []gwv1.HTTPBackendRef{backend(to)} })
		}))
		b.programmed(route.Name)
	})
	total := steady.end()
	for _, count := range total {
		requests += count
	}
	for _, count := range total.failures() {
		failed += count
	}
	require.NoError(b.t, world.client.Delete(b.t.Context(), route))
	return times, cost, requests, failed
}

// costs is what an edit costs the operator. Each sample makes so many; after some of them nothing is changed for as
// long as they took, and what the operator used then is subtracted. It is at rest before either.
func (b *bench) costs(each int, sample func(n int)) (cost benchCost) {
	b.t.Helper()
	const together = 5
	for n := 0; n < *benchSamples; {
		b.rest()
		before, start := b.usage(), time.Now()
		for end := min(n+together, *benchSamples); n < end; n++ {
			sample(n)
		}
		after, took := b.usage(), time.Since(start)
		b.rest()
		idle := b.usage()
		time.Sleep(took) // nothing is waited for: this is the time that is measured
		then := b.usage()
		cost.CPU += (after.cpu - before.cpu) - (then.cpu - idle.cpu)
		cost.Bytes += after.bytes - before.bytes
	}
	edits := float64(each * *benchSamples)
	cost.CPU /= edits
	cost.Bytes /= edits
	return cost
}

// An operator is at rest that uses no more of a core than restRate for several windows of time, one after the other.
const (
	restRate    = 0.1
	restWindow  = 2 * time.Second
	restWindows = 3
)

// rest waits until the operators are: an edit's cost is what they use beyond that.
func (b *bench) rest() {
	b.t.Helper()
	if b.changing {
		return
	}
	last, at, calm := b.usage(), time.Now(), 0
	eventually.PassesWithin(b.t, 5*time.Minute, "the operators are at rest", func(look require.TestingT) {
		require.Greater(look, time.Since(at), restWindow, "a window of time")
		now := b.usage()
		rate := (now.cpu - last.cpu) / time.Since(at).Seconds()
		last, at = now, time.Now()
		if calm++; rate > restRate {
			calm = 0
		}
		require.GreaterOrEqual(look, calm, restWindows, "they use %.3f of a core", rate)
	})
}

// moves measures from before the only endpoint of a Service is replaced until the other one answers.
func (b *bench) moves(service string) benchTimes {
	b.t.Helper()
	var out benchTimes
	for i := range *benchSamples / 2 * 2 { // an even number: it ends where it began
		to := []string{"app-v2", "app-v1"}[i%2]
		out = append(out, b.until(to, "http://"+service+"/", func() {
			require.NoError(b.t, b.move(b.t.Context(), service, to))
		}))
	}
	return out
}

// until makes a change once a client asks, and returns how long after its beginning a server of that name answered.
// Pods and tests have one clock: it is the machine's.
func (b *bench) until(name, url string, change func()) time.Duration {
	b.t.Helper()
	out, in := io.Pipe()
	pod := b.pod("client")
	done := make(chan error, 1)
	go func() {
		err := execTo(b.t.Context(), &pod, in, "until", "--no-keepalive", "--name="+name, url)
		_ = in.CloseWithError(err) // nil is the end
		done <- err
	}()
	lines := bufio.NewScanner(out)
	require.True(b.t, lines.Scan(), "%v", lines.Err())
	require.Equal(b.t, "asking", lines.Text(), "the answer before the change")
	start := time.Now()
	change()
	require.True(b.t, lines.Scan(), "%v", lines.Err())
	nanos, err := strconv.ParseInt(lines.Text(), 10, 64)
	require.NoError(b.t, err)
	require.NoError(b.t, <-done)
	return time.Unix(0, nanos).Sub(start)
}

// usage is what all replicas of the operator have used: seconds of CPU, bytes of xDS; memory is that of the largest.
type usage struct{ cpu, bytes, memory float64 }

func (b *bench) usage() usage {
	b.t.Helper()
	operators, err := component(b.t.Context(), names.SystemNamespace, names.ComponentOperator)
	require.NoError(b.t, err)
	var out usage
	for i := range operators {
		all := families(b.t, b.t, &operators[i], names.PortAdmin)
		sum := func(name string) (total float64) {
			for _, m := range all[name].GetMetric() {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return total
		}
		out.cpu += sum("process_cpu_seconds_total")
		out.bytes += sum("fairway_xds_sent_bytes_total")
		out.memory = max(out.memory, sum("process_resident_memory_bytes"))
	}
	return out
}
