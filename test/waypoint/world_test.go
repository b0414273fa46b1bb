// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/counting"
	agentkeys "github.com/fairway-mesh/fairway/internal/agent/keys"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

const (
	trustDomain = "cluster.local"
	patience    = 60 * time.Second
)

var (
	waypointID = names.SPIFFEID(trustDomain, "shop", "waypoint")
	appID      = names.SPIFFEID(trustDomain, "shop", "app")
	clientID   = names.SPIFFEID(trustDomain, "front", "client")
	scope      = catalogue.WaypointScope(types.NamespacedName{Namespace: "shop", Name: "waypoint"})
)

// headers are the limits of a waypoint whose parameters set none.
var headers = model.HeaderLimits{KiB: uint32(v1alpha1.DefaultHeaderKiB), Count: uint32(v1alpha1.DefaultHeaderCount)}

// world is a mesh with one waypoint.
type world struct {
	t      testing.TB
	ca     *testca.CA
	subnet byte
	host   atomic.Uint32
	cache  *xds.Cache
	server *xds.Server
	// counter is told of callers, and keeper of what is open, as the agent is.
	counter *counting.Counter
	keeper  *connections.Keeper
	metrics *prometheus.Registry // of what keeps keys, as the agent does
	kept    *agentkeys.Keeper
	log     *output
	pid     int    // Envoy's
	admin   string // its Unix socket

	waypoint netip.Addr
	ports    []model.ServedPort
	guards   map[model.ServicePort][]model.Guard // of those that are TCP

	upstreams map[model.ServicePort]model.Upstream
}

var subnets atomic.Uint32

// newWorld starts the control plane and Envoy.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWithin(t, 2<<30, nil) // as in a Deployment without settings
}

// newWorldWithin is newWorld with an Envoy that goes by so many bytes of memory, and what changes its bootstrap.
func newWorldWithin(t testing.TB, memory uint64, change func(*bootstrapv3.Bootstrap)) *world {
	t.Helper()
	binary := xdstest.Binary(t)
	w := &world{
		t: t, ca: testca.New(t, "cluster.local"), subnet: byte(subnets.Add(1)), cache: xds.NewCache(), log: &output{},
		counter:   counting.NewCounter(),
		upstreams: map[model.ServicePort]model.Upstream{}, guards: map[model.ServicePort][]model.Guard{},
	}
	w.waypoint = w.address()
	w.keep()
	w.server = xds.NewServer(xds.Options{
		Cache: w.cache,
		Log:   logr.Discard(),
		// For as long as threads of Envoy need on a busy machine; by default, as filters may wait.
		Lingering: time.Second,
		OnAck:     w.accepted,
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: scope, Pod: "shop/waypoint-0", PodUID: "0", Node: "n"}, nil
		}),
	})
	dir, err := os.MkdirTemp("", "wp") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "xds.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	keysSocket, fetchSocket := filepath.Join(dir, "keys.sock"), filepath.Join(dir, "fetch.sock")
	w.keepKeys(keysSocket, fetchSocket)
	g := grpc.NewServer()
	w.server.Register(g)
	w.counter.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)

	w.fixed()
	w.admin = filepath.Join(dir, "admin.sock")
	b := bootstrap.Bootstrap(bootstrap.Options{
		ID: "waypoint-0", Cluster: string(scope), XDSSocket: socket, AdminSocket: w.admin, WildcardClusters: true,
		Memory:    memory,
		Listeners: waypoint.KeyListeners(fetchSocket), Clusters: waypoint.KeyClusters(keysSocket),
	})
	if change != nil {
		change(b)
	}
	config, err := bootstrap.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "2", "--file-flush-interval-msec",
		"20", "-l", "warning", "--log-format-escaped", "--component-log-level", bootstrap.ComponentLogLevel)
	cmd.Stdout, cmd.Stderr = w.log, w.log
	ended, err := xdstest.StartTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	w.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			lines := strings.SplitAfter(w.log.String(), "\n")
			t.Logf("the last of Envoy's output:\n%s", strings.Join(lines[max(0, len(lines)-15):], ""))
		}
	})
	return w
}

// address is a loopback address that nobody else has: by process, world and use.
func (w *world) address() netip.Addr {
	return netip.AddrFrom4([4]byte{127, 64 + byte(os.Getpid()%128), w.subnet, byte(w.host.Add(1))})
}

// fixed is what a waypoint has whatever it serves.
func (w *world) fixed() {
	cert, key := testca.PEM(w.t, w.ca.Issue(waypointID))
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	own := &tlsv3.Secret{Name: waypointID, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(cert), PrivateKey: inline(key)},
	}}
	bundle := &tlsv3.Secret{Name: names.TrustBundleSecret, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(w.ca.PEM())},
	}}
	w.apply(
		resource(w.t, own.GetName(), own), resource(w.t, bundle.GetName(), bundle),
		resource(w.t, names.RuntimeLayer, envoy.RuntimeLayer(true, true)),
		w.listener(), w.tcpGuards(),
	)
	w.apply(tokens(w.t, model.Authentications{})...)
	for _, u := range []string{
		xds.TypeCluster, xds.TypeEndpoint, xds.TypeListener, xds.TypeScopedRoute, xds.TypeRoute, xds.TypeSecret,
		xds.TypeRuntime, xds.TypeExtension,
	} {
		w.cache.Ready(scope, u)
	}
}

