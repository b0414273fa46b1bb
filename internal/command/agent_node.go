// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent"
	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/neighbours"
	"github.com/fairway-mesh/fairway/internal/agent/node"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/agent/relay"
	"github.com/fairway-mesh/fairway/internal/apiready"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/scrape"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func agentNode() *cobra.Command {
	var o operatorFlags
	n := node.Options{
		RuntimeSockets: names.RuntimeSockets(), CNIBinDir: names.CNIBinDir, CNIConfDir: names.CNIConfDir,
		NetnsDir: names.NetnsDir, Drain: v1alpha1.DefaultNodeDrainTimeout,
	}
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve the Envoy of a node and capture the node's pods",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNode(cmd.Context(), o, n) },
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.spire, "spire-admin-socket", "",
		"admin socket of the node's SPIRE agent, where SPIRE gives the identities of pods")
	f.StringVar(&n.NodeName, "node-name", fromEnv("NODE_NAME", ""), "name of the node")
	f.StringSliceVar(&n.RuntimeSockets, "cri-socket", n.RuntimeSockets,
		"socket of the container runtime (CRI); the first that answers is taken")
	f.StringVar(&n.CNIBinDir, "cni-bin-dir", n.CNIBinDir, "the node's directory of CNI plugins")
	f.StringVar(&n.CNIConfDir, "cni-conf-dir", n.CNIConfDir, "the node's directory of CNI configuration")
	f.StringVar(&n.NetnsDir, "netns-dir", n.NetnsDir, "the node's directory of pods' network namespaces")
	f.DurationVar(&n.Drain, "drain-timeout", n.Drain,
		"how long connections live on at most once another proxy of the node has taken over; 0: they end with this one")
	f.BoolVar(&n.WithoutCNI, "without-cni", false,
		"don't change the node's CNI configuration: new pods are captured a moment after they start")
	return cmd
}

func runNode(ctx context.Context, o operatorFlags, n node.Options) error {
	log, err := begin(o.level)
	if err != nil {
		return err
	}
	if n.Config, err = kubeConfig(); err != nil {
		return err
	}
	// Made before the agent starts, by the container that writes the proxy's bootstrap: both must have the same.
	if n.Mark, err = proxymark.Load(names.MarkPath); err != nil {
		return fmt.Errorf("%w; if the file is gone, delete this pod: the next one creates it", err)
	}
	if n.Resolvers, err = node.Resolvers(names.ResolvConf); err != nil {
		return err
	}
	guard, err := scrape.NewGuard(n.Config, log.WithName("metrics"))
	if err != nil {
		return err
	}
	source, err := o.delegate(n.NodeName)
	if err != nil {
		return err
	}
	n.Connections = connections.New(log.WithName("connections"))
	var near *neighbours.Keeper // made of the core, which knows nothing before it runs
	core, err := agent.NewCore(agent.Options{
		Kind: catalogue.Node, NodeID: n.NodeName, NodeName: n.NodeName,
		Operator: o.operator, Certificates: o.certificates, TrustDomain: o.trustDomain,
		Local: []string{xds.TypeListener}, Log: log,
		Adapt: map[string]func(*anypb.Any) (*anypb.Any, error){
			xds.TypeCluster: func(c *anypb.Any) (*anypb.Any, error) { return translatenode.Marked(c, n.Mark) },
		},
		MaxEndpoints: relay.MaxEndpoints,
		Connections:  n.Connections,
		Ahead:        func(ctx context.Context, ids []xds.ID) func() { return near.Ahead(ctx, ids) },
		Changed:      func() { near.Changed() },
		Source:       source,
		Guard:        guard,
		SnapshotDir:  names.NodeDir,
		Hidden:       n.Mark.Numbers(),
	})
	if err != nil {
		return err
	}
	n.SystemNamespace, n.PodName = fromEnv("POD_NAMESPACE", names.SystemNamespace), fromEnv("POD_NAME", "")
	n.PodUID = fromEnv("POD_UID", "")
	n.Envoy = proxyProcess{admin.New(names.AdminSocket), core}
	near = neighbours.New(core.Relay, n.Mark, log.WithName("neighbours"))
	n.Proxy, n.Certificates, n.Neighbours = core.Relay, core.Identities, near
	n.Log, n.Registerer = log.WithName("node"), core.Registry
	var a *node.Agent
	n.InCharge = func(ctx context.Context) error {
		return core.ServeNode(ctx, func(s *introspect.Agent) {
			s.Captures, s.Neighbours = captures(a.Snapshot()), near.Ways()
		})
	}
	return runParts(ctx, core, near, func(run context.Context) error {
		// Meanwhile Envoy is served what it was served before.
		if err := apiready.Await(ctx, n.Config, n.Log); err != nil {
			return nil //nolint:nilerr // it is told to stop
		}
		var err error
		if a, err = node.New(n); err != nil {
			return err
		}
		return a.Run(run, ctx.Done())
	})
}

// runParts until the node's agent ends, which goes on serving its Envoy while that drains.
func runParts(
	ctx context.Context, core *agent.Core, near *neighbours.Keeper, govern func(context.Context) error,
) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return core.Run(run) })
	g.Go(func() error { return near.Run(run) })
	g.Go(func() error {
		defer stop()
		return govern(run)
	})
	return g.Wait()
}

// proxyProcess is the Envoy beside the agent.
type proxyProcess struct {
	*admin.Envoy
	core *agent.Core
}

// Ready implements node.Envoy.
func (p proxyProcess) Ready(ctx context.Context) error { return p.core.Ready(ctx) }

func captures(in []pods.Status) []introspect.Capture {
	out := make([]introspect.Capture, 0, len(in))
	for _, p := range in {
		out = append(out, introspect.Capture{
			Namespace: p.Namespace, Pod: p.Name, UID: p.UID, State: string(p.State), Reason: p.Reason, Since: p.Since,
		})
	}
	return out
}
