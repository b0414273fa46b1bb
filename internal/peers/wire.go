// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"slices"
	"unique"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	path = "/v1/acknowledgements"
	// queryTogether is with what a follower asks that takes entries of several resources (entry.Also).
	queryTogether = "together"
	// maxError bounds the text of a rejection, in bytes: statuses show the beginning.
	maxError = 1024
	// maxLine bounds one line, in bytes; recordsPerLine keeps lines far below unless one waypoint has thousands of
	// proxies that all reject.
	maxLine        = 16 << 20
	recordsPerLine = 512
	// maxTold bounds the proxies that are told of the clusters of node proxies: there are as many as nodes, and that
	// one is behind says that not all have switched.
	maxTold = 4
	// maxRecords bounds the entries and proxies that are kept of one replica: some hundred megabytes.
	maxRecords = 1 << 20
	// maxNotes bounds what is kept to be told of notes, the latest ones.
	maxNotes = 4096
	// maxFacts bounds what is kept to be told of facts, of which factsPerLine, some kilobytes each, are in a line.
	maxFacts     = 1 << 17
	factsPerLine = 256
	// notesPerLine keeps lines below maxLine: a note is some kilobytes.
	notesPerLine = 256
)

// line is the unit of the feed.
type line struct {
	Replica string  `json:"replica,omitempty"`
	Entries []entry `json:"entries,omitempty"`
	// Notes are Book.Note's, in the order in which they were made.
	Notes []string `json:"notes,omitempty"`
	// Facts are Book.Tell's.
	Facts    []string `json:"facts,omitempty"`
	Complete bool     `json:"complete,omitempty"`
}

// entry is all that a replica says of one resource; without proxies it says nothing any more.
type entry struct {
	Scope   xds.Scope `json:"scope"`
	TypeURL string    `json:"type"`
	Name    string    `json:"name"`
	// Also are more resources of which the same is to be said, on the wire only: what guards a node's pods is mostly of
	// one version.
	Also []string `json:"also,omitempty"`
	// Version is the current one on the replica that speaks.
	Version string  `json:"version,omitempty"`
	Proxies []proxy `json:"proxies,omitempty"`
}

type proxy struct {
	Pod    string       `json:"pod"`
	PodUID string       `json:"podUID"`
	Node   string       `json:"node,omitempty"`
	State  xds.AckState `json:"state"`
	// Runs is the version that the proxy accepted last, Moving that it may run another than the current one.
	Runs   string `json:"runs,omitempty"`
	Moving bool   `json:"moving,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (e entry) key() xds.Key { return e.Scope.Key(e.TypeURL, e.Name) }
func (e entry) records() int { return 1 + len(e.Proxies) }

// servingOf is what every proxy of a waypoint has, by the scope of any resource of theirs.
func servingOf(scope xds.Scope) xds.Key {
	gateway, _ := catalogue.WaypointOf(scope)
	return catalogue.Serving(gateway)
}

// entryOf is the line for a state.
func entryOf(k xds.Key, s xds.ResourceState) entry {
	e := entry{Scope: k.Scope, TypeURL: k.TypeURL, Name: k.Name, Version: s.Version}
	part := catalogue.PartOf(k)
	if part == catalogue.Switched {
		s.Proxies = s.Proxies[:min(len(s.Proxies), maxTold)] // those that are behind come first
	}
	for _, a := range s.Proxies {
		if part != catalogue.Rejecting || a.State == xds.Rejected {
			e.Proxies = append(e.Proxies, proxy{
				Pod: a.Proxy.Pod, PodUID: a.Proxy.PodUID, Node: a.Proxy.Node,
				State: a.State, Runs: a.Version, Moving: a.Moving, Error: a.Error[:min(len(a.Error), maxError)],
			})
		}
	}
	return e
}

// foreseen tells whether another replica takes it to be so once it has the current version itself: that proxies are
// sent it, and haven't answered. It is so of what guards pods, for its versions never come back while a policy is
// edited. Of all else a replica that knows of an edit that was taken back must hear that the proxies here are at what
// was between.
func (e entry) foreseen() bool {
	_, node := catalogue.NodeOf(e.Scope)
	return node && e.TypeURL == xds.TypeExtension && len(e.Proxies) > 0 &&
		!slices.ContainsFunc(e.Proxies, func(p proxy) bool { return p.State != xds.Pending })
}

// alike is what entries have in common that can be told as one: all but the name, where there is one proxy at most.
type alike struct {
	scope            xds.Scope
	typeURL, version string
	proxy            proxy
}

// together tells entries that are alike as one.
func together(es []entry) []entry {
	out, at := es[:0], map[alike]int{}
	for _, e := range es {
		if len(e.Proxies) > 1 {
			out = append(out, e)
			continue
		}
		k := alike{scope: e.Scope, typeURL: e.TypeURL, version: e.Version}
		for _, p := range e.Proxies {
			k.proxy = p
		}
		if n, ok := at[k]; ok {
			out[n].Also = append(out[n].Also, e.Name)
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// apart is the inverse of together.
func (e entry) apart() []entry {
	names := append([]string{e.Name}, e.Also...)
	e.Also = nil
	out := make([]entry, 0, len(names))
	for _, e.Name = range names {
		out = append(out, e)
	}
	return out
}

// compact makes equal strings share memory: a proxy's name comes with each of its resources.
func (e *entry) compact() {
	for _, s := range []*string{(*string)(&e.Scope), &e.TypeURL, &e.Name, &e.Version} {
		*s = unique.Make(*s).Value()
	}
	for i := range e.Proxies {
		p := &e.Proxies[i]
		for _, s := range []*string{&p.Pod, &p.PodUID, &p.Node, (*string)(&p.State), &p.Runs, &p.Error} {
			*s = unique.Make(*s).Value()
		}
	}
}

// judge tells where a proxy of another replica stands with the version that is current here. theirs is the version that
// was current there when the proxy's state was noted. If it is another one, the proxy may have that by now, whatever it
// ran then, unless it refused it.
func (p proxy) judge(scope xds.Scope, theirs, here string) xds.ProxyAck {
	a := xds.ProxyAck{
		Proxy: xds.Proxy{Scope: scope, Pod: p.Pod, PodUID: p.PodUID, Node: p.Node},
		State: xds.Pending, Version: p.Runs, Moving: p.Moving || theirs != here && p.State != xds.Rejected,
	}
	switch {
	case p.State == xds.Rejected && theirs == here && here != "":
		a.State, a.Error = xds.Rejected, p.Error
	case a.Moving:
	case here != "" && p.Runs == here, here == "" && theirs == "" && p.State == xds.Acked:
		a.State = xds.Acked
	}
	return a
}
