// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent is what runs beside each Envoy of the mesh: its only xDS server, which relays the operator's
// configuration, and the holder of its keys. What only a node's agent does besides is in package node.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/control"
	"github.com/fairway-mesh/fairway/internal/agent/counting"
	agentkeys "github.com/fairway-mesh/fairway/internal/agent/keys"
	"github.com/fairway-mesh/fairway/internal/agent/relay"
	"github.com/fairway-mesh/fairway/internal/agent/sds"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/scrape"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Options of any agent.
type Options struct {
	// Kind of the proxy.
	Kind catalogue.Kind
	// NodeID is for the operator's logs; NodeName is the Kubernetes node.
	NodeID, NodeName string
	// Operator is host:port of the xDS server, Certificates the URL of the certificate server.
	Operator, Certificates string
	// TrustDomain is the mesh's.
	TrustDomain string
	// Adapt is relay.Options.Adapt.
	Adapt map[string]func(*anypb.Any) (*anypb.Any, error)
	// Connections that are open are kept there; nil: nowhere.
	Connections *connections.Keeper
	// Ahead and Changed are those of relay.Options.
	Ahead   func(ctx context.Context, ids []xds.ID) (done func())
	Changed func()
	// Greeted is relay.Options.Greeted.
	Greeted func(metadata.MD)
	// MaxEndpoints is relay.Options.MaxEndpoints.
	MaxEndpoints int
	// Local lists the xDS types that this agent makes itself besides secrets.
	Local []string
	// Keys: Envoy verifies tokens, so keys are kept for it.
	Keys bool
	// Required lists the listeners without which the proxy is not ready.
	Required []string
	// Source gives identities and roots; nil where the operator signs.
	Source sds.Source
	// Hidden are numbers of the proxy's configuration that nobody is shown.
	Hidden []string
	// Guard says who may read metrics, which are on names.PortMetrics then, and that the agent shares its node's
	// network: all else is for the node itself, and of the node's agents one at a time has the ports (ServeNode). A
	// waypoint's agent has none: it has no rights in the cluster, and lives among its users, who must not be sent tokens
	// of others.
	Guard *scrape.Guard
	// SnapshotDir is where the relay's snapshot is; of several agents that have it one keeps it. "": names.RunDir, which
	// no other agent has.
	SnapshotDir string
	// Drain is told to kubelet; nil for a proxy that is not drained.
	Drain *introspect.Drain
	Log   logr.Logger
}

// Core is the part that all agents have in common.
type Core struct {
	Relay      *relay.Relay
	Identities *sds.Manager
	client     *sds.Client
	envoy      *introspect.Envoy
	Registry   *prometheus.Registry

	keys *agentkeys.Keeper // nil: none
	opts Options
}

// NewCore connects the pieces; Run starts them.
func NewCore(o Options) (*Core, error) {
	c := &Core{Registry: prometheus.NewRegistry(), envoy: introspect.NewEnvoy(names.AdminSocket), opts: o}
	if len(o.Hidden) > 0 {
		c.envoy.Hide(o.Hidden...)
	}
	c.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	host, _, err := net.SplitHostPort(o.Operator)
	if err != nil {
		return nil, fmt.Errorf("--operator %q: %w", o.Operator, err)
	}
	certificates, ok := strings.CutPrefix(o.Certificates, "https://")
	if !ok {
		return nil, fmt.Errorf("--certificates %q must begin with https://", o.Certificates)
	}
	id := names.SPIFFEID(o.TrustDomain, names.SystemNamespace, names.OperatorServiceAccount)
	operator := control.New(host, id, names.TokenPath, names.TrustBundlePath)
	if o.Source != nil {
		operator = control.Learning(host, id, names.TokenPath)
	}
	reporter := &counting.Reporter{Counter: counting.NewCounter(), Log: o.Log.WithName("counts"), Connected: c.connected}
	var accepted func(name, version string, packed *anypb.Any)
	if o.Connections != nil {
		c.Registry.MustRegister(o.Connections)
		reporter.Counter.Open, accepted = o.Connections.Told, o.Connections.Accepted
	}
	if o.Keys {
		c.keys = agentkeys.New(names.FetchSocket, o.Log.WithName("keys"), c.Registry)
		reporter.Counter.UnknownKey, reporter.Besides = c.keys.Renew, c.keys.Take
	}
	c.Relay, err = relay.New(relay.Options{
		Dial:         func() (*grpc.ClientConn, error) { return operator.DialGRPC("dns:///" + o.Operator) },
		NodeID:       o.NodeID,
		Local:        append([]string{xds.TypeSecret}, o.Local...),
		Adapt:        o.Adapt,
		Accepted:     accepted,
		Ahead:        o.Ahead,
		Changed:      o.Changed,
		Greeted:      o.Greeted,
		MaxEndpoints: o.MaxEndpoints,
		Register:     reporter.Counter.Register,
		Beside:       reporter.Run,
		SnapshotPath: filepath.Join(cmp.Or(o.SnapshotDir, names.RunDir), "relay.snapshot"),

		SnapshotOfOthers: o.SnapshotDir != "",
		Log:              o.Log.WithName("relay"),
		Registerer:       c.Registry,
	})
	if err != nil {
		return nil, err
	}
	secrets := publisher{relay: c.Relay, log: o.Log}
	c.client = sds.NewClient(certificates, operator)
	if log := o.Log.WithName("identities"); o.Source == nil {
		c.Identities = sds.NewManager(c.client, secrets, log)
	} else {
		c.Identities = sds.NewGiven(o.Source, secrets, operator.Give, log)
	}
	c.Registry.MustRegister(c.Identities)
	c.Relay.OnLocalInterest(c.interest)
	return c, nil
}

