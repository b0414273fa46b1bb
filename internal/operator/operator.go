// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package operator puts the operator's process together: the watches and the engine that they feed, the xDS and
// certificate servers (on every replica), the reconcilers and the status writer (on the leader).
package operator

import (
	"context"
	"fmt"
	"net/http"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/scrape"
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

// scheme knows every kind that the operator reads or writes.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme, gwv1.Install, gwv1beta1.Install,
		gwxv1alpha1.Install, certmanagerv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err) // two packages register one kind differently: a mistake of the build
		}
	}
	return s
}

// Run runs the operator until the context ends. Everything is made from the leaves on: what is asked is there before
// those who ask, and what is told before those who tell.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	ctrl.SetLogger(o.Log)
	if err := awaitAPIServer(ctx, cfg, o.Log); err != nil {
		return err
	}
	mgr, err := newManager(cfg, o)
	if err != nil {
		return fmt.Errorf("set up the manager: %w", err)
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
	signs, err := newIssuance(ctx, mgr, o)
	if err != nil {
		return err
	}
	if err := keeper.Follow(mgr, o.Namespace, signs.authority); err != nil {
		return fmt.Errorf("follow the CA: %w", err)
	}
	if err := followSPIRE(ctx, mgr, signs.spire); err != nil {
		return fmt.Errorf("follow SPIRE: %w", err)
	}
	ready := newReadiness(signing(mgr.GetCache(), signs.authority))
	ready.patience = readyPatience
	if err := mgr.AddReadyzCheck("serving", ready.check); err != nil {
		return err
	}
	p, err := newPlane(mgr, signs, o) //nolint:contextcheck // handshakes have contexts of their own
	if err != nil {
		return err
	}
	lead, err := newLead(cfg, o)
	if err != nil {
		return err
	}
	writes := everyReplica(func(ctx context.Context) error {
		return lead.Run(ctx, func() error { return addWriters(mgr, kinds, p, signs, lead, o) })
	})
	measured, err := scraped(cfg, o.Log)
	if err != nil {
		return err
	}
	configMaps, err := configMapsOf(mgr)
	if err != nil {
		return err
	}
	f := &feed{
		references: newReferences(ctx, configMaps, p.inbox),
		cache:      mgr.GetCache(), inbox: p.inbox, kinds: kinds, scheme: mgr.GetScheme(), log: o.Log.WithName("feed"),
		ready: ready, taken: ready.await("the state of the cluster"), touched: p.touched, pod: p.pod,
	}
	for _, r := range append(p.runnables(mgr, ready, o), f, measured, signs.direct, writes) {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go ready.report(ctx, o.Log) // not one of the manager's: those start when its watches are in sync
	return mgr.Start(ctx)
}

// newLead is nil for the only replica there is.
func newLead(cfg *rest.Config, o Options) (*leading.Lead, error) {
	if !o.LeaderElection {
		return nil, nil
	}
	return leading.New(leading.Options{
		Config: cfg, Namespace: o.Namespace, Name: leaderLease,
		Identity: o.PodName + "_" + string(uuid.NewUUID()), Log: o.Log.WithName("lead"),
	})
}

// addWriters adds to the manager, which runs, what a replica needs once it leads for the first time: what only the
// reconcilers watch, the others need not have.
func addWriters(
	mgr ctrl.Manager, kinds *controllers.Kinds, p *plane, signs *issuance, lead *leading.Lead, o Options,
) error {
	p.writer.LedBy(lead)
	p.bound.LedBy(lead)
	for _, w := range []manager.Runnable{p.writer, p.bound} {
		if err := mgr.Add(w); err != nil {
			return err
		}
	}
	return controllers.Setup(mgr, kinds, controllers.Options{
		Lead:      lead,
		Namespace: o.Namespace, Image: o.Image, EnvoyImage: o.EnvoyImage,
		Certificates:        signs.certificates(mgr, o),
		CertificatesChanged: signs.changed,
		NodeReports:         p.captures.reports,
		NodesChanged:        p.triggers.nodes,
		RefusedClaims:       p.claims.list,
		Programmed:          p.programmed,
		ProgrammedChanged:   p.triggers.programmed,
		AutomaticWaypoints:  p.automatic.need,
		AutomaticChanged:    p.triggers.automatic,
		StatusesCleared:     func() bool { return p.writer.Cleared() && p.bound.Cleared() },
		AutomaticLinger:     o.AutomaticLinger,
	})
}

// measured are the operator's metrics.
func measured() http.Handler {
	return promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// scraped serves them to those who may read them.
func scraped(cfg *rest.Config, log logr.Logger) (manager.Runnable, error) {
	guard, err := scrape.NewGuard(cfg, log.WithName("metrics"))
	if err != nil {
		return nil, err
	}
	return everyReplica(func(ctx context.Context) error {
		mux := http.NewServeMux()
		mux.Handle("GET "+introspect.PathMetrics, measured())
		return scrape.Serve(ctx, names.PortOperatorMetrics, guard.Protect(mux))
	}), nil
}

// signing says why a Mesh's proxies can't have certificates. Before there is a Mesh there are none that could ask.
func signing(meshes client.Reader, authority *identity.Authority) func(context.Context) error {
	return func(ctx context.Context) error {
		mesh := &v1alpha1.Mesh{}
		err := meshes.Get(ctx, client.ObjectKey{Name: names.Mesh}, mesh)
		if err != nil || mesh.DeletionTimestamp != nil {
			return client.IgnoreNotFound(err)
		}
		return authority.Ready() //nolint:contextcheck // it never waits
	}
}

// everyReplica runs on leaders and others alike.
type everyReplica func(context.Context) error

func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection is false.
func (everyReplica) NeedLeaderElection() bool { return false }

// pathAlive is where kubelet asks whether the process lives.
const pathAlive = "/healthz"

func newManager(cfg *rest.Config, o Options) (ctrl.Manager, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst = 200, 400 // statuses of many routes at once must not queue for seconds
	cfg.DisableCompression = true // the API server is near: CPU of both costs more than bytes between them
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(),
		Logger: o.Log,
		Cache: cache.Options{
			ByObject:         trimmed(controllers.CacheByObject(o.Namespace)),
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		Client:                 client.Options{Cache: &client.CacheOptions{DisableFor: controllers.Uncached()}},
		Metrics:                metricsserver.Options{BindAddress: "0"}, // see scrape
		HealthProbeBindAddress: fmt.Sprintf(":%d", names.PortOperatorHealth),
		LivenessEndpointName:   pathAlive,
		LeaderElection:         false, // see leading
		// What reconcilers watch may take as long as the API server is away; the operator serves proxies meanwhile.
		Controller: config.Controller{CacheSyncTimeout: 365 * 24 * time.Hour},
	})
	if err != nil {
		return nil, err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, nil
}
