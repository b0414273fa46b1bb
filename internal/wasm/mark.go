// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"slices"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Where a thread can't start a module that Envoy has taken, for it refuses its configuration there, Envoy leaves it out
// and lets messages pass. So modules say that they are there: what is shown to one has a header names.ModuleMark of the
// value names.ModuleUnmarked, and the functions that the module is asked by begin with a change of it.

type markingFunction struct {
	name  string
	texts int
}

// callback is a function that a module is asked by, and the number of the map of headers that it is asked about.
type callback struct {
	name string
	of   byte
}

// marking are the functions to change a header by, in the order of preference, and how often they take the text: as its
// name, and as its value.
var marking = []markingFunction{
	{"proxy_remove_header_map_value", 1}, {"proxy_replace_header_map_value", 2}, {"proxy_add_header_map_value", 2},
}

// ofHeaders are the callbacks that are about headers.
var ofHeaders = []callback{{"proxy_on_request_headers", 0}, {"proxy_on_response_headers", 2}}

// marker writes functions into a module, behind its own, and their type behind its types, so that no number in it
// changes.
type marker struct {
	types, imported, functions uint32
	// by is one of marking that the module imports, the function of a number; rank is len(marking) without any.
	by, rank int
	// exported are its functions, by name.
	exported map[string]uint32
}

// mark has a module change names.ModuleMark in what it is shown. One that imports no function to do so by stays as it
// is; marked tells that it does. The module must be a valid one.
func mark(module []byte) (out []byte, marked bool) {
	m := &marker{rank: len(marking), exported: map[string]uint32{}}
	eachSection(module, m.look)
	if m.rank == len(marking) || m.functions == 0 {
		return module, false
	}
	out = bytes.Clone(preamble)
	eachSection(module, func(id byte, c *cursor) {
		content := m.written(id, c)
		out = append(appendU32(append(out, id), len(content)), content...)
	})
	return out, true
}

func eachSection(module []byte, do func(id byte, c *cursor)) {
	c := cursor{rest: module[len(preamble):]}
	for len(c.rest) > 0 {
		id := c.byte()
		do(id, &cursor{rest: c.bytes(c.u32())})
	}
}

// look gathers what there is.
func (m *marker) look(id byte, c *cursor) {
	switch id {
	case typeSection:
		m.types = c.u32()
	case importSection:
		for range c.u32() {
			m.lookAt(c)
		}
	case functionSection:
		m.functions = c.u32()
	case exportSection:
		for range c.u32() {
			if name, kind, index := c.export(); kind == 0 {
				m.exported[name] = index
			}
		}
	}
}

// lookAt an import, of a function.
func (m *marker) lookAt(c *cursor) {
	module, name := c.text(), c.text()
	c.byte()
	c.u32()
	rank := slices.IndexFunc(marking, func(f markingFunction) bool { return module == "env" && name == f.name })
	if rank >= 0 && rank < m.rank {
		m.by, m.rank = int(m.imported), rank
	}
	m.imported++
}

// written is a section with what it has more then.
func (m *marker) written(id byte, c *cursor) []byte {
	if id == exportSection {
		return m.exports(c)
	}
	if id != typeSection && id != functionSection && id != codeSection {
		return c.rest
	}
	n := c.u32()
	if id == typeSection {
		return slices.Concat(appendU32(nil, n+1), c.rest, []byte{0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f})
	}
	out := append(appendU32(nil, int(n)+len(ofHeaders)), c.rest...)
	for _, f := range ofHeaders {
		if id == functionSection {
			out = appendU32(out, m.types)
			continue
		}
		body := m.body(f)
		out = append(appendU32(out, len(body)), body...)
	}
	return out
}

// exports are those of the module, with the functions of the marker in the place of its own.
func (m *marker) exports(c *cursor) []byte {
	var out []byte
	n := len(ofHeaders)
	add := func(name string, kind byte, index uint32) {
		out = append(appendU32(out, len(name)), name...)
		out = appendU32(append(out, kind), index)
	}
	for range c.u32() {
		name, kind, index := c.export()
		if kind != 0 || !slices.ContainsFunc(ofHeaders, func(f callback) bool { return f.name == name }) {
			add(name, kind, index)
			n++
		}
	}
	for k, f := range ofHeaders {
		add(f.name, 0, m.imported+m.functions+uint32(k))
	}
	return append(appendU32(nil, n), out...)
}

// body of a function that changes the mark, and then goes on with the module's own. The name is where the module's
// memory begins for as long as the change takes, in which nothing of the module's runs.
func (m *marker) body(f callback) []byte {
	const (
		call, drop, end              = 0x10, 0x1a, 0x0b
		get, set                     = 0x20, 0x21
		load64, store64              = 0x29, 0x37
		const32, const64, saved, i64 = 0x41, 0x42, 3, 0x7e
	)
	out := []byte{1, 1, i64, const32, 0, load64, 0, 0, set, saved, const32, 0, const64}
	out = appendS64(out, inMemory(names.ModuleMark))
	out = append(out, store64, 0, 0, const32, f.of)
	for range marking[m.rank].texts {
		out = append(out, const32, 0, const32, byte(len(names.ModuleMark)))
	}
	out = append(appendU32(append(out, call), m.by), drop, const32, 0, get, saved, store64, 0, 0)
	if own, has := m.exported[f.name]; has {
		out = appendU32(append(out, get, 0, get, 1, get, 2, call), own)
	} else {
		out = append(out, const32, 0)
	}
	return append(out, end)
}

// inMemory is the number that is a text of eight bytes in a memory.
func inMemory(text string) (n int64) {
	for k := len(text) - 1; k >= 0; k-- {
		n = n<<8 | int64(text[k])
	}
	return n
}