// Run serves Envoy until the context ends, and where the agent has a network of its own, kubelet and Prometheus.
func (c *Core) Run(ctx context.Context) error {
	lis, err := relay.Listen(names.XDSSocket, uint32(os.Getuid())) //nolint:gosec // user IDs fit
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Relay.Serve(ctx, lis) })
	g.Go(func() error { return c.Relay.Run(ctx) })
	g.Go(func() error { return c.serveKeys(ctx) })
	g.Go(func() error { return c.Identities.Start(ctx) })
	if c.opts.Source != nil {
		g.Go(func() error {
			c.Identities.Report(ctx, c.client.Failing)
			return nil
		})
	}
	if c.opts.Guard == nil {
		g.Go(func() error { return c.servePorts(ctx) })
	}
	return ended(g.Wait())
}

// ended is nil where an error says nothing but that a context ended.
func ended(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serveKeys to Envoy alone.
func (c *Core) serveKeys(ctx context.Context) error {
	if c.keys == nil {
		return nil
	}
	lis, err := relay.Listen(names.KeysSocket, uint32(os.Getuid())) //nolint:gosec // user IDs fit
	if err != nil {
		return err
	}
	return c.keys.Serve(ctx, lis)
}

// interest follows what Envoy asks of the local types. Secrets are made when they are asked for.
func (c *Core) interest(i xds.Interest) {
	if i.TypeURL != xds.TypeSecret || i.Name == names.TrustBundleSecret || i.Name == xds.Wildcard {
		return
	}
	if !i.Wanted {
		c.Identities.Unwant(i.Name, identity.Pod{})
		return
	}
	if err := c.Identities.Want(i.Name, identity.Pod{}); err != nil {
		c.opts.Log.Error(err, "the proxy asks for a certificate that is not available", "name", i.Name)
		c.Relay.SetLocal(xds.TypeSecret, []xds.Update{xds.Gone(xds.ID{TypeURL: xds.TypeSecret, Name: i.Name})})
	}
}

func (c *Core) connected() (since time.Time, connected bool) {
	s := c.Relay.Status()
	return s.Since, s.Connected
}

func (c *Core) snapshot() introspect.Agent {
	s := c.Relay.Status()
	return introspect.Agent{
		Kind: c.opts.Kind, Version: names.Version, Node: c.opts.NodeName,
		Operator: introspect.Connection{Connected: s.Connected, Since: s.Since, Error: s.LastError},
	}
}

// publisher hands secrets to the relay. They are never logged: they hold keys.
type publisher struct {
	relay *relay.Relay
	log   logr.Logger
}

// PublishSecrets implements sds.Publisher.
func (p publisher) PublishSecrets(changed []*tlsv3.Secret, removed []string) {
	var updates []xds.Update
	for _, s := range changed {
		r, err := xds.NewResource(s.GetName(), s)
		if err != nil {
			p.log.Error(errors.New("failed to marshal a secret"), "certificate is not published", "name", s.GetName())
			continue
		}
		updates = append(updates, xds.Set(r))
	}
	for _, name := range removed {
		updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeSecret, Name: name}))
	}
	p.relay.SetLocal(xds.TypeSecret, updates)
}
