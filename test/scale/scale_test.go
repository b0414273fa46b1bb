// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// patience with what takes long where much is there.
const patience = 15 * time.Minute

// scene is all of it.
type scene struct {
	*world
	operators []*operator
	fleet     *fleet
	pods      []*corev1.Pod // of waypoints
	report    *report
}

// TestScale fills a cluster, has it served, changes it, and ends operators.
func TestScale(t *testing.T) {
	s := newScene(t, want, apiserver.Standard)
	s.measure("filling the API server", s.fill)
	s.measure("operators read what is there", func() {
		for _, o := range s.operators {
			o.start()
		}
		for _, o := range s.operators {
			o.ready()
		}
	})
	s.mesh()
	s.measure("waypoints made, their pods by the test", func() { s.pods = s.roll(s.deployments()) })
	s.connect()
	s.measure("all proxies served for the first time", s.served)
	s.measure("all routes programmed", func() {
		eventually.Within(t, patience, "statuses settle", s.programmed)
	})
	s.settled("served")
	s.changes()
	s.restarts()
	s.report.write(t)
}

func newScene(t testing.TB, size size, of apiserver.Channel) *scene {
	t.Helper()
	hub := newNetwork(t)
	cfg, etcd := apiserver.StartWithStore(t, apiserver.Options{
		Fairway: true, GatewayAPI: of, Address: apiAddress, ServiceRange: serviceRange, Quota: 8 << 30,
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install,
	} {
		require.NoError(t, add(scheme))
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	require.NoError(t, err)
	filled, err := newStore(etcd, scheme)
	require.NoError(t, err)
	s := &scene{
		world: &world{WithWatch: c, t: t, store: filled, size: size}, fleet: &fleet{}, report: &report{Size: size},
	}
	require.LessOrEqual(t, s.Routes, s.Services)
	require.LessOrEqual(t, (s.Pods+s.replicas()*s.Waypoints)/s.Nodes, 240, "a node's range has no room for more pods")
	config := kubeconfig(t, cfg)
	for n := range 2 {
		o := newOperator(t, hub, n, config)
		s.operators = append(s.operators, o)
		s.fleet.operators = append(s.fleet.operators, o.address)
	}
	return s
}

// kubeconfig for the operators.
func kubeconfig(t testing.TB, cfg *rest.Config) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*c, path))
	return path
}

// mesh creates the Mesh, and what makes the replicas find each other.
func (s *scene) mesh() {
	s.t.Helper()
	require.NoError(s.t, s.Create(s.t.Context(), &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}))
	slice := endpointSlice(names.SystemNamespace, names.OperatorService, names.PortXDS, "xds")
	for _, o := range s.operators {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{o.address.String()},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: names.SystemNamespace, Name: o.name},
		})
	}
	require.NoError(s.t, s.Create(s.t.Context(), slice))
}

// trust is how proxies know the operator.
func (s *scene) trust() *tls.Config {
	s.t.Helper()
	var bundle identity.Bundle
	eventually.Within(s.t, patience, "the mesh's trust bundle", func() error {
		cm := &corev1.ConfigMap{}
		key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.TrustBundleConfigMap}
		if err := s.Get(s.t.Context(), key, cm); err != nil {
			return err
		}
		var err error
		bundle, err = identity.ParseBundle([]byte(cm.Data[names.TrustBundleKey]))
		return err
	})
	id := names.SPIFFEID(names.DefaultClusterDomain, names.SystemNamespace, names.OperatorServiceAccount)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: names.OperatorService,
		InsecureSkipVerify: true, // VerifyConnection does what agents do
		VerifyConnection: func(cs tls.ConnectionState) error {
			return bundle.VerifyIdentity(cs.PeerCertificates, id, time.Now())
		},
	}
}

// connect begins the streams of all proxies: first those of nodes, then those of waypoints.
func (s *scene) connect() {
	s.t.Helper()
	config := s.trust()
	owners := append(slices.Clone(s.agents), s.pods...)
	s.fleet.proxies = make([]*proxy, len(owners))
	s.each(len(owners), func(ctx context.Context, n int) error {
		token, err := apiserver.Token(ctx, s, owners[n])
		source := proxyRange.Addr().As4()
		source[2], source[3] = byte(n>>8)+1, byte(n)
		p := &proxy{
			token: token, source: netip.AddrFrom4(source), tls: config, wake: wake.New(), asks: s.asks(n),
			to: func() netip.Addr { return s.fleet.operator(n) },
		}
		p.reset()
		s.fleet.proxies[n] = p
		return err
	})
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	for _, p := range s.fleet.proxies {
		go p.run(ctx)
	}
}