// tcpGuards say who may connect to the ports that are passed on as they are.
func (w *world) tcpGuards() xds.Update {
	w.t.Helper()
	var all []model.TCPGuard
	for _, p := range w.ports {
		all = append(all, model.TCPGuard{ServicePort: p.ServicePort, Guards: w.guards[p.ServicePort]})
	}
	return resource(w.t, names.AuthorizationTCP, envoy.Extension(names.AuthorizationTCP, authorization.TCP(all)))
}

// tokens say what requests with a token must satisfy, as the agent passes it on.
func tokens(t testing.TB, a model.Authentications) []xds.Update {
	t.Helper()
	adapted, err := authentication.KeptByAgent(
		envoy.Any(envoy.Extension(names.FilterTokens, authentication.Tokens(a))))
	if err != nil {
		t.Fatal(err)
	}
	filter := &corev3.TypedExtensionConfig{}
	if err := adapted.UnmarshalTo(filter); err != nil {
		t.Fatal(err)
	}
	return []xds.Update{
		resource(t, names.FilterForm, envoy.Extension(names.FilterForm, authentication.Form(a))),
		resource(t, names.FilterTokens, filter),
	}
}

// keepKeys of tokens for Envoy, as the agent does.
func (w *world) keepKeys(keysSocket, fetchSocket string) {
	w.t.Helper()
	l, err := net.Listen("unix", keysSocket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.metrics = prometheus.NewRegistry()
	w.kept = agentkeys.New(fetchSocket, logr.Discard(), w.metrics)
	w.kept.Seldom = time.Second // so that tests needn't wait
	w.counter.UnknownKey = w.kept.Renew
	s := &http.Server{Handler: w.kept, ReadHeaderTimeout: patience}
	go func() { _ = s.Serve(l) }()
	w.t.Cleanup(func() { _ = s.Close() })
}

// listener is the waypoint's for what it serves. Its sockets have the buffers that a sysctl gives those of a
// waypoint's pod.
func (w *world) listener() xds.Update {
	l := waypoint.MTLSListener(w.model())
	l.SocketOptions = envoy.RoomForEnds()
	return resource(w.t, names.ListenerMTLS, l)
}

// inbound is the cluster of a port whose connections are passed on as they are, with such buffers, too.
func (w *world) inbound(p model.ServicePort) xds.Update {
	c := upstream.Inbound(w.upstreams[p], waypointID, headers)
	c.UpstreamBindConfig.SocketOptions = envoy.RoomForEnds()
	return resource(w.t, names.InboundCluster(p.Namespace, p.Service, p.Port), c)
}

// model is the waypoint with what it serves.
func (w *world) model() model.Waypoint {
	return model.Waypoint{Identity: waypointID, Listen: []netip.Addr{w.waypoint}, Headers: headers, Ports: w.ports}
}

func resource(t testing.TB, name string, m proto.Message) xds.Update {
	t.Helper()
	r, err := xds.NewResource(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return xds.Set(r)
}

func (w *world) apply(u ...xds.Update) { w.cache.Apply(scope, u) }

// acknowledged waits until Envoy runs the resources as they are now.
func (w *world) acknowledged(updates ...xds.Update) {
	w.t.Helper()
	for _, u := range updates {
		eventually.True(w.t, "acknowledgement of "+u.Name, func() bool {
			s := w.server.State(scope.Key(u.TypeURL, u.Name))
			if r := s.Rejection(); r != "" {
				w.t.Fatalf("%s: %s", u.Name, r)
			}
			return len(s.Proxies) > 0 && s.Settled()
		})
	}
}

// gone waits until Envoy has acknowledged that it has lost clusters.
func (w *world) gone(clusters ...string) {
	w.t.Helper()
	eventually.True(w.t, "clusters to be gone", func() bool {
		for _, p := range w.server.Proxies() {
			for _, r := range p.Types[xds.TypeCluster].Resources {
				if slices.Contains(clusters, r.Name) {
					return false
				}
			}
		}
		return true
	})
}

// backend adds a Service's port that requests can be sent to.
func (w *world) backend(p model.ServicePort, protocol model.Protocol, endpoints ...model.Endpoint) {
	w.t.Helper()
	w.upstream(model.Upstream{ServicePort: p, Protocol: protocol}, endpoints...)
}

func (w *world) upstream(u model.Upstream, endpoints ...model.Endpoint) {
	w.t.Helper()
	w.upstreams[u.ServicePort] = u
	w.endpoints(u.ServicePort, endpoints...)
}

func (w *world) claOf(p model.ServicePort, endpoints []model.Endpoint) xds.Update {
	return resource(w.t, names.WaypointEndpoints(p.Namespace, p.Service, p.Port), upstream.WaypointEndpoints(p, endpoints))
}

// endpoints replaces the endpoints of a backend. Identities that were there once are still known to the cluster, so
// that it changes no more than it must.
func (w *world) endpoints(p model.ServicePort, endpoints ...model.Endpoint) {
	w.t.Helper()
	u := w.upstreams[p]
	for _, e := range endpoints {
		if e.MTLS && !slices.Contains(u.Identities, e.Identity) {
			u.Identities = append(u.Identities, e.Identity)
		}
	}
	w.upstreams[p] = u
	updates := []xds.Update{
		resource(w.t, names.ServicePort(p.Namespace, p.Service, p.Port), upstream.ServicePort(u, waypointID, headers)),
		w.claOf(p, endpoints),
	}
	w.apply(updates...)
	w.acknowledged(updates...)
}

// serve binds a Service's port to the waypoint and returns the server name to ask for. Its backend must be there.
func (w *world) serve(p model.ServicePort, http bool, t *model.RouteTable) string {
	w.t.Helper()
	if t == nil {
		t = &model.RouteTable{}
	}
	t.Port, t.Protocol = p, model.ProtocolTCP
	if http {
		t.Protocol = model.ProtocolHTTP
	}
	w.ports = append(w.ports, model.ServedPort{ServicePort: p, Protocol: t.Protocol})
	name := names.ServicePort(p.Namespace, p.Service, p.Port)
	updates := []xds.Update{resource(w.t, name, route.Scope(t.Attachment)), w.tableOf(*t)}
	if !http {
		updates = append(updates, w.inbound(p))
	}
	updates = append(updates, w.tcpGuards(), w.listener())
	w.apply(updates...)
	w.acknowledged(updates...)
	return names.ServerName(p.Namespace, p.Service, p.Port)
}

func (w *world) tableOf(t model.RouteTable) xds.Update {
	w.t.Helper()
	rc, errs := route.Configuration(trustDomain, t)
	for _, err := range errs {
		w.t.Error(err)
	}
	return resource(w.t, rc.GetName(), rc)
}

// caller has an identity of the mesh.
func (w *world) caller(id string) *caller {
	return newCaller(w.t, w.address(), w.waypoint, &tls.Config{
		Certificates: []tls.Certificate{w.ca.Issue(id)}, VerifyConnection: peer(w.ca, waypointID),
	})
}

// pod starts a pod of the mesh whose application is the handler, and is the endpoint that leads to it.
func (w *world) pod(id string, h http.Handler) (model.Endpoint, *pod) {
	w.t.Helper()
	address := w.app(h)
	p := newPod(w.t, address, w.ca.Issue(id), peer(w.ca, waypointID))
	return model.Endpoint{Address: address, MTLS: true, Identity: id}, p
}

// app is an application outside the mesh; it speaks HTTP/1.1 and h2c.
func (w *world) app(h http.Handler) netip.AddrPort {
	w.t.Helper()
	address := netip.AddrPortFrom(w.address(), 8080)
	w.appAt(address, h)
	return address
}

// appAt is app at an address that is known.
func (w *world) appAt(address netip.AddrPort, h http.Handler) {
	w.t.Helper()
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		w.t.Fatal(err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: protocols, ReadHeaderTimeout: patience}
	go func() { _ = s.Serve(l) }()
	w.t.Cleanup(func() { _ = s.Close() })
}

// echo answers with what it got.
type echo struct {
	Name     string
	Requests atomic.Int64
}

type echoed struct {
	Name, Method, Host, URI, Proto, Remote string
	Header                                 http.Header
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.Requests.Add(1)
	w.Header().Set("Server", "echo")
	b, err := json.Marshal(echoed{e.Name, r.Method, r.Host, r.RequestURI, r.Proto, r.RemoteAddr, r.Header})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write(b)
}

// output keeps what Envoy writes: its log and the access log.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// accessLog waits for a line that has all of the fields.
func (w *world) accessLog(want map[string]any) map[string]any {
	w.t.Helper()
	var found map[string]any
	eventually.True(w.t, fmt.Sprintf("access log line with %v", want), func() bool {
		for line := range strings.Lines(w.log.String()) {
			got := map[string]any{}
			if json.Unmarshal([]byte(line), &got) != nil {
				continue
			}
			match := true
			for k, v := range want {
				match = match && fmt.Sprint(got[k]) == fmt.Sprint(v)
			}
			if match {
				found = got
				return true
			}
		}
		return false
	})
	return found
}

// pointers to rules, as tables have them; nil stays nil, which means that there is no route.
func pointers(rules []model.Rule) []*model.Rule {
	if rules == nil {
		return nil
	}
	out := make([]*model.Rule, 0, len(rules))
	for n := range rules {
		out = append(out, &rules[n])
	}
	return out
}
