// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"iter"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// links say which objects' statuses depend on which resources. A route depends on several, and thousands of them on
// one, so the name of either is there once.
type links struct {
	resources map[xds.Key]*resource
	objects   map[model.ObjectRef]*object
}

type resource struct {
	key   xds.Key
	users map[*object]struct{}
}

type object struct {
	ref  model.ObjectRef
	uses []*resource
}

func newLinks() links {
	return links{resources: map[xds.Key]*resource{}, objects: map[model.ObjectRef]*object{}}
}

// remove forgets an object, and tells which resources nobody depends on any more.
func (l *links) remove(ref model.ObjectRef) (unused []xds.Key) {
	o := l.objects[ref]
	if o == nil {
		return nil
	}
	delete(l.objects, ref)
	for _, r := range o.uses {
		if delete(r.users, o); len(r.users) == 0 {
			delete(l.resources, r.key)
			unused = append(unused, r.key)
		}
	}
	return unused
}

// add links an object, which isn't linked.
func (l *links) add(ref model.ObjectRef, keys []xds.Key) {
	if len(keys) == 0 {
		return
	}
	o := &object{ref: ref, uses: make([]*resource, 0, len(keys))}
	l.objects[ref] = o
	for _, k := range keys {
		r := l.resources[k]
		if r == nil {
			r = &resource{key: k, users: map[*object]struct{}{}}
			l.resources[k] = r
		}
		if _, twice := r.users[o]; !twice {
			r.users[o] = struct{}{}
			o.uses = append(o.uses, r)
		}
	}
}

// used tells whether any object depends on a resource.
func (l *links) used(k xds.Key) bool { return l.resources[k] != nil }

// users are the objects that depend on a resource.
func (l *links) users(k xds.Key) iter.Seq[model.ObjectRef] {
	return func(yield func(model.ObjectRef) bool) {
		r := l.resources[k]
		if r == nil {
			return
		}
		for o := range r.users {
			if !yield(o.ref) {
				return
			}
		}
	}
}

// uses tells whether an object depends on a resource.
func (l *links) uses(ref model.ObjectRef, k xds.Key) bool {
	r, o := l.resources[k], l.objects[ref]
	if r == nil || o == nil {
		return false
	}
	_, uses := r.users[o]
	return uses
}
