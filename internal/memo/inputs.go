// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

// Inputs are values that only their owner knows, by key: who reads one records that, and the owner tells when it has
// changed. Those that nobody read cost nothing.
type Inputs[K comparable] struct {
	graph *Graph
	read  map[K]*input[K]
}

// NewInputs returns inputs of a graph.
func NewInputs[K comparable](g *Graph) *Inputs[K] {
	return &Inputs[K]{graph: g, read: map[K]*input[K]{}}
}

// input is one that was read.
type input[K comparable] struct {
	node
	in  *Inputs[K]
	key K
}

func (i *input[K]) compute(*Ctx) bool  { return false } // it is told that it changed
func (i *input[K]) concerned() []*node { return nil }
func (i *input[K]) tell()              {} // nobody watches one
func (i *input[K]) forget()            { delete(i.in.read, i.key) }

// Read records that a computation depends on an input.
func (i *Inputs[K]) Read(c *Ctx, key K) {
	if c == nil {
		return
	}
	in, ok := i.read[key]
	if !ok {
		in = &input[K]{in: i, key: key}
		in.of, in.input = in, true
		i.read[key] = in
	}
	c.depend(&in.node)
}

// Touch says that an input has changed. Values that nobody derived from it cost nothing.
func (i *Inputs[K]) Touch(key K) {
	in, ok := i.read[key]
	if !ok {
		return
	}
	i.graph.revision++
	in.changedAt = i.graph.revision
	i.graph.spoil(&in.node)
}