// asks is what a proxy asks for by itself: that of a node for its pods, and for what they dial.
func (s *scene) asks(n int) map[string][]string {
	out := map[string][]string{xds.TypeRuntime: {names.RuntimeLayer}}
	if n >= s.Nodes {
		for _, url := range wildcards {
			out[url] = []string{xds.Wildcard}
		}
		out[xds.TypeExtension] = []string{names.AuthorizationTCP, names.FilterTokens, names.FilterForm}
		return out
	}
	for pod := n; pod < s.Pods; pod += s.Nodes {
		p := s.pod(pod, "")
		out[xds.TypeExtension] = append(out[xds.TypeExtension], names.PodAuthorization(p.Namespace, p.Name))
	}
	for _, service := range s.dialled(n) {
		out[xds.TypeCluster] = append(out[xds.TypeCluster], s.services[service].Spec.ClusterIP+":80")
	}
	return out
}

// dialled are the Services that the pods of a node dial.
func (s *scene) dialled(node int) (out []int) {
	for n := range s.Dials {
		out = append(out, (node+n*max(1, s.Services/s.Dials))%s.Services)
	}
	return out
}

// operator that a proxy tries next: that of its place if it runs.
func (f *fleet) operator(n int) netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.operators[n%len(f.operators)]
}

// direct has proxies connect to these from now on, as a Service has them connect to those that are ready.
func (f *fleet) direct(to ...*operator) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.operators = nil
	for _, o := range to {
		f.operators = append(f.operators, o.address)
	}
}

// served waits until all proxies have what they ask for.
func (s *scene) served() {
	s.t.Helper()
	eventually.Within(s.t, patience, "all proxies are served", s.fleet.served)
}

// quiet waits until the operators' CPU is used for little else than what they always do, and no more is written.
func (s *scene) quiet() {
	s.t.Helper()
	s.calm(0.1, 1)
}

// calm waits until all operators have used no more than a share of a core, so many times.
func (s *scene) calm(share float64, times int) {
	s.t.Helper()
	const look = 500 * time.Millisecond
	calm := 0
	eventually.Within(s.t, patience, "the operators have nothing to do", func() error {
		before := s.cpu()
		if !wake.After(s.t.Context(), look) {
			return s.t.Context().Err()
		}
		used := s.cpu() - before
		if calm++; used.Seconds() > share*look.Seconds() {
			calm = 0
		}
		if calm < times {
			return fmt.Errorf("they use %s of CPU in %s", used, look)
		}
		return nil
	})
}

// cpu of all operators that run.
func (s *scene) cpu() (sum time.Duration) {
	for _, o := range s.operators {
		if o.cmd != nil {
			sum += o.cpu()
		}
	}
	return sum
}

// changes measures what changes cost, and holds that they reach those whom they concern.
func (s *scene) changes() {
	s.t.Helper()
	s.quiet()
	// A Service with a route: the proxies of its waypoint.
	s.change("an edit of a route", func(n int) ([]int, func()) {
		route := s.route(n % s.Routes)
		return s.waypointOf(n % s.Routes), func() {
			s.update(route, func() { route.Spec.Rules[0].Matches[0].Path.Value = new(fmt.Sprint("/edited-", n)) })
		}
	})
	// A Service without: nodes whose pods dial it.
	without := func(n int) int { return s.Routes + n%(s.Services-s.Routes) }
	s.change("an endpoint that is not ready any more", func(n int) ([]int, func()) {
		of := without(n)
		slice := s.endpoints(of)
		return s.diallers(of), func() {
			s.update(slice, func() { slice.Endpoints[0].Conditions.Ready = new(false) })
		}
	})
	s.change("a pod replaced by another", func(n int) ([]int, func()) {
		of := without(*edits + n)
		return s.diallers(of), func() { s.replace(of, n) }
	})
	s.change("a status of a pod that says nothing new", func(n int) ([]int, func()) {
		p := s.pod(n, "")
		return nil, func() {
			require.NoError(s.t, s.Get(s.t.Context(), client.ObjectKeyFromObject(p), p))
			p.Status.ContainerStatuses[0].RestartCount++
			require.NoError(s.t, s.Status().Update(s.t.Context(), p))
		}
	})
}

func (s *scene) update(o client.Object, change func()) {
	s.t.Helper()
	require.NoError(s.t, s.Get(s.t.Context(), client.ObjectKeyFromObject(o), o))
	change()
	require.NoError(s.t, s.Update(s.t.Context(), o))
}

