// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Fields of Envoy's messages that a table is put together of.
const (
	virtualHosts = 2 // of RouteConfiguration
	hostRoutes   = 3 // of VirtualHost
)

// ruleIn is a rule as the table of an attachment has it, for callers of one namespace or, where that is "", for all.
// Rules that are the same are the same pointer.
type ruleIn struct {
	rule   *model.Rule
	at     model.Attachment
	caller string
}

// makeRule makes the routes of a rule.
func (r *resources) makeRule(c *memo.Ctx, k ruleIn) *xds.Piece {
	trustDomain := r.ingest.Settings.Get(c, struct{}{}).TrustDomain
	routes, bad := route.OfRule(trustDomain, k.at, r.ingest.OwnGuards.Get(c, k.at), k.caller, *k.rule)
	key := xds.Key{ID: xds.ID{TypeURL: xds.TypeRoute, Name: route.NameOf(k.at)}}
	for _, err := range bad { // none: ingest asks CheckRule about every rule
		r.failed(key, err)
	}
	piece, err := xds.NewPiece(hostRoutes, routes...)
	if err != nil {
		r.failed(key, err)
	}
	return piece
}

// routeTable is the same message as route.Configuration makes, put together of what was made of each rule.
func (r *resources) routeTable(c *memo.Ctx, k xds.Key, at model.Attachment) *xds.Resource {
	trustDomain := r.ingest.Settings.Get(c, struct{}{}).TrustDomain
	table := r.table(c, k.Name, at)
	var pieces []*xds.Piece
	own := func(m *routev3.Route) {
		p, err := xds.NewPiece(hostRoutes, m)
		if err != nil {
			r.failed(k, err)
		}
		pieces = append(pieces, p)
	}
	route.Each(trustDomain, table, own, func(caller string, rule *model.Rule) {
		pieces = append(pieces, r.rules.Get(c, ruleIn{rule, at, caller}))
	})
	if slices.Contains(pieces, nil) { // without a rule, others would get its requests
		return nil
	}
	frame := route.Frame(table)
	host := frame.GetVirtualHosts()[0]
	frame.VirtualHosts = nil
	out, err := xds.NewComposed(k.Name, frame, virtualHosts, host, pieces, table.Editions().Sorted()...)
	if err != nil {
		r.failed(k, err)
	}
	return out
}

// table is what is served for an attachment: as ingest has it, but for namespaces that are closed.
func (r *resources) table(c *memo.Ctx, name string, at model.Attachment) model.RouteTable {
	c.Read(closedInput{name})
	table := *r.ingest.Table.Get(c, at)
	if closed := r.closed[name]; closed != nil {
		table.Callers = slices.Clone(table.Callers)
		for n, caller := range table.Callers {
			if closed[caller.Namespace] {
				all := model.Rule{Source: model.ObjectRef{Kind: "Namespace", Name: caller.Namespace}, Invalid: true}
				table.Callers[n].Rules = []*model.Rule{&all}
			}
		}
	}
	return table
}
