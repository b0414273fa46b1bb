// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/engine"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/server"
	"github.com/fairway-mesh/fairway/internal/identity/xdsauth"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/peers"
	"github.com/fairway-mesh/fairway/internal/status/serving"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// plane is the part of the operator that programs proxies, and what the reconcilers are told of it. The inbox is what
// makes it no circle: the servers fill it before there is an engine, and the engine asks the servers.
type plane struct {
	triggers triggers
	inbox    *engine.Inbox
	engine   *engine.Engine
	server   *xds.Server
	book     *peers.Book
	issuing  *server.Server
	writer   *serving.Entries
	bound    *serving.Services

	rejections *rejections
	ready      *ready
	automatic  *automatic
	claims     *claims
	captures   *captures
	callers    *callers
	counting   *counts.Server
}

// triggers make reconcilers look again at what only the rest of the operator knows.
type triggers struct{ programmed, automatic, nodes *controllers.Trigger }

// capturesPause is how long changes of pods' capture gather before the Mesh counts them: a rollout makes many.
const capturesPause = 500 * time.Millisecond

func newPlane(mgr ctrl.Manager, signs *issuance, o Options) (*plane, error) {
	p := &plane{
		inbox: engine.NewInbox(),
		triggers: triggers{
			programmed: controllers.NewTrigger(), automatic: controllers.NewTrigger(),
			nodes: controllers.NewPausedTrigger(capturesPause),
		},
	}
	meshChanged := func() { p.triggers.nodes.Notify(types.NamespacedName{Name: names.Mesh}) }
	p.claims, p.captures = newClaims(meshChanged, metrics.Registry), newCaptures(meshChanged)
	p.callers = newCallers(newOrigins(pods{mgr.GetCache()}.find), metrics.Registry)
	p.automatic = newAutomatic(func(ns string) { p.triggers.automatic.Notify(types.NamespacedName{Name: ns}) })

	cache := xds.NewCache()
	if err := p.makeServers(mgr, signs, cache, o); err != nil {
		return nil, err
	}
	p.server.OnChange(p.inbox.Acknowledged)
	p.writer = serving.NewEntries(mgr.GetClient(), p.book, o.Log.WithName("status"))
	p.callers.tell, p.callers.grown = p.book.Tell, p.writer.Counted
	p.bound = serving.NewServices(mgr.GetClient(), mgr.GetEventRecorder(names.ManagedBy), o.Log.WithName("status"))
	p.rejections = newRejections(p.book, p.acknowledged)
	p.ready = &ready{acks: p.book, of: map[types.NamespacedName]int{}}
	p.book.OnChange(p.acknowledged)
	p.engine = engine.New(engine.Options{
		Inbox: p.inbox, Cache: cache, Log: o.Log.WithName("engine"), Registerer: metrics.Registry,
		OnReport:    p.writer.Report,
		OnBinding:   p.bound.Bound,
		OnLeftOut:   p.bound.LeftOut,
		OnAutomatic: p.automatic.set,
		OnRefused:   p.claims.set,
		Acks:        p.server,
		OnRejection: p.note,
	})
	return p, nil
}

// makeServers makes what proxies and other replicas talk to; all of it needs the CA.
func (p *plane) makeServers(mgr ctrl.Manager, signs *issuance, cache *xds.Cache, o Options) error {
	authority := signs.authority
	reviewer, err := reviewer(mgr)
	if err != nil {
		return err
	}
	callers := auth.NewAuthenticator(reviewer, time.Now, metrics.Registry)
	view := pods{mgr.GetCache()}
	rights := &auth.Authorizer{
		SystemNamespace: o.Namespace, TrustDomain: authority.TrustDomain, Pods: view, Workloads: view,
		Waypoint: view.waypoint,
	}
	interests := peers.NewInterests(p.inbox.Interest)
	authenticator := &xdsauth.Authenticator{Callers: callers, Scopes: rights}
	p.counting = counts.NewServer(authenticator, p.callers.take)
	p.server = xds.NewServer(xds.Options{
		Cache:         cache,
		Authenticator: authenticator,
		OnInterest:    interests.Here,
		OnAck:         p.inbox.Verdict,
		Log:           o.Log.WithName("xds"),
		Registerer:    metrics.Registry,
		Kinds:         []string{names.ComponentNode, names.ComponentWaypoint},
		Greet:         view.greet,
		Supersede:     true,
		MaxAge:        streamAge,
		Relays:        true,
	})
	p.issuing = &server.Server{
		Addr: net.JoinHostPort("", fmt.Sprint(names.PortCertificates)), TLS: servingTLS(authority, o),
		Issuer: authority, Callers: callers, Rights: rights, Renewals: signs.renewals,
		Log: o.Log.WithName("certificates"), Registerer: metrics.Registry,
	}
	p.book = peers.New(peers.Options{
		Local: p.server, Interests: interests, OnNote: p.noted, OnFact: p.callers.told,
		TLS: authority.MutualConfig(o.Namespace, names.OperatorServiceAccount), Log: o.Log.WithName("peers"),
	})
	return nil
}

