// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
)

var (
	counts   = flag.String("routes", "0,1000,3000", "numbers of routes to measure at, growing")
	spread   = flag.Int("per-service", 10, "routes of each Service")
	samples  = flag.Int("samples", 50, "how often each change is made")
	profiles = flag.String("profiles", "", "directory for profiles of both operators; none without")
)

// BenchmarkRoutes is what routes cost both operators: to be created, and an edit of one among them.
func BenchmarkRoutes(b *testing.B) {
	w := newWorld(b)
	made := 0
	for text := range strings.SplitSeq(*counts, ",") {
		n, err := strconv.Atoi(text)
		require.NoError(b, err)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				w.profiled(b, fmt.Sprintf("fill-%d", n), func() { w.fill(b, made, n) })
				made = max(made, n)
				w.profiled(b, fmt.Sprintf("edit-%d", n), func() { w.edits(b, made) })
				w.profiled(b, fmt.Sprintf("move-%d", n), func() { w.moves(b) })
				w.memory(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// used runs something and returns what each replica has used of the CPU meanwhile and until it is at rest, without what
// they use when at rest.
func (w *world) used(b *testing.B, f func()) (seconds []float64) {
	w.rest(b)
	before, start := w.cpu(b), time.Now()
	f()
	w.rest(b)
	after, took := w.cpu(b), time.Since(start)
	window := min(took, 5*time.Second)
	time.Sleep(window) // nothing is waited for: this is the time that is measured
	for n, idle := range w.cpu(b) {
		idle = (idle - after[n]) * took.Seconds() / window.Seconds()
		seconds = append(seconds, after[n]-before[n]-idle)
	}
	return seconds
}

func (w *world) cpu(b *testing.B) (out []float64) {
	for _, r := range w.replicas {
		out = append(out, r.usage(b).CPU)
	}
	return out
}

// rest waits until both have used no more than 3 % of a core for half a second, three times.
func (w *world) rest(b *testing.B) {
	last, at, calm := w.cpu(b), time.Now(), 0
	eventually.PassesWithin(b, time.Minute, "the operators are at rest", func(look require.TestingT) {
		require.Greater(look, time.Since(at), 500*time.Millisecond)
		now, took := w.cpu(b), time.Since(at).Seconds()
		used := 0.
		for n := range now {
			used += now[n] - last[n]
		}
		last, at = now, time.Now()
		if calm++; used/took > 0.03 {
			calm = 0
		}
		require.GreaterOrEqual(look, calm, 3)
	})
}

func report(b *testing.B, what string, seconds []float64, each int) {
	sum := 0.
	for n, s := range seconds {
		sum += s
		b.ReportMetric(s*1000/float64(each), fmt.Sprintf("%s-ms-cpu-%d", what, n+1))
	}
	b.ReportMetric(sum*1000/float64(each), what+"-ms-cpu")
}

// fill creates routes until there are n.
func (w *world) fill(b *testing.B, made, n int) {
	if n <= made {
		return
	}
	var missing sync.Map
	for i := made; i < n; i++ {
		missing.Store(fmt.Sprintf("/load-%d", i), true)
	}
	var left atomic.Int64
	left.Store(int64(n - made))
	answer := make(chan struct{})
	w.tell(xds.TypeRoute, func(r *discoveryv3.Resource) {
		for _, path := range pathsOf(r.GetResource().GetValue()) {
			if _, was := missing.LoadAndDelete(path); was && left.Add(-1) == 0 {
				close(answer)
			}
		}
	})
	var written, answered, programmed time.Duration
	cost := w.used(b, func() {
		start := time.Now()
		var g errgroup.Group
		g.SetLimit(16)
		for i := made; i < n; i++ {
			service := fmt.Sprintf("load-%d", i / *spread)
			if i%*spread == 0 {
				w.dialled(w.service(service))
			}
			r := w.route(fmt.Sprintf("load-%d", i), service, fmt.Sprintf("/load-%d", i), "v1")
			g.Go(func() error { return w.Create(b.Context(), r) })
		}
		require.NoError(b, g.Wait())
		written = time.Since(start)
		<-answer
		answered = time.Since(start)
		eventually.PassesWithin(b, 5*time.Minute, "all are Programmed", func(look require.TestingT) {
			var list gwv1.HTTPRouteList
			require.NoError(look, w.List(b.Context(), &list, client.InNamespace(shop)))
			for i := range list.Items {
				require.True(look, served(&list.Items[i]), list.Items[i].Name)
			}
		})
		programmed = time.Since(start)
	})
	report(b, "fill", cost, 1)
	b.ReportMetric(written.Seconds(), "written-s")
	b.ReportMetric(answered.Seconds(), "answered-s")
	b.ReportMetric(programmed.Seconds(), "programmed-s")
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

// edits one route, which is of Service app where routes are spread, and else of the one that has all.
func (w *world) edits(b *testing.B, made int) {
	of := "app"
	if *spread > 1000 && made > 0 {
		of = "load-0"
	}
	r := w.route("edited", of, "/edited", "v1")
	w.make(r)
	changes, err := w.Watch(b.Context(), &gwv1.HTTPRouteList{}, client.InNamespace(shop),
		client.MatchingFields{"metadata.name": r.Name})
	require.NoError(b, err)
	defer changes.Stop()
	got := make(chan time.Time, 100)
	w.tell(xds.TypeRoute, func(r *discoveryv3.Resource) {
		if bytes.Contains(r.GetResource().GetValue(), []byte("/edited")) {
			got <- time.Now()
		}
	})
	untilServed := func(generation int64) {
		for e := range changes.ResultChan() {
			now, ok := e.Object.(*gwv1.HTTPRoute)
			if ok && e.Type != watch.Bookmark && now.Generation >= generation && served(now) {
				r = now.DeepCopy()
				return
			}
		}
	}
	untilServed(1)
	w.rest(b)
	for len(got) > 0 {
		<-got
	}
	var times, said []time.Duration
	cost := w.used(b, func() {
		for i := range *samples {
			r.Spec.Rules[0].BackendRefs[0].Name = gwv1.ObjectName([]string{"v2", "v1"}[i%2])
			start := time.Now()
			require.NoError(b, w.Update(b.Context(), r))
			times = append(times, (<-got).Sub(start))
			untilServed(r.Generation)
			said = append(said, time.Since(start))
		}
	})
	report(b, "edit", cost, *samples)
	quantiles(b, "edit", times)
	quantiles(b, "edit-said", said)
	require.NoError(b, w.Delete(b.Context(), r))
}

// moves the endpoint of one Service behind the waypoint.
func (w *world) moves(b *testing.B) {
	got := make(chan string, 1000)
	w.tell(xds.TypeEndpoint, func(r *discoveryv3.Resource) {
		for _, address := range []string{"10.200.1.1", "10.200.1.2", "10.200.1.3"} {
			if strings.Contains(r.GetName(), "moving") && bytes.Contains(r.GetResource().GetValue(), []byte(address)) {
				got <- address
			}
		}
	})
	var times, written, since []time.Duration
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "moving"}}
	cost := w.used(b, func() {
		for i := range *samples / 3 * 3 {
			to := fmt.Sprintf("10.200.1.%d", i%3+1)
			start := time.Now()
			require.NoError(b, w.Patch(b.Context(), slice, client.RawPatch("application/json-patch+json",
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
	report(b, "move", cost, *samples/3*3)
	quantiles(b, "move", times)
}

func quantiles(b *testing.B, what string, times []time.Duration) {
	slices.SortFunc(times, cmp.Compare[time.Duration])
	b.ReportMetric(times[len(times)/2].Seconds()*1000, what+"-p50-ms")
	b.ReportMetric(times[len(times)-1].Seconds()*1000, what+"-worst-ms")
}

func (w *world) memory(b *testing.B) {
	for n, r := range w.replicas {
		u := r.usage(b)
		b.ReportMetric(float64(u.Resident)/1e6, fmt.Sprintf("resident-MB-%d", n+1))
		b.ReportMetric(float64(u.File)/1e6, fmt.Sprintf("file-MB-%d", n+1))
		_, err := r.ask(b.Context(), "/heap")
		require.NoError(b, err)
		b.ReportMetric(float64(r.usage(b).Heap)/1e6, fmt.Sprintf("live-MB-%d", n+1))
		b.ReportMetric(float64(u.GCs), fmt.Sprintf("gcs-%d", n+1))
	}
}

// profiled has both operators profiled meanwhile.
func (w *world) profiled(b *testing.B, what string, f func()) {
	if *profiles == "" {
		f()
		return
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	keep := func(r *replica, kind string, text []byte) {
		require.NoError(b, os.WriteFile(filepath.Join(*profiles, what+"-"+r.name+"-"+kind), text, 0o600))
	}
	var g errgroup.Group
	for _, r := range w.replicas {
		g.Go(func() error {
			_, err := r.ask(ctx, "/start")
			return err
		})
	}
	require.NoError(b, g.Wait())
	f()
	for _, r := range w.replicas {
		text, err := r.ask(ctx, "/stop")
		require.NoError(b, err)
		keep(r, "cpu", text)
		text, err = r.ask(ctx, "/heap")
		require.NoError(b, err)
		keep(r, "heap", text)
	}
}
