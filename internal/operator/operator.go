// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package operator puts the operator's process together: the watches and the engine that they feed, the xDS and
// certificate servers (on every replica), the reconcilers and the status writer (on the leader).
package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwx1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/engine"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/identity/server"
	"github.com/fairway-mesh/fairway/internal/identity/xdsauth"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/peers"
	"github.com/fairway-mesh/fairway/internal/scrape"
	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// leaderLease names the Lease that the replicas elect their leader with.
const leaderLease = "fairway-operator"

// streamAge bounds how long what a proxy's token proved is relied on. A pod that ends is noticed at once besides.
const streamAge = time.Hour

// Options of the operator.
type Options struct {
	// Namespace that the operator runs in, PodName of this replica; empty outside of a cluster.
	Namespace, PodName string
	// Image of the agent, EnvoyImage of the proxies.
	Image, EnvoyImage string
	LeaderElection    bool
	// AutomaticLinger is controllers.Options.AutomaticLinger.
	AutomaticLinger time.Duration
	// CARotation holds the delays of a change of CA; identity.DefaultPolicy if zero.
	CARotation identity.Policy
	Log        logr.Logger
}

// Scheme knows every kind that the operator reads or writes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwv1beta1.Install,
		gwx1alpha1.Install, certmanagerv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err) // two packages register one kind differently: a mistake of the build
		}
	}
	return s
}

// Run runs the operator until the context ends.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	ctrl.SetLogger(o.Log)
	mgr, err := newManager(cfg, o)
	if err != nil {
		return fmt.Errorf("set up the manager: %w", err)
	}
	authority := identity.NewAuthority(time.Now)
	ready := newReadiness(signing(mgr.GetCache(), authority))
	ready.patience = readyPatience
	if err := mgr.AddReadyzCheck("serving", ready.check); err != nil {
		return err
	}
	if err := indexPods(ctx, mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("index pods: %w", err)
	}
	if err := watchWaypoints(ctx, mgr.GetCache()); err != nil {
		return fmt.Errorf("watch what waypoints are made of: %w", err)
	}
	kinds, err := controllers.NewKinds(mgr)
	if err != nil {
		return err
	}
	if err := keeper.Follow(mgr, o.Namespace, authority); err != nil {
		return fmt.Errorf("follow the CA: %w", err)
	}
	p := newPlane(mgr, o)
	if err := p.addServers(mgr, authority, ready, o); err != nil {
		return err
	}
	triggers := triggersOf(p)
	if err := addControllers(mgr, kinds, p, triggers, o); err != nil {
		return err
	}
	captures := newCaptures(func() { triggers.nodes.Notify(types.NamespacedName{Name: names.Mesh}) })
	triggers.reports = captures.reports
	f := &feed{
		cache: mgr.GetCache(), engine: p.engine, kinds: kinds, scheme: mgr.GetScheme(), log: o.Log.WithName("feed"),
		ready: ready, taken: ready.await("the state of the cluster"),
		touched: p.touched,
		pod: func(pod *corev1.Pod, gone bool) {
			if gone || terminated(pod) {
				p.server.Disconnect(string(pod.UID))
			}
			if gone {
				captures.remove(client.ObjectKeyFromObject(pod))
			} else {
				captures.set(pod)
			}
		},
	}
	guard, err := scrape.NewGuard(cfg, o.Log.WithName("metrics"))
	if err != nil {
		return err
	}
	measured := promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	introspection := everyReplica(func(ctx context.Context) error {
		return introspect.Serve(ctx, introspect.LoopbackAddress, introspect.OperatorHandler(p.server, measured))
	})
	scraped := everyReplica(func(ctx context.Context) error {
		mux := http.NewServeMux()
		mux.Handle("GET "+introspect.PathMetrics, measured)
		return scrape.Serve(ctx, names.PortOperatorMetrics, guard.Protect(mux))
	})
	for _, r := range []manager.Runnable{everyReplica(p.engine.Run), f, introspection, scraped, p.writer, p.bound} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go ready.report(ctx, o.Log) // not one of the manager's: those start when its watches are in sync
	return mgr.Start(ctx)
}

// signing says why a Mesh's proxies can't have certificates. Before there is a Mesh there are none that could ask.
func signing(meshes client.Reader, authority *identity.Authority) func(context.Context) error {
	return func(ctx context.Context) error {
		mesh := &v1alpha1.Mesh{}
		err := meshes.Get(ctx, client.ObjectKey{Name: names.Mesh}, mesh)
		if err != nil || mesh.DeletionTimestamp != nil {
			return client.IgnoreNotFound(err)
		}
		return authority.Ready()
	}
}

// everyReplica runs on leaders and others alike.
type everyReplica func(context.Context) error

func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection is false.
func (everyReplica) NeedLeaderElection() bool { return false }

func newManager(cfg *rest.Config, o Options) (ctrl.Manager, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst = 200, 400 // statuses of many routes at once must not queue for seconds
	byObject := controllers.CacheByObject(o.Namespace)
	byObject[&corev1.Pod{}] = cache.ByObject{Transform: trimPod}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: Scheme(),
		Logger: o.Log,
		Cache: cache.Options{
			ByObject:         byObject,
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: controllers.Uncached()}},
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // see scrape
		HealthProbeBindAddress:        fmt.Sprintf(":%d", names.PortOperatorHealth),
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              leaderLease,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, nil
}

// plane is the part of the operator that programs proxies.
type plane struct {
	cache  *xds.Cache
	engine *engine.Engine
	server *xds.Server
	book   *peers.Book
	writer *status.Writer
	bound  *status.ServiceWriter

	rejections *rejections
	automatic  *automatic
	claims     *claims
}

