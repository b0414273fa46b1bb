// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

var (
	counts  = flag.String("routes", "0,1000,3000", "numbers of routes to measure at, growing")
	spread  = flag.Int("per-service", 10, "routes of each Service")
	samples = flag.Int("samples", 50, "how often each change is made")
)

// The Services that are there before routes are measured: the one whose route is edited, two that it leads to in turn,
// and one whose endpoint moves among the addresses of the others'.
const (
	app = iota
	first
	second
	moving
	others // those of the load follow
)

// load is a small cluster, to which routes are added: one node, and one waypoint of one proxy. Both proxies are
// connected to the operator that doesn't lead.
type load struct {
	*scene
	made int
}

// BenchmarkRoutes is what routes cost both operators: to be created, and an edit of one among them.
func BenchmarkRoutes(b *testing.B) {
	l := newLoad(b)
	for text := range strings.SplitSeq(*counts, ",") {
		n, err := strconv.Atoi(text)
		require.NoError(b, err)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				l.profiled(fmt.Sprintf("fill-%d", n), func() { l.fill(b, n) })
				l.profiled(fmt.Sprintf("edit-%d", n), func() { l.edits(b) })
				l.profiled(fmt.Sprintf("move-%d", n), func() { l.moves(b) })
				l.memory(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func newLoad(b *testing.B) *load {
	b.Helper()
	s := newScene(b, size{
		Nodes: 1, Services: others, Pods: others, Routes: others, Waypoints: 1, Dials: others,
	}, apiserver.Experimental)
	s.fill()
	leader, other := s.operators[0], s.operators[1]
	leader.start()
	leader.ready()
	s.mesh()
	s.pods = s.roll(s.deployments())
	other.start()
	other.ready()
	s.fleet.direct(other)
	s.connect()
	s.served()
	eventually.Within(b, patience, "statuses settle", s.programmed)
	return &load{scene: s}
}

// node and waypoint are the two proxies.
func (l *load) node() *proxy     { return l.fleet.proxies[0] }
func (l *load) waypoint() *proxy { return l.fleet.proxies[1] }

// used runs something and returns what each operator has used of the CPU meanwhile and until it is at rest, without
// what they use when at rest.
func (l *load) used(f func()) (seconds []float64) {
	l.calm(0.03, 3)
	before, start := l.cpus(), time.Now()
	f()
	l.calm(0.03, 3)
	after, took := l.cpus(), time.Since(start)
	window := min(took, 5*time.Second)
	time.Sleep(window) // nothing is waited for: this is the time that is measured
	for n, idle := range l.cpus() {
		idle = (idle - after[n]) * took.Seconds() / window.Seconds()
		seconds = append(seconds, after[n]-before[n]-idle)
	}
	return seconds
}

// cpus are the seconds that each operator has used.
func (l *load) cpus() (out []float64) {
	for _, o := range l.operators {
		out = append(out, o.cpu().Seconds())
	}
	return out
}

func perOperator(b *testing.B, what string, seconds []float64, each int) {
	b.Helper()
	sum := 0.
	for n, s := range seconds {
		sum += s
		b.ReportMetric(s*1000/float64(each), fmt.Sprintf("%s-ms-cpu-%d", what, n+1))
	}
	b.ReportMetric(sum*1000/float64(each), what+"-ms-cpu")
}

// service that the routes of a number are of, which the node's proxy asks for, as for a client that connects there.
func (l *load) service(route int) *corev1.Service {
	l.t.Helper()
	n := others + route / *spread
	for len(l.services) <= n {
		l.services = append(l.services, nil)
		require.NoError(l.t, l.world.service(l.t.Context(), len(l.services)-1))
		l.node().want(xds.TypeCluster, l.services[len(l.services)-1].Spec.ClusterIP+":80")
	}
	return l.services[n]
}

// fill creates routes until there are so many.
func (l *load) fill(b *testing.B, n int) {
	b.Helper()
	if n <= l.made {
		return
	}
	var missing sync.Map
	for i := l.made; i < n; i++ {
		missing.Store(fmt.Sprintf("/load-%d", i), true)
	}
	var left atomic.Int64
	left.Store(int64(n - l.made))
	answer := make(chan struct{})
	l.waypoint().tell(xds.TypeRoute, func(r *discoveryv3.Resource) {
		for _, path := range pathsOf(r.GetResource().GetValue()) {
			if _, was := missing.LoadAndDelete(path); was && left.Add(-1) == 0 {
				close(answer)
			}
		}
	})
	var written, answered, done time.Duration
	cost := l.used(func() {
		start := time.Now()
		var g errgroup.Group
		g.SetLimit(16)
		for i := l.made; i < n; i++ {
			name := fmt.Sprint("load-", i)
			r := routeOf(name, l.service(i), "/"+name, l.services[first])
			g.Go(func() error { return l.Create(b.Context(), r) })
		}
		require.NoError(b, g.Wait())
		written = time.Since(start)
		<-answer
		answered = time.Since(start)
		l.Routes += n - l.made
		eventually.Within(b, patience, "all are Programmed", l.programmed)
		done = time.Since(start)
	})
	l.made = n
	perOperator(b, "fill", cost, 1)
	b.ReportMetric(written.Seconds(), "written-s")
	b.ReportMetric(answered.Seconds(), "answered-s")
	b.ReportMetric(done.Seconds(), "programmed-s")
}

// pathsOf finds the paths of the load in a table.
func pathsOf(table []byte) (out []string) {
	for rest := table; ; {
		_, after, ok := bytes.Cut(rest, []byte("/load-"))
		if !ok {
			return out
		}
		n := 0
		for n < len(after) && after[n] >= '0' && after[n] <= '9' {
			n++
		}
		out, rest = append(out, "/load-"+string(after[:n])), after[n:]
	}
}

// edits one route, which is of a Service of its own where routes are spread, and else of the one that has all.
func (l *load) edits(b *testing.B) {
	b.Helper()
	of := l.services[app]
	if *spread > 1000 && l.made > 0 {
		of = l.service(0)
	}
	r := routeOf("edited", of, "/edited", l.services[first])
	require.NoError(b, l.Create(b.Context(), r))
	changes, err := l.Watch(b.Context(), &gwv1.HTTPRouteList{}, client.InNamespace(r.Namespace),
		client.MatchingFields{"metadata.name": r.Name})
	require.NoError(b, err)
	defer changes.Stop()
	got := make(chan time.Time, 100)
	l.waypoint().tell(xds.TypeRoute, func(r *discoveryv3.Resource) {
		if bytes.Contains(r.GetResource().GetValue(), []byte("/edited")) {
			got <- time.Now()
		}
	})
	untilProgrammed := func(generation int64) {
		for e := range changes.ResultChan() {
			now, ok := e.Object.(*gwv1.HTTPRoute)
			if ok && e.Type != watch.Bookmark && now.Generation >= generation && programmed(now) {
				r = now.DeepCopy()
				return
			}
		}
	}
	untilProgrammed(1)
	l.calm(0.03, 3)
	for len(got) > 0 {
		<-got
	}
	var times, said []time.Duration
	cost := l.used(func() {
		for i := range *samples {
			to := l.services[[]int{second, first}[i%2]]
			r.Spec.Rules[0].BackendRefs[0].Name = gwv1.ObjectName(to.Name)
			start := time.Now()
			require.NoError(b, l.Update(b.Context(), r))
			times = append(times, (<-got).Sub(start))
			untilProgrammed(r.Generation)
			said = append(said, time.Since(start))
		}
	})
	perOperator(b, "edit", cost, *samples)
	quantiles(b, "edit", times)
	quantiles(b, "edit-said", said)
	require.NoError(b, l.Delete(b.Context(), r))
}

// moves the endpoint of one Service behind the waypoint.
func (l *load) moves(b *testing.B) {
	b.Helper()
	got := make(chan string, 1000)
	name := l.services[moving].Name
	l.waypoint().tell(xds.TypeEndpoint, func(r *discoveryv3.Resource) {
		for n := range moving {
			address := podAddress(l.Nodes, n).String()
			if strings.Contains(r.GetName(), name) && bytes.Contains(r.GetResource().GetValue(), []byte(address)) {
				got <- address
			}
		}
	})
	var times, written, since []time.Duration
	slice := l.endpoints(moving)
	changes := *samples / moving * moving
	cost := l.used(func() {
		for i := range changes {
			to := podAddress(l.Nodes, i%moving).String()
			start := time.Now()
			require.NoError(b, l.Patch(b.Context(), slice, client.RawPatch(types.JSONPatchType,
				fmt.Appendf(nil, `[{"op":"replace","path":"/endpoints/0/addresses","value":[%q]}]`, to))))
			wrote := time.Now()
			for address := range got {
				if address == to {
					break
				}
			}
			times = append(times, time.Since(start))
			written, since = append(written, wrote.Sub(start)), append(since, time.Since(wrote))
		}
	})
	quantiles(b, "move-write", written)
	quantiles(b, "move-written", since)
	perOperator(b, "move", cost, changes)
	quantiles(b, "move", times)
}

func quantiles(b *testing.B, what string, times []time.Duration) {
	b.Helper()
	slices.SortFunc(times, cmp.Compare[time.Duration])
	b.ReportMetric(times[len(times)/2].Seconds()*1000, what+"-p50-ms")
	b.ReportMetric(times[len(times)-1].Seconds()*1000, what+"-worst-ms")
}

func (l *load) memory(b *testing.B) {
	b.Helper()
	for n, o := range l.operators {
		u := o.usage()
		b.ReportMetric(float64(u.resident)/1e6, fmt.Sprintf("resident-MB-%d", n+1))
		b.ReportMetric(float64(u.file)/1e6, fmt.Sprintf("file-MB-%d", n+1))
		b.ReportMetric(float64(u.live)/1e6, fmt.Sprintf("live-MB-%d", n+1))
		b.ReportMetric(float64(u.collections), fmt.Sprintf("gcs-%d", n+1))
	}
}

// profiled has both operators profiled meanwhile, where profiles are wanted.
func (l *load) profiled(what string, f func()) {
	l.t.Helper()
	if *profiles == "" {
		f()
		return
	}
	for _, o := range l.operators {
		o.ask("/profile/start")
	}
	f()
	for _, o := range l.operators {
		o.keep("cpu", what, o.ask("/profile/stop"))
		o.heap(what)
	}
}
