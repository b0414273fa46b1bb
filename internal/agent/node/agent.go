// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/cni"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// stopTimeout bounds what is done after the agent was told to stop; the pod's grace period is longer.
const stopTimeout = 15 * time.Second

// systemNamespaces are those whose pods start without asking the agent, beside the mesh's own: without DNS nothing
// comes up. If one is enrolled all the same, its pods are captured once they run.
var systemNamespaces = []string{"kube-system"}

// Options of an Agent. Config, NodeName, Proxy and Certificates are required.
type Options struct {
	// Config reaches the API server.
	Config   *rest.Config
	NodeName string
	// SystemNamespace is where the mesh runs; default names.SystemNamespace.
	SystemNamespace string
	// PodName of the agent itself, which says there whether the CNI plugin is in place; without it, only the log does.
	PodName string

	Proxy        Proxy
	Certificates Certificates
	// Sandboxes is the first container runtime that answers at one of RuntimeSockets (default names.RuntimeSockets),
	// unless a test says otherwise.
	Sandboxes      Sandboxes
	RuntimeSockets []string
	// Kernel is the real one unless a test says otherwise.
	Kernel Kernel
	// Mark is the proxy's; the real Kernel needs it.
	Mark proxymark.Mark

	// CNISocket, CNIBinDir, CNIConfDir, PluginSource and NetnsDir have defaults: those of package names, and the plugin
	// where the image has it.
	CNISocket, CNIBinDir, CNIConfDir, PluginSource, NetnsDir string
	// WithoutCNI leaves the node's CNI configuration alone: running pods are captured, starting ones a moment late.
	WithoutCNI bool

	Log        logr.Logger
	Registerer prometheus.Registerer
}

// Agent enrols the pods of one node. Make it with New, then Run it.
type Agent struct {
	opts       Options
	reconciler *reconciler
	gate       *gatekeeper
	manager    manager.Manager
	uninstall  *uninstaller
	installer  *cni.Installer
	plugin     *pluginReport
	requests   chan event.TypedGenericEvent[*corev1.Pod]
}

// New makes an Agent. It must be called before anything enters another network namespace.
func New(o Options) (*Agent, error) {
	o.SystemNamespace = cmp.Or(o.SystemNamespace, names.SystemNamespace)
	o.CNISocket = cmp.Or(o.CNISocket, names.CNISocket)
	o.CNIBinDir = cmp.Or(o.CNIBinDir, names.CNIBinDir)
	o.CNIConfDir = cmp.Or(o.CNIConfDir, names.CNIConfDir)
	o.PluginSource = cmp.Or(o.PluginSource, "/"+names.CNIPlugin)
	o.NetnsDir = cmp.Or(o.NetnsDir, names.NetnsDir)
	if o.Config == nil || o.NodeName == "" || o.Proxy == nil || o.Certificates == nil {
		return nil, errors.New("node: Config, NodeName, Proxy and Certificates are required")
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	if o.Sandboxes == nil {
		if len(o.RuntimeSockets) == 0 {
			o.RuntimeSockets = names.RuntimeSockets()
		}
		r, err := netns.NewRuntime(o.RuntimeSockets...)
		if err != nil {
			return nil, err
		}
		o.Sandboxes = r
	}
	if o.Kernel == nil {
		if o.Mark.IsZero() {
			return nil, errors.New("node: Mark is required")
		}
		k, err := newKernel(o.Mark)
		if err != nil {
			return nil, fmt.Errorf("open the node's network namespace: %w", err)
		}
		o.Kernel = k
	}
	a := &Agent{opts: o, requests: make(chan event.TypedGenericEvent[*corev1.Pod], 256)}
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
	a.manager, err = manager.New(config, manager.Options{
		Scheme:                 scheme,
		Logger:                 o.Log,
		LeaderElection:         false,
		Metrics:                metricsserver.Options{BindAddress: "0"}, // the agent has one endpoint for all metrics
		HealthProbeBindAddress: "0",
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:            {Field: fields.OneTermEqualSelector(fieldNode, o.NodeName)},
				&corev1.ServiceAccount{}: ownAccount(o.SystemNamespace),
			},
		},
		GracefulShutdownTimeout: new(5 * time.Second),
	})
	if err != nil {
		return fmt.Errorf("set up the watches of the node's pods: %w", err)
	}
	pods := newRegistry()
	m := newMetrics(o.Registerer, pods)
	if err := o.Kernel.CanLimitPeers(); err != nil {
		o.Log.Error(err, "pods are captured without a limit of connections for each caller: "+
			"that takes Linux 5.11 with CONFIG_NFT_CONNLIMIT")
	} else {
		m.limited.Set(1)
	}
	a.reconciler = &reconciler{
		enroller: &enroller{
			proxy: o.Proxy, certificates: o.Certificates, kernel: o.Kernel, host: newHostRules(o.Kernel, o.Log),
			pods: pods, log: o.Log, onRepair: m.repairs.Inc, now: time.Now, waits: defaultWaits,
			onRefused: func(t Target, fresh capture.Refused) { a.reconciler.noteRefused(t, fresh) },
		},
		client: a.manager.GetClient(), sandboxes: o.Sandboxes, metrics: m, system: o.SystemNamespace,
		events: a.manager.GetEventRecorder("fairway-agent"),
		ready:  make(chan struct{}),
		seen:   func(path string) string { return inDir(path, o.NetnsDir) },
	}
	a.gate = &gatekeeper{reconciler: a.reconciler, live: a.manager.GetAPIReader(), node: o.NodeName, again: a.enqueue}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	if !o.WithoutCNI {
		a.installer = &cni.Installer{
			Source: o.PluginSource, BinDir: o.CNIBinDir, ConfDir: o.CNIConfDir,
			Entry: cni.NewEntry(o.CNISocket, cni.StateFile(o.CNIConfDir), append([]string{o.SystemNamespace}, systemNamespaces...)),
		}
	}
	if a.installer != nil && o.PodName != "" {
		a.plugin = &pluginReport{
			client: a.manager.GetClient(), events: a.reconciler.events, log: o.Log.WithName("cni"), confDir: o.CNIConfDir,
			pod: types.NamespacedName{Namespace: o.SystemNamespace, Name: o.PodName}, latest: make(chan error, 1),
		}
	}
	a.uninstall = &uninstaller{
		client: direct, cached: a.manager.GetClient(), kernel: o.Kernel, pods: pods, installer: a.installer, log: o.Log,
		node: o.NodeName, system: o.SystemNamespace, netnsDir: o.NetnsDir, files: []string{o.CNISocket},
	}
	return a.watch()
}