func newPlane(mgr ctrl.Manager, o Options) *plane {
	p := &plane{cache: xds.NewCache(), automatic: newAutomatic(), claims: newClaims(metrics.Registry)}
	p.rejections = newRejections(acknowledgements{p})
	p.writer = status.NewWriter(mgr.GetClient(), acknowledgements{p}, o.Log.WithName("status"))
	p.bound = status.NewServiceWriter(mgr.GetClient(), mgr.GetEventRecorder(names.ManagedBy), o.Log.WithName("status"))
	p.engine = engine.New(engine.Options{
		Cache: p.cache, Log: o.Log.WithName("engine"),
		OnReport:    p.writer.Report,
		OnBinding:   p.bound.Bound,
		OnPartial:   p.bound.Partial,
		OnAutomatic: p.automatic.set,
		OnRefused:   p.claims.set,
		Acks:        ownProxies{p},
		OnRejection: p.note,
	})
	return p
}

// addServers adds the xDS and the certificate server; both need the CA.
func (p *plane) addServers(mgr ctrl.Manager, authority *identity.Authority, ready *readiness, o Options) error {
	reviewer, err := reviewer(mgr)
	if err != nil {
		return err
	}
	callers := auth.NewAuthenticator(reviewer, time.Now, metrics.Registry)
	view := pods{mgr.GetCache()}
	rights := &auth.Authorizer{
		SystemNamespace: o.Namespace, TrustDomain: authority.TrustDomain, Pods: view, Workloads: view,
		Waypoint: view.Waypoint,
	}
	host := names.OperatorService + "." + o.Namespace
	tls := authority.ServingConfig(o.Namespace, names.OperatorServiceAccount, names.OperatorService, host, host+".svc", host+".svc."+names.DefaultClusterDomain)
	p.server = xds.NewServer(xds.Options{
		Cache:         p.cache,
		Authenticator: &xdsauth.Authenticator{Callers: callers, Scopes: rights},
		OnInterest:    func(i xds.Interest) { p.book.Interest(i) },
		OnAck:         p.engine.Verdict,
		Log:           o.Log.WithName("xds"),
		Registerer:    metrics.Registry,
		Kinds:         []string{names.ComponentNode, names.ComponentWaypoint},
		Supersede:     true,
		MaxAge:        streamAge,
		Relays:        true,
	})
	if err := p.addPeers(mgr, authority, o); err != nil {
		return err
	}
	listening := ready.await("the xDS listener")
	if err := mgr.Add(everyReplica(func(ctx context.Context) error { return serveXDS(ctx, p.server, tls, listening) })); err != nil {
		return err
	}
	if err := metrics.Registry.Register(authority); err != nil {
		return err
	}
	return mgr.Add(&server.Server{
		Addr: net.JoinHostPort("", fmt.Sprint(names.PortCertificates)), TLS: tls,
		Issuer: authority, Callers: callers, Rights: rights, Listening: ready.await("the certificate listener"),
		Log: o.Log.WithName("certificates"), Registerer: metrics.Registry,
	})
}

// reviewer has a rate of its own, which the authenticator limits: whoever sends tokens must not hold up what the
// operator writes besides.
func reviewer(mgr ctrl.Manager) (auth.Reviewer, error) {
	cfg := rest.CopyConfig(mgr.GetConfig())
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient()})
	if err != nil {
		return nil, fmt.Errorf("make the client for token reviews: %w", err)
	}
	return c, nil
}

// addPeers joins the acknowledgements of all replicas.
func (p *plane) addPeers(mgr ctrl.Manager, authority *identity.Authority, o Options) error {
	p.book = peers.New(peers.Options{
		Local: p.server, TLS: authority.MutualConfig(o.Namespace, names.OperatorServiceAccount),
		OnInterest: p.engine.Interest, OnNote: p.noted, Log: o.Log.WithName("peers"),
	})
	p.server.OnChange(p.engine.Acknowledged)
	service := client.ObjectKey{Namespace: o.Namespace, Name: names.OperatorService}
	discover := everyReplica(func(ctx context.Context) error {
		return peers.Discover(ctx, mgr.GetCache(), service, o.PodName, p.book.SetPeers)
	})
	if err := mgr.Add(discover); err != nil {
		return err
	}
	return mgr.Add(p.book)
}

// acknowledgements is what the status writer asks: the book, which is made after the writer.
type acknowledgements struct{ p *plane }

func (a acknowledgements) State(k xds.Key) xds.ResourceState {
	return a.p.book.State(k)
}

// ownProxies is what the engine asks: the server, which is made after it.
type ownProxies struct{ p *plane }

func (o ownProxies) State(k xds.Key) xds.ResourceState {
	return o.p.server.State(k)
}

// note tells the other replicas that proxies reject a rule, so that all derive the same tables.
func (p *plane) note(r ingest.Rejection) {
	if text, err := json.Marshal(r); err == nil { // plain strings
		p.book.Note(string(text))
	}
}

func (p *plane) noted(text string) {
	var r ingest.Rejection
	if json.Unmarshal([]byte(text), &r) == nil { // else it is a newer release's
		p.engine.Reject(r)
	}
}

// touched makes the writers look at what others may have overwritten.
func (p *plane) touched(obj client.Object) {
	key := client.ObjectKeyFromObject(obj)
	switch o := obj.(type) {
	case *corev1.Service:
		p.bound.Touch(key)
	case *corev1.Namespace:
		if !enrolled(o) {
			p.server.Evict(func(s xds.Scope) bool {
				gateway, ok := catalogue.WaypointOf(s)
				return ok && gateway.Namespace == key.Name
			})
		}
	default:
		if ref, ok := ingest.RouteRef(o); ok {
			p.writer.Touch(ref)
		}
	}
}
