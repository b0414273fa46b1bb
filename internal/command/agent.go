// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/agent"
	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/resets"
	"github.com/fairway-mesh/fairway/internal/agent/sds"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/spire"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Agent runs beside each Envoy.
func Agent() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "Run the agent beside an Envoy of the mesh"}
	cmd.AddCommand(agentNode(), agentWaypoint(), agentBootstrap())
	return cmd
}

// operatorFlags are common to all agents.
type operatorFlags struct {
	operator, certificates, trustDomain, level string
	// spire is a socket of SPIRE's agent; empty where the operator signs.
	spire string
}

func (o *operatorFlags) add(cmd *cobra.Command) {
	host := names.OperatorService + "." + names.SystemNamespace + ".svc"
	f := cmd.Flags()
	f.StringVar(&o.operator, "operator", fmt.Sprintf("%s:%d", host, names.PortXDS),
		"host:port of the operator's xDS server")
	f.StringVar(&o.certificates, "certificates", fmt.Sprintf("https://%s:%d", host, names.PortCertificates),
		"URL of the operator's certificate server")
	f.StringVar(&o.trustDomain, "trust-domain", names.DefaultTrustDomain, "SPIFFE trust domain of the mesh")
	f.StringVar(&o.level, "log-level", "info", "debug, info or error")
}

// podFlags say which waypoint pod this is.
type podFlags struct {
	gateway, namespace, podName, podIP, serviceAccount string
}

func (p *podFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.gateway, "gateway", "", "name of the Gateway")
	f.StringVar(&p.namespace, "namespace", fromEnv("POD_NAMESPACE", ""), "namespace of the pod")
	f.StringVar(&p.podName, "pod-name", fromEnv("POD_NAME", ""), "name of the pod")
}

// workload has SPIRE give this pod its identity; nil where the operator signs.
func (o *operatorFlags) workload(ctx context.Context) (sds.Source, error) {
	if o.spire == "" {
		return nil, nil
	}
	return spire.NewWorkload(ctx, o.spire, o.trustDomain)
}

// delegate has SPIRE give the identities of a node's pods; nil where the operator signs.
func (o *operatorFlags) delegate(node string) (sds.Source, error) {
	if o.spire == "" {
		return nil, nil
	}
	return spire.NewDelegate(o.spire, o.trustDomain, node)
}

func agentWaypoint() *cobra.Command {
	var o operatorFlags
	var p podFlags
	drain := 10 * time.Second
	cmd := &cobra.Command{
		Use:   "waypoint",
		Short: "Serve the Envoy of a waypoint",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := begin(o.level)
			if err != nil {
				return err
			}
			source, err := o.workload(cmd.Context())
			if err != nil {
				return err
			}
			drained := introspect.NewDrain()
			here := &place{}
			open := connections.NewWaypoint(log.WithName("connections"), p.namespace+"/"+p.podName)
			core, err := agent.NewCore(agent.Options{
				Kind: catalogue.Waypoint, NodeID: p.namespace + "/" + p.podName,
				Operator: o.operator, Certificates: o.certificates, TrustDomain: o.trustDomain,
				Required: catalogue.Waypoint.Required(), Drain: drained, Log: log,
				Greeted: here.learn, Source: source, Keys: true, Connections: open,
				Adapt: map[string]func(*anypb.Any) (*anypb.Any, error){
					xds.TypeEndpoint: here.nearest, xds.TypeExtension: authentication.KeptByAgent,
				},
			})
			if err != nil {
				return err
			}
			id := names.SPIFFEID(o.trustDomain, p.namespace, p.serviceAccount)
			if err := core.Identities.Want(id, identity.Pod{}); err != nil {
				return err
			}
			// The agent goes on serving its Envoy while that drains.
			run, stop := context.WithCancel(context.WithoutCancel(cmd.Context()))
			context.AfterFunc(cmd.Context(), func() {
				drained.Begin()
				defer stop()
				defer drained.End()
				if err := agent.Drain(run, drain); err != nil {
					log.Error(err, "stopping without draining")
				}
			})
			g, ctx := errgroup.WithContext(run)
			g.Go(func() error {
				asker := resets.NewAsker()
				return open.Run(ctx, asker, asker)
			})
			g.Go(func() error {
				defer stop()
				return core.Run(ctx)
			})
			return g.Wait()
		},
	}
	o.add(cmd)
	p.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.spire, "spire-workload-socket", "", "socket of SPIRE's Workload API, where SPIRE gives the identity")
	f.StringVar(&p.podIP, "pod-ip", fromEnv("POD_IP", ""), "address of the pod")
	f.StringVar(&p.serviceAccount, "service-account", "", "service account of the pod, which is the waypoint's identity")
	f.DurationVar(&drain, "drain-timeout", drain, "how long connections have to move elsewhere before the proxy stops")
	return cmd
}

func agentBootstrap() *cobra.Command {
	cmd := &cobra.Command{Use: "bootstrap", Short: "Write the configuration that an Envoy starts with"}
	nodeName, out, memory := "", names.BootstrapPath, uint64(0)
	onNode := &cobra.Command{
		Use: "node", Short: "Write the configuration of a node proxy", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			most, err := maxConnections()
			if err != nil {
				return err
			}
			mark, err := proxymark.Ensure(names.MarkPath)
			if err != nil {
				return err
			}
			// The mark is a secret. The node's Envoy is root, too.
			return writeBootstrap(out, 0o600, bootstrap.Options{
				ID: nodeName, Cluster: names.ComponentNode, MaxConnections: most, Memory: memory,
				Clusters: translatenode.StaticClusters(most, mark),
			})
		},
	}
	onNode.Flags().StringVar(&nodeName, "node-name", fromEnv("NODE_NAME", ""), "name of the node")
	var p podFlags
	onWaypoint := &cobra.Command{
		Use: "waypoint", Short: "Write the configuration of a waypoint", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			most, err := maxConnections()
			if err != nil {
				return err
			}
			// Envoy reads it as another user; there is no secret in it.
			return writeBootstrap(out, 0o644, bootstrap.Options{
				ID:               p.namespace + "/" + p.podName,
				Cluster:          string(catalogue.WaypointScope(types.NamespacedName{Namespace: p.namespace, Name: p.gateway})),
				WildcardClusters: true,
				MaxConnections:   most, Memory: memory,
				Listeners: waypoint.KeyListeners(names.FetchSocket),
				Clusters:  waypoint.KeyClusters(names.KeysSocket),
			})
		},
	}
	p.add(onWaypoint)
	cmd.PersistentFlags().StringVar(&out, "out", out, "file to write")
	cmd.PersistentFlags().Uint64Var(&memory, "memory", memory,
		"memory limit of the proxy in bytes; 0: unknown, the proxy does not protect itself against running out of memory")
	cmd.AddCommand(onNode, onWaypoint)
	return cmd
}

// maxConnections that fit the limit of open files. The runtime gives one limit to all containers of a pod, and Envoy
// raises its own to the hard one.
func maxConnections() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return bootstrap.ConnectionsWithin(limit.Max)
}

func writeBootstrap(file string, mode fs.FileMode, o bootstrap.Options) error {
	text, err := bootstrap.Marshal(bootstrap.Bootstrap(o))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(file, text, mode, renameio.WithStaticPermissions(mode))
}
