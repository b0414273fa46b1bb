// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package neighbours

import (
	"net/netip"
	"slices"

	"github.com/fairway-mesh/fairway/internal/names"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Known is what there is to decide by.
type Known struct {
	// Pods are the captured pods of the node that answer mTLS.
	Pods []translatenode.Pod
	// Dialled are what the operator says of addresses, and Endpoints of load assignments, by name.
	Dialled   map[string]upstream.Dialled
	Endpoints map[string]upstream.Takers
	// Open are the pods ("namespace/name") whose guards let everybody in.
	Open map[string]bool
}

// way is an address that leads to neighbours, and what that was decided by.
type way struct {
	translatenode.Way
	by []xds.ID
}

// ways are the addresses that lead to neighbours: those all of whose endpoints are captured pods of the node that
// anybody of the mesh may connect to at the address's port, and that the caller would have taken for who they are. Of
// an address that leads elsewhere, too, none is left out: the proxy balances among its endpoints.
func ways(k Known) (out []way) {
	at := k.byAddress()
	if at == nil {
		return nil
	}
	for name, d := range k.Dialled {
		takers, by := d.Static, []xds.ID{{TypeURL: xds.TypeCluster, Name: name}}
		if d.Endpoints != "" {
			takers = k.Endpoints[d.Endpoints]
			by = append(by, xds.ID{TypeURL: xds.TypeEndpoint, Name: d.Endpoints})
		}
		if len(takers) == 0 || d.Sticky && len(takers) > 1 {
			continue
		}
		w := way{translatenode.Way{Dialled: name}, by}
		for _, application := range takers {
			p := at[application.Addr()]
			if p == nil || !k.Open[p.Namespace+"/"+p.Name] || !d.MayAnswer(p.Identity) || isOurs(application.Port()) {
				break
			}
			w.To = append(w.To, translatenode.Neighbour{Pod: p, At: application})
			w.by = append(w.by, xds.ID{TypeURL: xds.TypeExtension, Name: names.PodAuthorization(p.Namespace, p.Name)})
		}
		if len(w.To) == len(takers) {
			out = append(out, w)
		}
	}
	return out
}

// byAddress are the pods by their addresses. An address that two have is nobody's. There is none at all while the
// node's pods are of several trust domains, for pods take no callers of another one.
func (k Known) byAddress() map[netip.Addr]*translatenode.Pod {
	out, domains := map[netip.Addr]*translatenode.Pod{}, map[string]bool{}
	twice := map[netip.Addr]bool{}
	for _, p := range k.Pods {
		domain, _, _, _ := names.ParseSPIFFEID(p.Identity)
		domains[domain] = true
		for _, ip := range p.IPs {
			ip = ip.Unmap()
			twice[ip] = twice[ip] || out[ip] != nil
			out[ip] = &p
		}
	}
	if len(domains) > 1 {
		return nil
	}
	for ip, again := range twice {
		if again {
			delete(out, ip)
		}
	}
	return out
}

// isOurs tells whether a port of each captured pod is the proxy's.
func isOurs(port uint16) bool {
	return slices.Contains([]uint16{names.PortOutbound, names.PortInbound, names.PortMTLS}, port)
}
