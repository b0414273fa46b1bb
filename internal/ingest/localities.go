// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// NodePort is a Service's port as seen from a node.
type NodePort struct {
	model.ServicePort
	Node string
}

// spread tells that a Service's endpoints are the same for the proxies of all nodes, which is nearly always so.
func (i *Ingest) spread(c *memo.Ctx, port model.ServicePort) bool {
	svc := i.Service.Get(c, port.ServiceName())
	if svc == nil {
		return true
	}
	list := i.Endpoints.Get(c, port)
	return !svc.Local && !hinted(list, forNodes) && !hinted(list, forZones)
}

// nodeEndpoints leaves out what internalTrafficPolicy keeps away from a node, and puts first what the hints of the
// EndpointSlices mean for it. Hints are a preference: the others are still there for when nothing nearer is left.
func (i *Ingest) nodeEndpoints(c *memo.Ctx, at NodePort) []model.Endpoint {
	out := slices.Clone(i.Endpoints.Get(c, at.ServicePort))
	if svc := i.Service.Get(c, at.ServiceName()); svc != nil && svc.Local {
		return slices.DeleteFunc(out, func(e model.Endpoint) bool { return e.Node != at.Node })
	}
	byNode, byZone := hinted(out, forNodes), hinted(out, forZones)
	zone := ""
	if byZone {
		if n, ok := i.store.Nodes.Get(c, cluster.Key{Name: at.Node}); ok {
			zone = n.Labels[corev1.LabelTopologyZone]
		}
	}
	for n, e := range out {
		switch {
		case byNode && slices.Contains(e.ForNodes, at.Node):
		case byZone && zone != "" && slices.Contains(e.ForZones, zone):
			out[n].Distance = 1
		default:
			out[n].Distance = 2
		}
	}
	return out
}

// Hinted are endpoints with the hints that are to be followed, for proxies that don't all run on one node: none, unless
// they are complete.
func Hinted(list []model.Endpoint) []model.Endpoint {
	byNode, byZone := hinted(list, forNodes), hinted(list, forZones)
	if byNode && byZone {
		return list
	}
	out := slices.Clone(list)
	for n := range out {
		if !byNode {
			out[n].ForNodes = nil
		}
		if !byZone {
			out[n].ForZones = nil
		}
	}
	return out
}

func forNodes(e model.Endpoint) []string { return e.ForNodes }
func forZones(e model.Endpoint) []string { return e.ForZones }

// hinted tells whether every endpoint in service has a hint. As long as one has none, the hints are not complete, and
// to follow them could overload the few that have one; kube-proxy sees it the same way.
func hinted(list []model.Endpoint, hint func(model.Endpoint) []string) bool {
	any := false
	for _, e := range list {
		switch {
		case e.Draining:
		case len(hint(e)) == 0:
			return false
		default:
			any = true
		}
	}
	return any
}
