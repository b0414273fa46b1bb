// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/agent"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/node"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// criSocket is where the container runtime answers; its directory is mounted from the node.
const criSocket = "/run/containerd/containerd.sock"

func agentNode() *cobra.Command {
	var o operatorFlags
	nodeName, cri, withoutCNI := "", criSocket, false
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve the Envoy of a node and capture the node's pods",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runNode(cmd.Context(), o, nodeName, cri, withoutCNI)
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&nodeName, "node-name", fromEnv("NODE_NAME", ""), "name of the node")
	f.StringVar(&cri, "cri-socket", cri, "socket of the container runtime (CRI)")
	f.BoolVar(&withoutCNI, "without-cni", withoutCNI, "leave the node's CNI configuration alone: new pods are captured a moment late")
	return cmd
}

func runNode(ctx context.Context, o operatorFlags, nodeName, criSocket string, withoutCNI bool) error {
	log, err := newLogger(o.level)
	if err != nil {
		return err
	}
	cfg, err := kubeConfig()
	if err != nil {
		return err
	}
	var pods *node.Agent
	core, err := agent.NewCore(agent.Options{
		Kind: introspect.KindNode, NodeID: nodeName, NodeName: nodeName,
		Operator: o.operator, Certificates: o.certificates,
		Local: []string{xds.TypeListener}, Log: log,
		Captures: func() []introspect.Capture { return captures(pods.Snapshot()) },
	})
	if err != nil {
		return err
	}
	runtime, err := netns.NewRuntime(criSocket)
	if err != nil {
		return err
	}
	pods, err = node.New(node.Options{
		Config: cfg, NodeName: nodeName, SystemNamespace: fromEnv("POD_NAMESPACE", names.SystemNamespace),
		Proxy: core.Relay, Certificates: core.Identities, Sandboxes: runtime,
		WithoutCNI: withoutCNI, Log: log.WithName("node"), Registerer: core.Registry,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return core.Run(ctx) })
	g.Go(func() error { return pods.Run(ctx) })
	return g.Wait()
}

func captures(in []node.PodStatus) []introspect.Capture {
	out := make([]introspect.Capture, 0, len(in))
	for _, p := range in {
		out = append(out, introspect.Capture{
			Namespace: p.Namespace, Pod: p.Name, UID: p.UID, State: string(p.State), Reason: p.Reason, Since: p.Since,
		})
	}
	return out
}
