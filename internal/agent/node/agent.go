// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/charge"
	"github.com/fairway-mesh/fairway/internal/agent/cni"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/agent/resets"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// stopTimeout bounds what is done after the agent was told to stop; the pod's grace period is longer.
const stopTimeout = 15 * time.Second

// systemNamespaces are those whose pods start without asking the agent, beside the mesh's own: without DNS nothing
// comes up. If one is enrolled all the same, its pods are captured once they run.
var systemNamespaces = []string{"kube-system"}

// Agent enrols the pods of one node. Make it with New, then Run it.
type Agent struct {
	opts      Options
	pods      *pods.Follower
	host      *hostRules
	gate      *gatekeeper
	manager   manager.Manager
	uninstall *uninstaller
	installer *cni.Installer
	plugin    *pluginReport
	metrics   *metrics
	charge    *charge.Charge
	readiness readiness
	requests  chan event.TypedGenericEvent[*corev1.Pod]
}

// New makes an Agent. It must be called before anything enters another network namespace.
func New(o Options) (*Agent, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Agent{
		opts: o, charge: charge.New(o.nodeDir, o.PodUID), requests: make(chan event.TypedGenericEvent[*corev1.Pod], 256),
	}
	if err := a.assemble(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Agent) assemble() error {
	o := a.opts
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	config := asNode(o.Config, o.NodeName, o.Log)
	if a.manager, err = newManager(config, scheme, o); err != nil {
		return err
	}
	a.metrics = newMetrics(o.Registerer)
	if err := o.kernel.CanLimitPeers(); err != nil {
		o.Log.Error(err, "pods are captured without a limit of connections per caller: "+
			"that requires Linux 5.11 with CONFIG_NFT_CONNLIMIT")
	} else {
		a.metrics.limited.Set(1)
	}
	recorder := a.manager.GetEventRecorder("fairway-agent")
	reports := pods.NewReports(o.Registerer, recorder)
	seen := func(path string) string { return inDir(path, o.NetnsDir) }
	a.host = newHostRules(o.kernel, o.Log)
	a.pods = pods.New(pods.Options{
		Client: a.manager.GetClient(), Sandboxes: o.sandboxes, Kernel: o.kernel, Host: a.host, Endpoints: o.Proxy,
		Waypoints: resets.NewServer(o.kernel, o.Log.WithName("waypoints")),
		Enroller: enrol.New(enrol.Options{
			Proxy: o.Proxy, Certificates: o.Certificates, Kernel: o.kernel, Host: a.host, Observer: reports, Log: o.Log,
			Neighbours: o.Neighbours, Waits: o.waits.enrol,
		}),
		Reports: reports, System: o.SystemNamespace, Seen: seen, Log: o.Log, Registerer: o.Registerer, Waits: o.waits.pods,
	})
	a.gate = &gatekeeper{
		pods: a.pods, cached: a.manager.GetClient(), live: a.manager.GetAPIReader(), node: o.NodeName,
		system: o.SystemNamespace, kernel: o.kernel, lingers: o.waits.lingers,
		seen: seen, again: a.enqueue, failed: reports.Failed, starts: a.metrics.starts, log: o.Log,
	}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	a.readiness = readiness{
		client: a.manager.GetClient(), pod: types.NamespacedName{Namespace: o.SystemNamespace, Name: o.PodName},
		proxy: o.Envoy.Ready, log: o.Log.WithName("readiness"), lacking: errStarting,
	}
	a.addPlugin(recorder)
	a.uninstall = &uninstaller{
		client: direct, cached: a.manager.GetClient(), kernel: o.kernel, statuses: a.pods.Snapshot, installer: a.installer,
		log:  o.Log,
		node: o.NodeName, system: o.SystemNamespace, netnsDir: o.NetnsDir, files: []string{o.cniSocket},
	}
	return a.watch()
}

// addPlugin has the CNI plugin installed, unless it isn't wanted, and how that went said on the agent's own pod.
func (a *Agent) addPlugin(recorder events.EventRecorder) {
	o := a.opts
	if o.WithoutCNI {
		return
	}
	a.installer = &cni.Installer{
		Source: o.pluginSource, BinDir: o.CNIBinDir, ConfDir: o.CNIConfDir,
		Entry: cni.NewEntry(o.cniSocket, cni.StateFile(o.CNIConfDir),
			append([]string{o.SystemNamespace}, systemNamespaces...)),
	}
	if o.PodName != "" {
		a.plugin = &pluginReport{
			client: a.manager.GetClient(), events: recorder, log: o.Log.WithName("cni"), confDir: o.CNIConfDir,
			pod: types.NamespacedName{Namespace: o.SystemNamespace, Name: o.PodName}, latest: make(chan error, 1),
		}
	}
}

// newManager watches what the agent needs to see: of pods, those of its node.
func newManager(config *rest.Config, scheme *runtime.Scheme, o Options) (manager.Manager, error) {
	m, err := manager.New(config, manager.Options{
		Scheme:                 scheme,
		Logger:                 o.Log,
		LeaderElection:         false,
		Metrics:                metricsserver.Options{BindAddress: "0"}, // the agent has one endpoint for all metrics
		HealthProbeBindAddress: "0",
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:                    {Field: fields.OneTermEqualSelector(fieldNode, o.NodeName)},
				&corev1.ServiceAccount{}:         ownAccount(o.SystemNamespace),
				&v1alpha1.AuthenticationPolicy{}: {Transform: onlyModes},
			},
		},
		GracefulShutdownTimeout: new(5 * time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("set up the watches of the node's pods: %w", err)
	}
	return m, nil
}

// ownAccount restricts what the agent sees of service accounts to its own.
func ownAccount(namespace string) cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", names.NodeServiceAccount),
	}
}

