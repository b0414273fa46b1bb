// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// A load assignment with fewer endpoints than the operator's has the version <operator's>/<those that it has>/<all>.

func operatorsVersion(version string) string {
	v, _, _ := strings.Cut(version, "/")
	return v
}

// partOf is how many endpoints a load assignment has, and how many there are, if it has fewer than the operator's.
func partOf(version string) (have, all int, part bool) {
	of := strings.Split(version, "/")
	if len(of) != 3 {
		return 0, 0, false
	}
	have, err1 := strconv.Atoi(of[1])
	all, err2 := strconv.Atoi(of[2])
	return have, all, err1 == nil && err2 == nil
}

// has is how many endpoints one version of the load assignment has.
func (a *allotment) has(version string) int {
	if have, _, part := partOf(version); part {
		return have
	}
	return a.total
}

// limitEndpoints notes a resource that Envoy is about to get, and returns it with as many endpoints as it may have.
// Assignments that may have another number now are added to those to fit. r.mu is held.
func (r *Relay) limitEndpoints(res *xds.Resource, toFit map[string]bool) *xds.Resource {
	switch {
	case r.opts.MaxEndpoints == 0:
	case res.TypeURL() == xds.TypeCluster:
		for _, name := range r.room.refer(res.Name(), res.Endpoints()) {
			toFit[name] = true
		}
	case res.TypeURL() == xds.TypeEndpoint:
		n, callers, err := upstream.CountEndpoints(res.Any())
		if err != nil {
			return res // Envoy says what is wrong with it
		}
		upTo, total, part := partOf(res.Version())
		if !part { // and not from the snapshot
			upTo, total = n, n
		}
		a := r.room.change(res.Name(), upTo, func(a *allotment) { a.total, a.callers = total, callers })
		r.countEndpoints()
		return r.fewer(res, a)
	}
	return res
}

// forgetEndpoints forgets a resource that Envoy no longer has. r.mu is held.
func (r *Relay) forgetEndpoints(id xds.ID) {
	switch {
	case r.opts.MaxEndpoints == 0:
	case id.TypeURL == xds.TypeCluster:
		r.room.refer(id.Name, "")
		r.contexts.forget(id.Name)
		r.nowhere.end(id.Name)
	case id.TypeURL == xds.TypeEndpoint:
		r.room.change(id.Name, math.MaxInt, func(a *allotment) { a.total, a.callers = 0, 0 })
	}
	r.countEndpoints()
}

// fewer is a load assignment without the endpoints that are too many.
func (r *Relay) fewer(res *xds.Resource, a *allotment) *xds.Resource {
	if a.has(res.Version()) <= a.given() {
		return res
	}
	packed, err := upstream.FewerEndpoints(res.Any(), a.given(), r.opts.NodeID)
	if err != nil {
		return res
	}
	version := fmt.Sprintf("%s/%d/%d", operatorsVersion(res.Version()), a.given(), a.total)
	out, err := xds.NewRawResource(res.Name(), version, packed)
	if err != nil {
		return res
	}
	return out
}

// mayHaveMore tells whether Envoy may have more endpoints of a load assignment than it has. r.mu is held.
func (r *Relay) mayHaveMore(res *xds.Resource) bool {
	a := r.room.of[res.Name()]
	return a != nil && res.TypeURL() == xds.TypeEndpoint && a.has(res.Version()) < a.given()
}

// fit takes endpoints from Envoy that it has too many of, and asks the operator again for load assignments of which it
// may have more. r.mu is held.
func (r *Relay) fit(names []string) {
	defer r.countEndpoints()
	t := r.types[xds.TypeEndpoint]
	if t == nil {
		return
	}
	var updates []xds.Update
	for _, name := range names {
		k, a := t.known[name], r.room.of[name]
		switch {
		case k == nil || k.current == nil || a == nil:
		case r.mayHaveMore(k.current):
			t.toSubscribe[name] = struct{}{}
			r.wake.Set()
		case a.has(k.current.Version()) > a.given():
			k.current = r.fewer(k.current, a)
			updates = append(updates, xds.Set(k.current))
		}
	}
	r.cache.Apply(scope, updates)
	if len(updates) > 0 {
		r.save.Set()
		r.changed()
	}
}

// Short tells whether Envoy was given fewer endpoints than there are, or fewer addresses than it asked for.
func (r *Relay) Short() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.room.out > 0 || len(r.room.addresses.waiting) > 0
}

// Prefer is told the clusters that each pod dialled lately, the last one first. Pods that dial few have all of them
// before one that dials many, and those that dial few large Services get all endpoints before one that dials many of
// these.
func (r *Relay) Prefer(pods [][]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.share(pods)
	r.fit(r.room.prefer(pods))
}

// countEndpoints keeps metrics and log up to date. r.mu is held.
func (r *Relay) countEndpoints() {
	e := r.room
	r.metrics.endpoints.Set(float64(e.used))
	r.metrics.endpointsOut.Set(float64(e.out))
	if e.out > 0 && !r.saidShort {
		r.saidShort = true
		r.log.Info("the proxy has reached its limit of endpoints of large Services; further ones get only some of their "+
			"endpoints. The access log shows which pod dials so many", "limit", e.limit, "leftOut", e.out)
	}
	if e.out == 0 {
		r.saidShort = false
	}
}
