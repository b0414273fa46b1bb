// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// decidedPorts are the ports of a Service at which its waypoint decides on requests, sorted: those that a policy of
// level Application or an AuthenticationPolicy is for, and those that lead to ports of pods where nobody else is let
// in. A policy that is only tried changes nothing, so a port that may be any protocol stays as it is.
func (i *Ingest) decidedPorts(c *memo.Ctx, key cluster.Key) []uint16 {
	svc := i.Service.Get(c, key)
	if svc == nil || !i.requests(c, key.Namespace) {
		return nil
	}
	var out []uint16
	for _, r := range i.requested.Get(c, key) {
		for _, p := range svc.Ports {
			if r.at(p.Number) && (!r.dryRun || p.Protocol != model.ProtocolUndeclared) {
				out = append(out, p.Number)
			}
		}
	}
	for _, p := range svc.Ports {
		if len(i.authenticationAt(c, svc.Attachment(p).Port)) > 0 {
			out = append(out, p.Number)
		}
	}
	for _, k := range i.behindOf.Get(c, key) {
		only := i.onlyOf.Get(c, k)
		for _, p := range i.portsOf.Get(c, k) {
			if p.ServiceName() == key && slices.Contains(only, p.target) {
				out = append(out, p.Port)
			}
		}
	}
	return sortedPorts(out)
}

// decides tells whether requests to a port are decided on.
func (i *Ingest) decides(c *memo.Ctx, port model.ServicePort) bool {
	return i.requests(c, port.Namespace) && slices.Contains(i.decided.Get(c, port.ServiceName()), port.Port)
}

// bringsWaypoint tells whether policies ask for a waypoint of a Service: where some port may carry requests.
func (i *Ingest) bringsWaypoint(c *memo.Ctx, svc *model.Service) bool {
	return slices.ContainsFunc(svc.Ports, func(p model.Port) bool {
		return !p.Protocol.Opaque() && i.decides(c, svc.Attachment(p).Port)
	})
}

// sender is a waypoint that sends to a port, by whose word; tcp: what it passes on as it is, and no requests.
type sender struct {
	gateway  cluster.Key
	identity string
	word     Word
	tcp      bool
}

// Word is whose word it is that a waypoint sends to a port.
type Word uint8

// Words, by who lets the waypoint's identity and place in the network be used.
const (
	// OfOwner: waypoint and Service are of one namespace.
	OfOwner Word = iota
	// OfSender: the routes or policies of the waypoint's namespace lead to a Service of another one.
	OfSender
	// OfConsumer: those of other namespaces only do, so nobody of the waypoint's namespace relies on what is there.
	OfConsumer
)

// Sent is a Service's port as waypoints send to it by somebody's word.
type Sent struct {
	model.ServicePort
	Word Word
}

// WordFor a port that a waypoint sends to.
func WordFor(w *model.Waypoint, port model.ServicePort) Word {
	if w.Name.Namespace == port.Namespace {
		return OfOwner
	}
	if _, consumed := slices.BinarySearchFunc(w.Consumed, port, model.ServicePort.Compare); consumed {
		return OfConsumer
	}
	return OfSender
}

// sendsToNamespaces are those of the ports that a waypoint sends to, sorted.
func (i *Ingest) sendsToNamespaces(c *memo.Ctx, gateway cluster.Key) []string {
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return nil
	}
	var out []string
	for _, p := range w.Ports {
		out = append(out, p.Namespace)
	}
	for _, p := range w.Backends {
		out = append(out, p.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// allSenders are the waypoints that send to each namespace, sorted.
func (i *Ingest) allSenders(c *memo.Ctx, _ struct{}) map[string][]cluster.Key {
	out := map[string][]cluster.Key{}
	for _, gateway := range i.store.Gateways.By(c, cluster.All, "") {
		for _, ns := range i.sendsTo.Get(c, gateway) {
			out[ns] = append(out[ns], gateway)
		}
	}
	return out
}

// sendersToPort are the waypoints of the mesh that send to a Service's port, sorted.
func (i *Ingest) sendersToPort(c *memo.Ctx, port model.ServicePort) []sender {
	var out []sender
	for _, gateway := range i.senders.Get(c, struct{}{})[port.Namespace] {
		if p := i.roleOf(c, gateway, port); p.backend || p.tcp {
			out = append(out, sender{gateway: gateway, identity: p.identity, word: p.word, tcp: p.tcp})
		}
	}
	slices.SortFunc(out, func(a, b sender) int { return byName(a.gateway, b.gateway) })
	return out
}

// wordsFor a port are those by which waypoints send there, sorted.
func (i *Ingest) wordsFor(c *memo.Ctx, port model.ServicePort) (out []Word) {
	for _, s := range i.sendersTo.Get(c, port) {
		out = append(out, s.word)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