// onlyModes keeps of a policy what agents carry out, so that others cost the node little.
func onlyModes(o any) (any, error) {
	p, ok := o.(*v1alpha1.AuthenticationPolicy)
	if !ok {
		return o, nil
	}
	out := &v1alpha1.AuthenticationPolicy{TypeMeta: p.TypeMeta}
	out.Namespace, out.Name, out.UID = p.Namespace, p.Name, p.UID
	out.ResourceVersion, out.Generation = p.ResourceVersion, p.Generation
	if out.Spec.MTLS = p.Spec.MTLS; out.Spec.MTLS != nil {
		out.Spec.TargetRefs = p.Spec.TargetRefs
	}
	return out, nil
}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// inDir is the path of a network namespace as seen through our mount of the runtime's directory. /run and /var/run are
// one on the host and not always here.
func inDir(path, dir string) string {
	onHost := func(p string) string { return strings.TrimPrefix(p, "/var") }
	if onHost(filepath.Dir(path)) == onHost(dir) {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Run enrols pods until it is told to stop. Then it takes the mesh off the node if that is being uninstalled. Otherwise
// it leaves everything as it is, and where another agent is there to take over, it returns when the proxy beside it has
// no connection left, or the context ends.
func (a *Agent) Run(ctx context.Context, stop <-chan struct{}) error {
	ctx, end := context.WithCancel(ctx)
	var kept sync.WaitGroup
	defer kept.Wait()
	defer end()
	if a.opts.Connections != nil { // policies hold for connections that drain, too
		kept.Go(func() { _ = a.opts.Connections.Run(ctx, a.opts.kernel, a.pods) }) // it ends with its context alone
	}
	stopped, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-stop:
		case <-ctx.Done():
		}
		cancel()
	}()
	g, running := errgroup.WithContext(stopped)
	g.Go(func() error { return a.manager.Start(running) })
	g.Go(func() error { return a.start(running) })
	err := g.Wait()
	if stopped.Err() == nil || ctx.Err() != nil {
		return err
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		a.opts.Log.Info("while the agent stopped", "reason", err.Error())
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	leaving, why := a.uninstall.leaving(stopCtx)
	if !leaving {
		return a.handOver(ctx)
	}
	return a.leave(stopCtx, why)
}

// leave the node with the whole mesh.
func (a *Agent) leave(ctx context.Context, why string) error {
	a.opts.Log.Info("the mesh leaves this node, releasing its pods", "reason", why)
	return errors.Join(a.uninstall.uninstall(ctx), a.charge.Say(charge.Left), a.charge.Give())
}

// start waits until no other agent is in charge, takes up what an earlier run left, and only then answers the CNI
// plugin.
func (a *Agent) start(ctx context.Context) error {
	// Nothing follows from it while the agent runs; see uninstaller.sawGo.
	if _, err := a.manager.GetCache().GetInformer(ctx, &corev1.ServiceAccount{},
		cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch the agent's service account: %w", err)
	}
	if !a.manager.GetCache().WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.readiness.run(ctx) })
	g.Go(func() error { return a.pods.Share(ctx) })
	g.Go(func() error {
		if err := a.takeCharge(ctx); err != nil {
			return err
		}
		return a.govern(ctx)
	})
	return g.Wait()
}

// govern is what the one agent does that is in charge.
func (a *Agent) govern(ctx context.Context) error {
	a.pods.Former(true)
	orphans, err := a.pods.Recover(ctx, a.opts.NetnsDir)
	if err != nil {
		return err
	}
	a.opts.Proxy.LocalReady(xds.TypeListener)
	a.opts.Proxy.KeepSnapshot(true)
	a.readiness.started()
	a.pods.Ready()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lookAgain(ctx, a.repairHost) })
	g.Go(func() error { return a.pods.SweepLater(ctx, orphans) })
	g.Go(func() error { return a.announce(ctx) })
	if a.opts.InCharge != nil {
		g.Go(func() error { return a.opts.InCharge(ctx) })
	}
	if a.installer != nil {
		server := &cni.Server{Socket: a.opts.cniSocket, Handler: a.gate, Log: a.opts.Log.WithName("cni")}
		listening := make(chan struct{})
		g.Go(func() error { return server.Run(ctx, func() { close(listening) }) })
		g.Go(func() error {
			select {
			case <-listening:
			case <-ctx.Done():
				return nil
			}
			return a.installer.Keep(ctx, a.opts.Log.WithName("cni"), a.installation)
		})
		if a.plugin != nil {
			g.Go(func() error { return a.plugin.run(ctx) })
		}
	}
	return g.Wait()
}

// installation takes in the outcome of an attempt to install the CNI plugin.
func (a *Agent) installation(err error) {
	a.metrics.installation(err)
	if a.plugin != nil {
		a.plugin.note(err)
	}
}

// repairHost looks after the node's own rules.
func (a *Agent) repairHost() {
	if err := a.host.Repair(); err != nil {
		a.opts.Log.Error(err, "the node's probe rules can't be maintained")
	}
}

// lookAgain looks after something every enrol.VerifyEvery, until the context ends.
func lookAgain(ctx context.Context, after func()) error {
	tick := time.NewTicker(enrol.VerifyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			after()
		}
	}
}

// Snapshot is how the node's pods stand: those that are captured or to be captured, and those whose owners opted out.
func (a *Agent) Snapshot() []pods.Status { return a.pods.Snapshot() }

// enqueue has a pod reconciled.
func (a *Agent) enqueue(pod *corev1.Pod) {
	select {
	case a.requests <- event.TypedGenericEvent[*corev1.Pod]{Object: pod}:
	default: // the pod's next status does the same
	}
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