// servingTLS is the operator's, by each name that its Service has.
func servingTLS(authority *identity.Authority, o Options) *tls.Config {
	host := names.OperatorService + "." + o.Namespace
	return authority.ServingConfig(o.Namespace, names.OperatorServiceAccount,
		names.OperatorService, host, host+".svc", host+".svc."+names.DefaultClusterDomain)
}

// runnables are what the manager runs; ready waits for those that listen.
func (p *plane) runnables(mgr ctrl.Manager, ready *readiness, o Options) []manager.Runnable {
	cfg, listening := p.issuing.TLS, ready.await("the xDS listener")
	p.issuing.Listening = ready.await("the certificate listener")
	service := client.ObjectKey{Namespace: o.Namespace, Name: names.OperatorService}
	return []manager.Runnable{
		everyReplica(p.engine.Run),
		everyReplica(func(ctx context.Context) error { return serveXDS(ctx, p.server, p.counting, cfg, listening) }),
		everyReplica(p.callers.run),
		p.issuing,
		everyReplica(func(ctx context.Context) error {
			return peers.Discover(ctx, mgr.GetCache(), service, o.PodName, p.book.SetPeers)
		}),
		p.book,
		everyReplica(func(ctx context.Context) error {
			return introspect.Serve(ctx, introspect.LoopbackAddress,
				introspect.OperatorHandler(p.server, p.callers.strangers, measured()))
		}),
	}
}

// reviewer has a rate of its own, which the authenticator limits: whoever sends tokens must not hold up what the
// operator writes besides.
func reviewer(mgr ctrl.Manager) (auth.Reviewer, error) {
	cfg := rest.CopyConfig(mgr.GetConfig())
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		HTTPClient: mgr.GetHTTPClient(),
	})
	if err != nil {
		return nil, fmt.Errorf("make the client for token reviews: %w", err)
	}
	return c, nil
}

// acknowledged is told what proxies make of resources, here or as other replicas tell.
func (p *plane) acknowledged(keys ...xds.Key) {
	written := make([]xds.Key, 0, len(keys))
	for _, k := range keys {
		if all := catalogue.Together(k); catalogue.PartOf(all) == catalogue.Switched {
			written = append(written, all)
			continue
		}
		if _, ok := catalogue.NodeOf(k.Scope); ok && catalogue.PartOf(k) != catalogue.Nobody {
			written = append(written, k)
			continue
		}
		gateway, ok := catalogue.WaypointOf(k.Scope)
		if !ok || catalogue.IsTrial(k.ID) {
			continue
		}
		written = append(written, k)
		rejects := p.rejections.note(k)
		if counts := k == catalogue.Serving(gateway) && p.ready.changed(gateway); rejects || counts {
			p.triggers.programmed.Notify(gateway)
		}
	}
	p.writer.Acknowledged(written...)
}

// programmed implements controllers.ProgrammedProbe.
func (p *plane) programmed(gateway types.NamespacedName) (ready int, rejected string) {
	return p.ready.count(gateway), p.rejections.first(catalogue.WaypointScope(gateway))
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
		p.inbox.Reject(r)
	}
}

// touched makes the writers look at what others may have overwritten; before is nil where the object is new.
func (p *plane) touched(before, now client.Object) {
	key := client.ObjectKeyFromObject(now)
	switch o := now.(type) {
	case *corev1.Service:
		p.bound.Touch(key)
	case *corev1.Node:
		p.callers.origins.node(o)
	case *corev1.Namespace:
		if !member.Enrolled(o) {
			p.server.Evict(func(s xds.Scope) bool {
				gateway, ok := catalogue.WaypointOf(s)
				return ok && gateway.Namespace == key.Name
			})
		}
	default:
		if ref, ok := ingest.ReportRef(o); ok {
			p.writer.Changed(ref, before, o)
		}
	}
}

// pod is told of every pod that comes, changes or goes; before is nil for one that is new, now for one that is gone.
func (p *plane) pod(before, now *corev1.Pod) {
	p.captures.change(before, now)
	p.callers.origins.pod(before, now)
	switch {
	case now == nil:
		p.server.Disconnect(string(before.UID))
	case member.Finished(now):
		p.server.Disconnect(string(now.UID))
	}
}
