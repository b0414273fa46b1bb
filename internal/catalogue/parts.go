// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package catalogue

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// serving is the resource that every proxy of a waypoint has. Its agent calls the proxy ready once that is accepted,
// and it comes and goes with the proxy: whoever subscribes to it counts as connected.
var serving = xds.ID{TypeURL: xds.TypeListener, Name: names.ListenerMTLS}

// Serving is what proves that a waypoint's proxies serve.
func Serving(gateway types.NamespacedName) xds.Key {
	return xds.Key{Scope: WaypointScope(gateway), ID: serving}
}

// Required are the listeners without which an agent doesn't call a proxy ready. A node proxy has those of its pods
// only.
func (k Kind) Required() []string {
	if k == Waypoint {
		return []string{serving.Name}
	}
	return nil
}

// Ready lists, by ID, the proxies of a waypoint that run some version of what proves that they serve. One that starts
// serves nobody yet, so nothing waits for it.
func Ready(s xds.ResourceState) map[string]bool {
	ready := map[string]bool{}
	for _, a := range s.Proxies {
		if a.Version != "" {
			ready[a.Proxy.ID()] = true
		}
	}
	return ready
}

// Part is which proxies' verdicts on a resource the statuses need.
type Part int

const (
	// Nobody matters: no status depends on it.
	Nobody Part = iota
	// Rejecting proxies matter, and no others.
	Rejecting
	// Everyone who subscribes to it matters.
	Everyone
	// Switched matters: whether all node proxies that have it follow its current version.
	Switched
)

// PartOf tells which verdicts on a resource statuses need.
func PartOf(k xds.Key) Part {
	if k.Scope == AllNodes && k.TypeURL == xds.TypeCluster {
		return Switched
	}
	if k.Name == xds.Wildcard || IsTrial(k.ID) {
		return Nobody
	}
	if _, ok := NodeOf(k.Scope); ok && k.TypeURL == xds.TypeExtension {
		return Everyone // one for each pod of the node: what guards it
	}
	if _, ok := WaypointOf(k.Scope); !ok {
		return Nobody
	}
	switch {
	case k.TypeURL == xds.TypeRoute, k.TypeURL == xds.TypeExtension, k.ID == serving,
		k.TypeURL == xds.TypeCluster: // shows TrafficPolicies
		return Everyone
	case k.TypeURL == xds.TypeListener, k.TypeURL == xds.TypeScopedRoute:
		return Rejecting
	}
	return Nobody
}

// IsTrial tells whether a resource is the routes that proxies are shown to hear what is wrong with them; they serve
// nobody.
func IsTrial(id xds.ID) bool { return id == xds.ID{TypeURL: xds.TypeRoute, Name: names.RouteTrial} }

// Together is the key under which statuses follow a resource: clusters of node proxies are followed over all nodes.
func Together(k xds.Key) xds.Key {
	if _, ok := NodeOf(k.Scope); ok && k.TypeURL == xds.TypeCluster {
		k.Scope = AllNodes
	}
	return k
}
