// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"regexp"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// handle takes in one request: an ACK or NACK of the response in flight, a change of subscriptions, or both. An error
// ends the stream.
func (st *stream) handle(req *discoveryv3.DeltaDiscoveryRequest) error {
	if err := st.check(req); err != nil {
		st.log.Info("ended an xDS stream", "reason", err.Error())
		return err
	}
	st.mu.Lock()
	sub, known := st.types[req.GetTypeUrl()]
	if !known {
		sub = newSubscription(req.GetTypeUrl())
		st.types[sub.typeURL] = sub
		for name, version := range req.GetInitialResourceVersions() {
			sub.held[name] = &held{version: version}
		}
	}
	acks := st.acknowledge(sub, req)
	err := st.subscribe(sub, req, !known)
	st.mu.Unlock()

	if st.srv.opts.OnAck != nil {
		for _, a := range acks {
			st.srv.opts.OnAck(a)
		}
	}
	if err != nil {
		st.log.Info("ended an xDS stream", "reason", err.Error())
	}
	return err
}

// check refuses what no Envoy sends, before anything is kept of it.
func (st *stream) check(req *discoveryv3.DeltaDiscoveryRequest) error {
	url := req.GetTypeUrl()
	if !strings.HasPrefix(url, resource.APITypePrefix) || len(url) > maxNameLength {
		return status.Errorf(codes.InvalidArgument, "type_url %.100q is not one of %s…", url, resource.APITypePrefix)
	}
	if _, known := st.types[url]; !known && len(st.types) >= maxTypes {
		return status.Errorf(codes.ResourceExhausted, "more than %d resource types on one stream", maxTypes)
	}
	if n := len(req.GetInitialResourceVersions()); n > st.srv.opts.maxSubscriptions {
		return status.Errorf(codes.ResourceExhausted, "%d initial resource versions exceed the limit of %d", n,
			st.srv.opts.maxSubscriptions)
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name == "" || len(name) > maxNameLength {
			return status.Errorf(codes.InvalidArgument, "a resource name must have 1 to %d bytes", maxNameLength)
		}
	}
	return nil
}

// subscribe applies the subscription part of a request. The very first request of a type that names nothing at all is
// the legacy form of a wildcard.
func (st *stream) subscribe(sub *subscription, req *discoveryv3.DeltaDiscoveryRequest, first bool) error {
	for _, name := range req.GetResourceNamesUnsubscribe() {
		if name == Wildcard {
			st.unsubscribeWildcard(sub)
		} else {
			st.unsubscribeName(sub, name)
		}
	}
	names := req.GetResourceNamesSubscribe()
	if first && len(names) == 0 && len(req.GetResourceNamesUnsubscribe()) == 0 {
		names = []string{Wildcard}
	}
	for _, name := range names {
		if name == Wildcard {
			st.subscribeWildcard(sub, len(req.GetInitialResourceVersions()) == 0)
		} else if err := st.subscribeName(sub, name, first); err != nil {
			return err
		}
	}
	if first && sub.typeURL == TypeEndpoint && !st.srv.opts.Relays {
		st.rewarmAll()
	}
	if first && !sub.wildcard {
		for name := range sub.held { // versions of what was not asked for
			if !sub.covers(name) {
				delete(sub.held, name)
			}
		}
	}
	return nil
}

// rewarmAll catches up with clusters that were sent before the stream's first request for endpoints came: a
// reconnecting client lists the endpoints as current in it, and needs them again all the same if their cluster was
// replaced.
func (st *stream) rewarmAll() {
	clusters := st.types[TypeCluster]
	if clusters == nil {
		return
	}
	st.scope.mu.RLock()
	defer st.scope.mu.RUnlock()
	for name, h := range clusters.held {
		if e := st.scope.types[TypeCluster].entry(name); h.sent != "" && e != nil && e.res != nil {
			st.rewarm(e.res)
		}
	}
}

// subscribeWildcard subscribes to everything. A client that already has something needs no answer if nothing changed.
func (st *stream) subscribeWildcard(sub *subscription, answerDue bool) {
	if sub.wildcard || sub.refused {
		return
	}
	sub.answerDue = answerDue
	if !st.admit(ID{sub.typeURL, Wildcard}) {
		sub.refused, sub.answerDue = true, true
		return
	}
	sub.wildcard = true
	if st.scope.subscribe(ID{sub.typeURL, Wildcard}, st) {
		st.srv.interests.noteChanged(st.scope.name.Key(sub.typeURL, Wildcard), false)
	}
	st.enqueueAll(sub)
}