// ownAccount restricts what the agent sees of service accounts to its own.
func ownAccount(namespace string) cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", names.NodeServiceAccount),
	}
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

// Run enrols pods until the context ends. Then it leaves everything as it is, or takes the mesh off the node if that is
// being uninstalled.
func (a *Agent) Run(ctx context.Context) error {
	g, runCtx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.manager.Start(runCtx) })
	g.Go(func() error { return a.start(runCtx) })
	err := g.Wait()
	if ctx.Err() == nil {
		return err
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		a.opts.Log.Info("while the agent stopped", "reason", err.Error())
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	leaving, why := a.uninstall.leaving(stopCtx)
	if !leaving {
		a.opts.Log.Info("the agent stops; pods stay captured")
		return nil
	}
	a.opts.Log.Info("the mesh leaves this node; pods are let go", "reason", why)
	return a.uninstall.uninstall(stopCtx)
}

// start takes up what an earlier run left, and only then answers proxy and CNI plugin.
func (a *Agent) start(ctx context.Context) error {
	// Nothing follows from it while the agent runs; see uninstaller.sawGo.
	if _, err := a.manager.GetCache().GetInformer(ctx, &corev1.ServiceAccount{}, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch the agent's service account: %w", err)
	}
	if !a.manager.GetCache().WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	orphans, err := a.reconciler.recover(ctx, a.opts.NetnsDir)
	if err != nil {
		return err
	}
	a.opts.Proxy.LocalReady(xds.TypeListener)
	close(a.reconciler.ready)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lookAgain(ctx, a.repairHost) })
	g.Go(func() error { return a.reconciler.shareForever(ctx) })
	g.Go(func() error { return a.reconciler.sweepLater(ctx, orphans) })
	if a.installer != nil {
		server := &cni.Server{Socket: a.opts.CNISocket, Handler: a.gate, Log: a.opts.Log.WithName("cni")}
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
	a.reconciler.metrics.installation(err)
	if a.plugin != nil {
		a.plugin.note(err)
	}
}

// repairHost looks after the node's own rules.
func (a *Agent) repairHost() {
	if err := a.reconciler.host.repair(); err != nil {
		a.opts.Log.Error(err, "the node's probe rules can't be looked after")
	}
}

// lookAgain looks after something every verifyEvery, until the context ends.
func lookAgain(ctx context.Context, after func()) error {
	tick := time.NewTicker(verifyEvery)
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
func (a *Agent) Snapshot() []PodStatus { return a.reconciler.pods.snapshot() }

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
