// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/memo"
)

// Key names an object of a collection.
type Key = types.NamespacedName

// partOfValue is a part of what is listed under a value of an index.
type partOfValue struct {
	value string
	Part
}

// Collection holds the objects of one kind as they were watched, and the indexes over them. Objects are shared and
// must never be changed.
type Collection[T client.Object] struct {
	objects map[Key]T
	read    *memo.Inputs[Key]
	indexes map[string]*index[T]
	// arrivals counts what came to be listed under a value of an index since MarkSettled.
	arrivals uint64
	settled  bool
	// same decides whether an update changes anything that the mesh reads; nil: every new resourceVersion does.
	same func(old, new T) bool
}

type index[T client.Object] struct {
	values func(T) []string
	listed map[string]*listed // by value
	// read are the values, counted into how many parts each is divided, and parts the parts.
	read, counted *memo.Inputs[string]
	parts         *memo.Inputs[partOfValue]
}

func newCollection[T client.Object](g *memo.Graph, same func(old, new T) bool, by indexes[T]) *Collection[T] {
	c := &Collection[T]{
		objects: map[Key]T{}, read: memo.NewInputs[Key](g), indexes: map[string]*index[T]{}, same: same,
	}
	for name, values := range by {
		c.indexes[name] = &index[T]{
			values: values, listed: map[string]*listed{}, read: memo.NewInputs[string](g),
			counted: memo.NewInputs[string](g), parts: memo.NewInputs[partOfValue](g),
		}
	}
	return c
}

// Get reads an object; ok is false where there is none.
func (c *Collection[T]) Get(ctx *memo.Ctx, key Key) (obj T, ok bool) {
	c.read.Read(ctx, key)
	obj, ok = c.objects[key]
	return obj, ok
}

// By reads the keys of the objects that an index lists under a value, sorted by namespace and name. They are shared.
func (c *Collection[T]) By(ctx *memo.Ctx, indexName, value string) []Key {
	ix := c.indexes[indexName]
	ix.read.Read(ctx, value)
	if l := ix.listed[value]; l != nil {
		return l.all()
	}
	return nil
}

// Parts tells into how many parts the keys are divided that an index lists under a value; see Part.
func (c *Collection[T]) Parts(ctx *memo.Ctx, indexName, value string) int {
	ix := c.indexes[indexName]
	ix.counted.Read(ctx, value)
	if l := ix.listed[value]; l != nil {
		return l.divided()
	}
	return 1
}

// Part reads one part of what By does, unsorted. Who makes a sum of something in all objects reads it part by part: the
// parts grow in number and hardly in size, so that a change of one object costs little, however many there are.
func (c *Collection[T]) Part(ctx *memo.Ctx, indexName, value string, part Part) []Key {
	ix := c.indexes[indexName]
	l := ix.listed[value]
	if part.Of == 1 || l == nil || part.Of != l.divided() {
		return slices.DeleteFunc(slices.Clone(c.By(ctx, indexName, value)),
			func(k Key) bool { return partOf(k, part.Of) != part })
	}
	ix.parts.Read(ctx, partOfValue{value, part})
	return slices.Clone(l.parts()[part.N])
}

// Arrived tells when an object came to be listed under a value, as a number that grows; zero: before MarkSettled, when
// all come in no order. It changes with what By reads only.
func (c *Collection[T]) Arrived(indexName, value string, key Key) uint64 {
	if l := c.indexes[indexName].listed[value]; l != nil {
		arrived, _ := l.at(key)
		return arrived
	}
	return 0
}

// MarkSettled says that what existed at the start is in.
func (c *Collection[T]) MarkSettled() { c.settled = true }

func (c *Collection[T]) arrival() uint64 {
	if c.settled {
		c.arrivals++
	}
	return c.arrivals
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// Set stores an object and touches what changed by it: the object, and the index values that gained or lost it.
func (c *Collection[T]) Set(obj T) {
	key := client.ObjectKeyFromObject(obj)
	old, existed := c.objects[key]
	c.objects[key] = obj
	if existed && c.same != nil && c.same(old, obj) {
		return
	}
	c.read.Touch(key)
	for _, ix := range c.indexes {
		var before []string
		if existed {
			before = ix.values(old)
		}
		c.reindex(ix, key, before, ix.values(obj))
	}
}

// Delete removes an object; removing what is not there does nothing.
func (c *Collection[T]) Delete(key Key) {
	old, ok := c.objects[key]
	if !ok {
		return
	}
	delete(c.objects, key)
	c.read.Touch(key)
	for _, ix := range c.indexes {
		c.reindex(ix, key, ix.values(old), nil)
	}
}

func (c *Collection[T]) reindex(ix *index[T], key Key, before, after []string) {
	for _, v := range before {
		if !slices.Contains(after, v) {
			c.list(ix, v, key, false)
		}
	}
	for _, v := range after {
		if !slices.Contains(before, v) {
			c.list(ix, v, key, true)
		}
	}
}

// list has a key listed under a value from now on, or not any more, and touches what changed by it.
func (c *Collection[T]) list(ix *index[T], value string, key Key, is bool) {
	l := ix.listed[value]
	if l == nil {
		l = &listed{}
		ix.listed[value] = l
	}
	before := len(l.parts())
	if is {
		l.add(key, c.arrival())
	} else {
		l.remove(key)
	}
	if l.len() == 0 {
		delete(ix.listed, value)
	}
	ix.read.Touch(value)
	if before > 0 && len(l.parts()) == before {
		ix.parts.Touch(partOfValue{value, partOf(key, before)})
		return
	}
	ix.counted.Touch(value)
	for n := range before {
		ix.parts.Touch(partOfValue{value, Part{n, before}})
	}
}