// unsubscribeWildcard keeps only what is named: the client drops the rest by itself.
func (st *stream) unsubscribeWildcard(sub *subscription) {
	sub.refused, sub.answerDue = false, false
	if !sub.wildcard {
		return
	}
	sub.wildcard, sub.complete = false, false
	if st.scope.unsubscribe(ID{sub.typeURL, Wildcard}, st) {
		st.srv.interests.noteChanged(st.scope.name.Key(sub.typeURL, Wildcard), false)
	}
	for name := range sub.held {
		if !sub.covers(name) {
			sub.forget(name)
			st.srv.book.noteChanged(st.scope.name.Key(sub.typeURL, name))
		}
	}
}

// subscribeName subscribes to a name. A client that asks must be answered, even for what it is believed to have; only
// in the first request of a type does it say by initial_resource_versions what it needs no more.
func (st *stream) subscribeName(sub *subscription, name string, first bool) error {
	if _, again := sub.named[name]; !again {
		if st.names >= st.srv.opts.maxSubscriptions {
			return st.turnAway(sub, name)
		}
		delete(sub.turnedAway, name)
		st.names++
		allowed := st.admit(ID{sub.typeURL, name})
		sub.named[name] = allowed
		if allowed && st.scope.subscribe(ID{sub.typeURL, name}, st) {
			st.srv.interests.noteChanged(st.scope.name.Key(sub.typeURL, name), false)
		}
	}
	if h := sub.held[name]; h != nil && !first {
		h.unsure = true
	}
	st.enqueueNamed(sub, name)
	st.srv.book.noteChanged(st.scope.name.Key(sub.typeURL, name))
	return nil
}

// turnAway answers a name that there is no room for as non-existent. Ending the stream would be no way out: the client
// would come back with the same names, and what it has would go stale. Only a client that doesn't read its answers is
// cut off.
func (st *stream) turnAway(sub *subscription, name string) error {
	if len(sub.turnedAway) >= st.srv.opts.maxSubscriptions {
		return status.Errorf(codes.ResourceExhausted, "more than %d resource names on one stream, and as many unanswered",
			st.srv.opts.maxSubscriptions)
	}
	sub.turnedAway[name] = struct{}{}
	if !st.fullLogged {
		st.fullLogged = true
		st.log.Info("a proxy subscribes to more names than the limit; the rest are answered as non-existent", "type",
			typeLabel(sub.typeURL), "limit", st.srv.opts.maxSubscriptions)
	}
	return nil
}

// unsubscribeName unsubscribes from a name. Where a wildcard remains, the client cannot know whether that covers the
// name, and must be told.
func (st *stream) unsubscribeName(sub *subscription, name string) {
	delete(sub.turnedAway, name)
	allowed, ok := sub.named[name]
	if !ok {
		return
	}
	delete(sub.named, name)
	st.names--
	if allowed && st.scope.unsubscribe(ID{sub.typeURL, name}, st) {
		st.srv.interests.noteChanged(st.scope.name.Key(sub.typeURL, name), false)
	}
	if sub.wildcard {
		sub.ensureHeld(name).unsure = true
		st.enqueueNamed(sub, name)
	} else {
		sub.forget(name)
	}
	st.srv.book.noteChanged(st.scope.name.Key(sub.typeURL, name))
}

// admit asks Options.Admit and logs the first refusal of the stream.
func (st *stream) admit(id ID) bool {
	if st.srv.opts.Admit == nil || st.srv.opts.Admit(st.proxy, id) {
		return true
	}
	if !st.refusalLogged {
		st.refusalLogged = true
		st.log.Info("a proxy asks for what it may not have; answered as non-existent", "type", id.TypeURL, "name", id.Name)
	}
	return false
}