// replace deletes a pod of a Service, and runs another one in its place, of another address.
func (s *scene) replace(of, n int) {
	s.t.Helper()
	before, after := s.pod(of, ""), s.pod(of, "-b")
	taken := s.Pods + s.replicas()*s.Waypoints
	address := podAddress(s.Nodes, taken+(s.Nodes-taken%s.Nodes)+of%s.Nodes)
	require.NoError(s.t, s.Delete(s.t.Context(), before, client.GracePeriodSeconds(0)))
	require.NoError(s.t, s.run(s.t.Context(), after, address))
	slice := s.endpoints(of)
	s.update(slice, func() {
		slice.Endpoints[0] = s.endpoint(address, of%s.Nodes, after)
	})
}

// waypointOf are the proxies of a Service's waypoint.
func (s *scene) waypointOf(service int) (out []int) {
	for n, p := range s.pods {
		if p.Namespace == s.services[service].Namespace {
			out = append(out, s.Nodes+n)
		}
	}
	return out
}

// diallers are the proxies of the nodes that dial a Service.
func (s *scene) diallers(service int) (out []int) {
	for n := range s.Nodes {
		if slices.Contains(s.dialled(n), service) {
			out = append(out, n)
		}
	}
	return out
}

// change makes some changes of a kind one by one, each of which some proxies must hear of and no others. It begins and
// ends with operators that have nothing to do, so what they use between is what the changes cost.
func (s *scene) change(what string, prepare func(n int) (concerned []int, do func())) {
	s.t.Helper()
	var times []time.Duration
	before, cpu, expected := s.fleet.responses(), s.cpu(), map[int]bool{}
	for n := range *edits {
		concerned, do := prepare(n)
		had := s.fleet.responses()
		began := time.Now()
		do()
		eventually.Within(s.t, patience, what+" reaches those whom it concerns", func() error {
			now := s.fleet.responses()
			for _, p := range concerned {
				expected[p] = true
				if now[p] <= had[p] {
					return fmt.Errorf("proxy %d of %d has not heard", p, len(now))
				}
			}
			return nil
		})
		if len(concerned) > 0 {
			times = append(times, time.Since(began))
		}
	}
	s.quiet()
	row := change{What: what, CPU: (s.cpu() - cpu) / time.Duration(*edits)}
	slices.Sort(times)
	if len(times) > 0 {
		row.Median, row.Worst = times[len(times)/2], times[len(times)-1]
	}
	for n, now := range s.fleet.responses() {
		require.Equal(s.t, expected[n], now > before[n], "%s: whether proxy %d heard of it", what, n)
	}
	s.report.Changes = append(s.report.Changes, row)
	s.t.Logf("%+v", row)
}

// restarts ends operators, and measures until all are served again.
func (s *scene) restarts() {
	s.t.Helper()
	a, b := s.operators[0], s.operators[1]
	before := s.fleet.received()
	s.fleet.direct(b)
	s.fleet.lose(a)
	a.end(syscall.SIGKILL)
	s.measure("one operator killed: all its proxies served by the other", s.back(before))
	a.start()
	s.measure("it is back", a.ready)
	s.quiet()

	before = s.fleet.received()
	s.fleet.direct(a)
	s.fleet.lose(b)
	b.end(syscall.SIGTERM)
	b.start()
	s.measure("the other restarted: all proxies served by the first", s.back(before))
	b.ready()
	s.quiet()
	require.NoError(s.t, s.programmed())

	a.end(syscall.SIGTERM)
	b.end(syscall.SIGTERM)
	for _, p := range s.fleet.proxies {
		p.reset()
	}
	s.fleet.direct(a, b)
	s.measure("from a cold start of all: operators and proxies", func() {
		a.start()
		b.start()
		s.served()
	})
	s.settled("after a cold start")
}

// back waits until all proxies are served, and holds that nothing was sent that they had, but what each asks for anew.
func (s *scene) back(before received) func() {
	return func() {
		s.served()
		require.Equal(s.t, before.again, s.fleet.received().again, "resources are sent that proxies have")
	}
}

// measure notes how long a step takes.
func (s *scene) measure(what string, do func()) {
	s.t.Helper()
	began, cpu, sent := time.Now(), s.cpu(), s.fleet.received().bytes
	do()
	row := step{What: what, Took: time.Since(began), CPU: max(0, s.cpu()-cpu), Sent: s.fleet.received().bytes - sent}
	s.report.Steps = append(s.report.Steps, row)
	s.t.Logf("%+v", row)
}

// settled notes what the operators use once they have nothing to do.
func (s *scene) settled(when string) {
	s.t.Helper()
	s.quiet()
	for _, o := range s.operators {
		u := o.usage()
		s.report.Uses = append(s.report.Uses, use{
			When: when, Operator: o.name, Live: u.live, Resident: u.resident, Peak: u.peak, Streams: u.streams, Sent: u.sent,
			Writes: u.writes,
		})
		o.heap(strings.ReplaceAll(when, " ", "-"))
		s.t.Logf("%s, %s: %+v", when, o.name, u)
	}
}
