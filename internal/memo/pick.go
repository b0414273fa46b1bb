// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

// Picked names what is picked from a value.
type Picked[K, P comparable] struct {
	From K
	Part P
}

// Pick defines values that are picked from those of another function, one for each part. Where a value has thousands
// of parts, a change of it is about few: only what is picked of these is looked at again. differ lists the parts of
// which something else may be picked from a new value than from the old one. A function can be picked from once.
func Pick[K, P comparable, V, W any](
	from *Func[K, V], name string, equal func(a, b W) bool, differ func(before, now V) []P, pick func(V, P) W,
) *Func[Picked[K, P], W] {
	f := Define(from.graph, name, equal, func(c *Ctx, k Picked[K, P]) W { return pick(from.Get(c, k.From), k.Part) })
	f.picked = true
	from.differ = func(key K, before, now V) (out []*node) {
		for _, part := range differ(before, now) {
			if e, ok := f.nodes[Picked[K, P]{key, part}]; ok {
				out = append(out, &e.node)
			}
		}
		return out
	}
	from.differing = map[K][]*node{}
	return f
}

// note which picked values a new value of the entry concerns, until they are marked.
func (e *entry[K, V]) note(now V) {
	if e.f.differ != nil && e.state != fresh {
		if nodes := e.f.differ(e.key, e.value, now); len(nodes) > 0 {
			e.f.differing[e.key] = append(e.f.differing[e.key], nodes...)
		}
	}
}

func (e *entry[K, V]) concerned() []*node {
	if e.f.differing == nil {
		return nil
	}
	out := e.f.differing[e.key]
	delete(e.f.differing, e.key)
	return out
}
