// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// serveXDS serves delta ADS until the context ends. Streams are cut then: every proxy goes on with what it has and finds
// another replica.
func serveXDS(ctx context.Context, s *xds.Server, cfg *tls.Config, listening func()) error {
	g := newXDSServer(s, cfg, xdsPatience)
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", names.PortXDS))
	if err != nil {
		return fmt.Errorf("listen for xDS: %w", err)
	}
	listening()
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	return g.Serve(accept.Limit(ln, accept.MaxConnections, accept.MaxPerPeer))
}

// patience with connections on which nobody has proved yet who asks: for TLS and the start of HTTP/2 together, and for one
// without a stream. A proxy's agent opens its only stream at once.
type patience struct{ handshake, idle time.Duration }

var xdsPatience = patience{handshake: 10 * time.Second, idle: 30 * time.Second}

const (
	// maxXDSStreams of one connection; an agent needs one.
	maxXDSStreams = 8
	// maxXDSHeaders is how much a stream's headers may hold in bytes; the token is most of it.
	maxXDSHeaders = 32 << 10
)

func newXDSServer(s *xds.Server, cfg *tls.Config, p patience) *grpc.Server {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	g := grpc.NewServer(append(xds.GRPCOptions(p.idle), grpc.Creds(credentials.NewTLS(cfg)),
		grpc.ConnectionTimeout(p.handshake), grpc.MaxConcurrentStreams(maxXDSStreams), grpc.MaxHeaderListSize(maxXDSHeaders))...)
	s.Register(g)
	return g
}

// automatic remembers of each namespace whether it needs an automatic waypoint. A namespace that the engine has not
// spoken of is not in it: before the engine has read the cluster, nobody may take that for "no".
type automatic struct {
	mu      sync.Mutex
	needed  map[string]bool
	changed func(namespace string)
}

func newAutomatic() *automatic { return &automatic{needed: map[string]bool{}} }

func (a *automatic) set(namespace string, needed, known bool) {
	a.mu.Lock()
	if known {
		a.needed[namespace] = needed
	} else {
		delete(a.needed, namespace)
	}
	changed := a.changed
	a.mu.Unlock()
	if changed != nil {
		changed(namespace)
	}
}

func (a *automatic) need(namespace string) (needed, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	needed, known = a.needed[namespace]
	return needed, known
}

// triggers make reconcilers look again at what only the rest of the operator knows.
type triggers struct {
	programmed, automatic, nodes *controllers.Trigger
	reports                      func() []controllers.NodeReport
}

// capturesPause is how long changes of pods' capture gather before the Mesh counts them: a rollout makes many.
const capturesPause = 500 * time.Millisecond

func triggersOf(p *plane) *triggers {
	t := &triggers{programmed: controllers.NewTrigger(), automatic: controllers.NewTrigger(), nodes: controllers.NewPausedTrigger(capturesPause)}
	p.claims.changed = func() { t.nodes.Notify(types.NamespacedName{Name: names.Mesh}) }
	p.automatic.changed = func(ns string) { t.automatic.Notify(types.NamespacedName{Name: ns}) }
	changed := func(k xds.Key) {
		if all := catalogue.Together(k); catalogue.PartOf(all) == catalogue.Switched { // here, or as other replicas tell
			p.writer.Acknowledged(all)
			return
		}
		gateway, ok := catalogue.WaypointOf(k.Scope)
		if !ok || catalogue.IsTrial(k.ID) {
			return
		}
		p.writer.Acknowledged(k)
		if p.rejections.note(k) || k == catalogue.Serving(gateway) {
			t.programmed.Notify(gateway)
		}
	}
	p.rejections.again = changed
	p.book.OnChange(changed)
	return t
}

func addControllers(mgr ctrl.Manager, kinds *controllers.Kinds, p *plane, t *triggers, o Options) error {
	return controllers.Setup(mgr, kinds, controllers.Options{
		Namespace: o.Namespace, Image: o.Image, EnvoyImage: o.EnvoyImage,
		Certificates:       certificates{&keeper.Keeper{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Policy: o.CARotation}, o.Namespace},
		NodeReports:        func() []controllers.NodeReport { return t.reports() },
		NodesChanged:       t.nodes,
		RefusedClaims:      p.claims.list,
		Programmed:         p.programmed,
		ProgrammedChanged:  t.programmed,
		AutomaticWaypoints: p.automatic.need,
		AutomaticChanged:   t.automatic,
		StatusesCleared:    func() bool { return p.writer.Cleared() && p.bound.Cleared() },
		AutomaticLinger:    o.AutomaticLinger,
	})
}

// programmed implements controllers.ProgrammedProbe.
func (p *plane) programmed(gateway types.NamespacedName) (ready int, rejected string) {
	return len(catalogue.Ready(p.book.State(catalogue.Serving(gateway)))), p.rejections.first(catalogue.WaypointScope(gateway))
}

// certificates lets the Mesh's reconciler keep the CA.
type certificates struct {
	keeper    *keeper.Keeper
	namespace string
}

func (c certificates) Reconcile(ctx context.Context, mesh *v1alpha1.Mesh) (controllers.CertificatesStatus, error) {
	r, err := c.keeper.Reconcile(ctx, keeper.ConfigFor(mesh, c.namespace))
	return controllers.CertificatesStatus{Ready: r.Ready, Signing: r.Signing, Reason: r.Reason, Message: r.Message, Next: r.Next}, err
}