// acknowledge books the ACK or NACK that a request carries. A stale nonce acknowledges nothing.
func (st *stream) acknowledge(sub *subscription, req *discoveryv3.DeltaDiscoveryRequest) []Ack {
	r := sub.inflight
	if r == nil || req.GetResponseNonce() != r.nonce {
		return nil
	}
	sub.inflight = nil
	for _, it := range r.items {
		if h := sub.held[it.name]; h != nil {
			h.flying = false
		} else if sub.covers(it.name) {
			// It left and came back while the response was on its way: it may have taken this, or not.
			sub.ensureHeld(it.name).unsure = true
			st.enqueueNamed(sub, it.name)
		}
	}
	if req.GetErrorDetail() != nil {
		return st.nack(sub, r, errorText(req.GetErrorDetail().GetMessage()))
	}
	st.srv.metrics.observePush(stageAcked, sub.typeURL, r.span.since, time.Now())
	acks, keys := make([]Ack, 0, len(r.items)), make([]Key, 0, len(r.items))
	for _, it := range r.items {
		sub.ack(it, st.standsIn(sub, it))
		st.keepGood(sub, it)
		acks = append(acks, Ack{Proxy: st.proxy, ID: ID{sub.typeURL, it.name}, Version: it.version})
		keys = append(keys, st.scope.name.Key(sub.typeURL, it.name))
	}
	st.srv.book.noteChanged(keys...)
	return acks
}

// nack books a rejection if its culprit is known, and else splits the response to find it. Meanwhile, and afterwards,
// the client runs what it accepted last.
func (st *stream) nack(sub *subscription, r *response, text string) []Ack {
	st.srv.metrics.nacks.WithLabelValues(st.proxy.Scope.kind(), typeLabel(sub.typeURL)).Inc()
	if len(r.items) != 1 {
		st.log.V(1).Info("a proxy rejected a response; isolating the culprit", "type", typeLabel(sub.typeURL), "resources",
			len(r.items), "error", text)
		st.isolate(sub, r)
		return nil
	}
	it := r.items[0]
	st.log.Info("a proxy rejected a resource", "type", typeLabel(sub.typeURL), "name", it.name, "version", it.version,
		"error", text)
	if it.version == "" {
		sub.ack(it, false) // nothing can be done about a refused removal
	} else if h := sub.held[it.name]; h != nil && !st.standsIn(sub, it) {
		h.rejection = &rejection{it.version, text}
		if h.version == it.version {
			h.version = ""
		}
	}
	st.replace(sub, it)
	st.srv.book.noteChanged(st.scope.name.Key(sub.typeURL, it.name))
	return []Ack{{Proxy: st.proxy, ID: ID{sub.typeURL, it.name}, Version: it.version, Error: text}}
}

// isolate halves a rejected response. Halving finds k culprits among n resources in about 2k·log2(n) responses, and
// each half without one gets through at once.
func (st *stream) isolate(sub *subscription, r *response) {
	names := make([]string, 0, len(r.items))
	for _, it := range r.items {
		if h := sub.held[it.name]; h != nil {
			h.unsure = true // whether it took this one is not known
			names = append(names, it.name)
		}
	}
	if len(names) == 0 {
		return
	}
	mid := (len(names) + 1) / 2
	parts := []part{{names: names[:mid], span: r.span}}
	if mid < len(names) {
		parts = append(parts, part{names: names[mid:], span: r.span})
	}
	sub.isolating = append(parts, sub.isolating...)
}

// ack notes what the client has now, and whether that only stands in for what it rejected.
func (sub *subscription) ack(it item, standsIn bool) {
	h := sub.held[it.name]
	if h == nil {
		return // unsubscribed meanwhile
	}
	_, named := sub.named[it.name]
	if it.version == "" && !named && !h.unsure {
		delete(sub.held, it.name)
		return
	}
	h.version, h.absent = it.version, it.version == ""
	if !standsIn {
		h.rejection = nil
	}
}

// forget drops what is known about a name that is not subscribed to any more.
func (sub *subscription) forget(name string) {
	delete(sub.held, name)
	delete(sub.pending, name)
}

// debugText is what protobuf puts into its debug strings, varied on purpose from process to process.
var debugText = regexp.MustCompile(`goo\.gle/debug\w*`)

// errorText makes a proxy's text fit for a status: one line, bounded, and the same for the same error every time.
func errorText(s string) string {
	s = strings.Join(strings.Fields(debugText.ReplaceAllString(s, "")), " ")
	if s == "" {
		return "the proxy rejected the resource and gave no reason"
	}
	if len(s) > maxErrorLength {
		s = s[:maxErrorLength] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
