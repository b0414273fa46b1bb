// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// Options of an Agent. Config, NodeName, Proxy, Envoy, Certificates and Neighbours are required.
type Options struct {
	// Config reaches the API server.
	Config   *rest.Config
	NodeName string
	// SystemNamespace is where the mesh runs; default names.SystemNamespace.
	SystemNamespace string
	// PodName of the agent itself, which says there whether the CNI plugin is in place and its proxy serves; without it,
	// only the log does. PodUID tells it from other agents of the node.
	PodName, PodUID string

	Proxy Proxy
	Envoy Envoy
	// InCharge, unless nil, is what else is for one agent of the node alone. It runs until the context ends.
	InCharge func(ctx context.Context) error
	// Drain bounds how long connections of the proxy live on when another has taken over.
	Drain        time.Duration
	Certificates enrol.Certificates
	// Connections to the node's pods, as the proxy tells of them; nil: those that guards refuse later stay.
	Connections *connections.Keeper
	// Neighbours lead connections between the node's pods through the proxy once.
	Neighbours enrol.Neighbours
	// sandboxes is the first container runtime that answers at one of RuntimeSockets (default names.RuntimeSockets),
	// unless a test says otherwise.
	sandboxes      pods.Sandboxes
	RuntimeSockets []string
	// kernel is the real one unless a test says otherwise.
	kernel nodeKernel
	// Mark is the proxy's; the real Kernel needs it.
	Mark proxymark.Mark
	// Resolvers are the cluster's DNS, as kubelet gives it to the pods of this node.
	Resolvers []netip.Addr

	// nodeDir is where agents of the node agree on who is in charge.
	nodeDir string
	// cniSocket, CNIBinDir, CNIConfDir, pluginSource and NetnsDir have defaults: those of package names, and the plugin
	// where the image has it.
	cniSocket, CNIBinDir, CNIConfDir, pluginSource, NetnsDir string
	// WithoutCNI leaves the node's CNI configuration alone: running pods are captured, starting ones a moment late.
	WithoutCNI bool

	Log        logr.Logger
	Registerer prometheus.Registerer

	waits waits
}

// waits are those that tests shorten.
type waits struct {
	enrol enrol.Waits
	pods  pods.Waits
	// closed is how long the proxy may take to close its listeners.
	closed time.Duration
	// successor is how long the DaemonSet may take to make another pod.
	successor time.Duration
	// crash is how long nobody may be in charge while an agent starts again.
	crash time.Duration
	// lingers is how long a pod's network waits for what proxies have open in it.
	lingers time.Duration
}

// Proxy is the node proxy's configuration, as far as the agent makes it; relay.Relay is one.
type Proxy interface {
	enrol.Proxy
	pods.Endpoints
	// LocalReady says that all resources of a type that the proxy starts with are set.
	LocalReady(typeURL string)
	// KeepSnapshot says whether this agent keeps what the proxy has for those that come after it.
	KeepSnapshot(keep bool)
}

// Envoy is what the agent has to know of the proxy's process, and to have done there; admin.Envoy is one but for Ready.
type Envoy interface {
	// Ready says what keeps the proxy from taking connections.
	Ready(ctx context.Context) error
	Listening(ctx context.Context) (map[string]bool, error)
	CloseListeners(ctx context.Context) error
	Connections(ctx context.Context) (admin.Count, error)
}

// nodeKernel is what the agent does in network namespaces; kernel.Kernel is one.
type nodeKernel interface {
	enrol.Kernel
	pods.Kernel
	hostKernel
	connections.Kernel
	endKernel
	MigrateQueues(path, to string) (was string, err error)
	// CanLimitPeers says why the kernel can't count connections by peer. Pods are captured without that limit then.
	CanLimitPeers() error
}

// endKernel has what proxies have open in a network namespace.
type endKernel interface {
	Marked(path string) (int, error)
	EndMarked(path string) (ended int, err error)
}

// hostKernel has the node's own rules.
type hostKernel interface {
	ApplyHost(h capture.Host) error
	VerifyHost(h capture.Host) (drift []string, err error)
	RemoveHost() error
}

// withDefaults fills in what is left out, and says what must not be.
func (o Options) withDefaults() (Options, error) {
	o.SystemNamespace = cmp.Or(o.SystemNamespace, names.SystemNamespace)
	o.nodeDir = cmp.Or(o.nodeDir, names.NodeDir)
	o.cniSocket = cmp.Or(o.cniSocket, names.CNISocket)
	o.waits.closed = cmp.Or(o.waits.closed, 5*time.Second)
	o.waits.successor = cmp.Or(o.waits.successor, time.Minute)
	o.waits.crash = cmp.Or(o.waits.crash, 5*time.Second)
	o.waits.lingers = cmp.Or(o.waits.lingers, 500*time.Millisecond)
	o.CNIBinDir = cmp.Or(o.CNIBinDir, names.CNIBinDir)
	o.CNIConfDir = cmp.Or(o.CNIConfDir, names.CNIConfDir)
	o.pluginSource = cmp.Or(o.pluginSource, "/"+names.CNIPlugin)
	o.NetnsDir = cmp.Or(o.NetnsDir, names.NetnsDir)
	if o.Config == nil || o.NodeName == "" || o.Proxy == nil || o.Envoy == nil || o.Certificates == nil ||
		o.Neighbours == nil {
		return o, errors.New("node: Config, NodeName, Proxy, Envoy, Certificates and Neighbours are required")
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	if o.sandboxes == nil {
		if len(o.RuntimeSockets) == 0 {
			o.RuntimeSockets = names.RuntimeSockets()
		}
		r, err := netns.NewRuntime(o.RuntimeSockets...)
		if err != nil {
			return o, err
		}
		o.sandboxes = r
	}
	if o.kernel == nil {
		if o.Mark.IsZero() {
			return o, errors.New("node: Mark is required")
		}
		k, err := kernel.New(o.Mark, o.Resolvers)
		if err != nil {
			return o, fmt.Errorf("open the node's network namespace: %w", err)
		}
		o.kernel = k
	}
	return o, nil
}
