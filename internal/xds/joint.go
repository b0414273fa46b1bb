// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"
	"sync"
)

// subscribedScopes finds the scopes in which a name has subscribers, without a look at all the others.
type subscribedScopes struct {
	mu sync.Mutex
	of map[string]map[*scope]struct{}
}

func (i *subscribedScopes) add(name string, s *scope) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.of[name] == nil {
		i.of[name] = map[*scope]struct{}{}
	}
	i.of[name][s] = struct{}{}
}

func (i *subscribedScopes) remove(name string, s *scope) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if delete(i.of[name], s); len(i.of[name]) == 0 {
		delete(i.of, name)
	}
}

func (i *subscribedScopes) list(name, kind string) []*scope {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []*scope
	for s := range i.of[name] {
		if s.name.kind() == kind {
			out = append(out, s)
		}
	}
	return out
}

// joint is the state of a cluster over all scopes of a kind. Who has no version of it yet is left out: its proxy waits
// for the first one, and never sees an older. So are clusters without endpoints of their own: they are as many as
// addresses that somebody dials, the others only as many as there are Services.
//
// Content comes to one scope after the other, and to the scope that stands for all of them where somebody is interested
// in that. Until all have the same, everyone is pending, for which one is the current content can't be told.
func (s *Server) joint(all Key) ResourceState {
	var out ResourceState
	if res, _ := s.opts.Cache.Get(all); res != nil {
		out.Version = res.Version()
	}
	mixed := false
	for _, sc := range s.opts.Cache.clusters.list(all.Name, all.Scope.kind()) {
		res, watchers := sc.subscribers(all.ID)
		if res != nil && res.Endpoints() == "" {
			return ResourceState{}
		}
		version := ""
		if res != nil {
			version = res.Version()
		}
		if running := s.running(watchers, all.ID, version); len(running) > 0 {
			mixed = mixed || out.Version != "" && version != out.Version
			out.Version = cmp.Or(version, out.Version)
			out.Proxies = append(out.Proxies, running...)
		}
	}
	if mixed {
		out.Version = ""
		for n := range out.Proxies {
			out.Proxies[n].State, out.Proxies[n].Version = Pending, ""
		}
	}
	// Whoever is behind comes first: what a reader leaves out is the rest.
	slices.SortFunc(out.Proxies, func(a, b ProxyAck) int {
		return cmp.Or(cmp.Compare(order(a.State), order(b.State)), cmp.Compare(a.Proxy.Pod, b.Proxy.Pod),
			cmp.Compare(a.Proxy.PodUID, b.Proxy.PodUID))
	})
	return out
}

// running is where those of a scope's subscribers stand that have some version of a cluster, or refused their first
// one.
func (s *Server) running(watchers []watcher, cluster ID, version string) []ProxyAck {
	var out []ProxyAck
	for _, w := range watchers {
		if st, ok := w.(*stream); ok && st.srv == s {
			if a := st.ack(cluster, version); a.Version != "" || a.State == Rejected {
				out = append(out, a)
			}
		}
	}
	return out
}

func order(s AckState) int { return slices.Index([]AckState{Rejected, Pending, Acked}, s) }
