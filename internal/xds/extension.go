// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

// Configurations of filters (ECDS) decide about what is open. Without one Envoy refuses, and it does so on every
// connection that has the filter: also on those of a listener that was replaced and drains. So more is done than for
// other types that clients always have what they can:
//
//   - Nothing is taken away from a client that still asks for it. It ends its subscription with the last listener.
//   - A client that rejects the current version and has no other, for it has just started, gets the one that another
//     client of its scope took last. The rejection stands.

// keeps tells whether a client goes on having what does not exist any more.
func (sub *subscription) keeps(h *held) bool { return sub.typeURL == TypeExtension && h.version != "" }

// keepGood notes what a client has.
func (sub *subscription) keepGood(e *entry, res *Resource) {
	if sub.typeURL == TypeExtension && e.good.Load() != res {
		e.good.Store(res)
	}
}

// keepGood notes that a client accepted what was sent.
func (st *stream) keepGood(sub *subscription, it item) {
	if e, done := st.extension(sub, it.name); e != nil {
		if it.res != nil {
			sub.keepGood(e, it.res)
		}
		done()
	}
}

// insteadOf is what a client gets that rejects the current version and has none; nil if there is nothing.
func (h *held) insteadOf(e *entry) *Resource {
	if good := e.good.Load(); h.version == "" && good != nil && !good.Equal(e.res) {
		return good
	}
	return nil
}

// standsIn tells whether what a client was sent is not what it should have, and the rejection of that stands.
func (st *stream) standsIn(sub *subscription, it item) bool {
	e, done := st.extension(sub, it.name)
	if e == nil {
		return false
	}
	defer done()
	h := sub.held[it.name]
	return h != nil && it.version != e.res.Version() && h.rejected().version == e.res.Version()
}

// replace has something else sent for what a client rejected. If that was good once, it is no more.
func (st *stream) replace(sub *subscription, it item) {
	e, done := st.extension(sub, it.name)
	if e == nil {
		return
	}
	if good := e.good.Load(); good != nil && good.Version() == it.version && !good.Equal(e.res) {
		e.good.Store(nil)
	}
	done()
	st.enqueueNamed(sub, it.name)
}

// extension is the entry of an extension configuration that exists, nil for all else; done lets it go.
func (st *stream) extension(sub *subscription, name string) (e *entry, done func()) {
	if sub.typeURL != TypeExtension {
		return nil, nil
	}
	st.scope.mu.RLock()
	if e = st.scope.types[sub.typeURL].entry(name); e == nil || e.res == nil {
		st.scope.mu.RUnlock()
		return nil, nil
	}
	return e, st.scope.mu.RUnlock
}
