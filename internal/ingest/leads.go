// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// leads are where requests go, each once and sorted: mirrors and services that are asked included.
type leads struct {
	// own are where the Service's own namespace has them sent, backends where all do.
	own, backends []model.ServicePort
	// externals are the XBackends by which they leave.
	externals []cluster.Key
}

// leadsOf is where a route has requests sent, whoever's they are. An edit of a rule mostly leads nowhere new.
func (i *Ingest) leadsOf(c *memo.Ctx, ref model.ObjectRef) *leads {
	out := &leads{}
	if r := i.Route.Get(c, ref); r != nil {
		out.backends = ruleBackends(r.Rules)
		for _, h := range ruleExternals(r.Rules) {
			out.externals = append(out.externals, h.Name)
		}
	}
	return out.sorted()
}

// leadsFrom an attachment, whatever guards there are on the way.
func (i *Ingest) leadsFrom(c *memo.Ctx, at model.Attachment) *leads {
	out := &leads{}
	claims := i.claims.Get(c, at)
	for _, ref := range claims.effective {
		of := i.leadsOfRoute.Get(c, ref)
		out.backends = append(out.backends, of.backends...)
		if ref.Namespace == at.Namespace() { // callers' own rules don't leave the cluster
			out.own = append(out.own, of.backends...)
			out.externals = append(out.externals, of.externals...)
		}
	}
	if p := i.traffic.InForce.Get(c, at); p != nil && claims.protocol.HTTP() {
		if l := p.Content.Requests.GlobalLimit; l != nil && !l.Invalid {
			out.own, out.backends = append(out.own, l.Service), append(out.backends, l.Service)
		}
	}
	return out.sorted()
}

func (l *leads) sorted() *leads {
	for _, ports := range []*[]model.ServicePort{&l.own, &l.backends} {
		slices.SortFunc(*ports, model.ServicePort.Compare)
		*ports = slices.Compact(*ports)
	}
	slices.SortFunc(l.externals, byName)
	l.externals = slices.Compact(l.externals)
	return l
}

func sameLeads(a, b *leads) bool {
	return slices.Equal(a.own, b.own) && slices.Equal(a.backends, b.backends) && slices.Equal(a.externals, b.externals)
}

// ruleBackends lists what rules send traffic to, mirrors and services that are asked included.
func ruleBackends(rules []model.Rule) []model.ServicePort {
	var out []model.ServicePort
	for _, r := range rules {
		for _, b := range r.Backends {
			if !b.Invalid && b.External == nil {
				out = append(out, b.Port)
			}
		}
		for _, f := range r.Filters {
			if f.Mirror != nil && !f.Mirror.Backend.Invalid {
				out = append(out, f.Mirror.Backend.Port)
			}
			if f.ExternalAuth != nil && !f.ExternalAuth.Invalid {
				out = append(out, f.ExternalAuth.Service)
			}
			if e := f.Extension; e != nil && e.Processor != nil && !e.Invalid {
				out = append(out, e.Processor.Service)
			}
		}
	}
	return out
}
