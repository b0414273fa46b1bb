// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"slices"

	"github.com/fairway-mesh/fairway/internal/names"
)

// A function of ours is around each that a module is shown messages by. It holds the module to two things that no proxy
// holds it to.
//
// The module says what becomes of what it is shown: only that it goes on (0), or of a piece of a body that more come
// behind that it is held (1); all else traps. Envoy 1.40 keeps where a piece was that was neither let go nor held
// (statuses 2 and 3 of Proxy-Wasm), or where headers were that didn't go on, and gives it to the module later on, in
// whatever callback, when it is freed. And headers, or the end of a body, that don't go on would wait for ever, past
// all timeouts, for a module may call nothing by which they go on.
//
// And it says that it is there. Where a thread can't start a module that Envoy has taken, for it refuses its
// configuration there, Envoy leaves it out and lets messages pass. So what is shown to a module has a header
// names.ModuleMark of the value names.ModuleUnmarked, and before it is asked about headers, that is changed.

// callback is a function that a module is asked by. All of these have three parameters, of which the last says whether
// this is the end (1) or more comes (0), and one result.
type callback struct {
	name string
	// most pushes the most that it may say.
	most []byte
	// headers: it is about headers, those of the map of this number.
	headers bool
	number  byte
}

// Instructions.
const (
	unreachable, ifVoid, end, call, drop = 0x00, 0x04, 0x0b, 0x10, 0x1a
	get, set, tee                        = 0x20, 0x21, 0x22
	load64, store64                      = 0x29, 0x37
	const32, const64                     = 0x41, 0x42
	greater32, minus32                   = 0x4b, 0x6b
	noResult                             = 0x40
)

// Types of values, and of functions.
const (
	i32, i64, function = 0x7f, 0x7e, 0x60
)

var callbacks = []callback{
	{name: "proxy_on_request_headers", most: goOn, headers: true, number: 0},
	{name: "proxy_on_response_headers", most: goOn, headers: true, number: 2},
	{name: "proxy_on_request_body", most: goOnOrHold},
	{name: "proxy_on_response_body", most: goOnOrHold},
}

var (
	goOn       = []byte{const32, 0}
	goOnOrHold = []byte{const32, 1, get, 2, minus32}
)

type markingFunction struct {
	name  string
	texts int
}

// marking are the functions to change a header by, in the order of preference, and how often they take the text: as its
// name, and as its value.
var marking = []markingFunction{
	{"proxy_remove_header_map_value", 1}, {"proxy_replace_header_map_value", 2}, {"proxy_add_header_map_value", 2},
}

// framer writes functions into a module, behind its own, and their type behind its types, so that no number in it
// changes.
type framer struct {
	types, imported, functions uint32
	// by is one of marking that the module imports, the function of a number; rank is len(marking) without any.
	by, rank int
	// exported are its functions, by name.
	exported map[string]uint32
	// around are the callbacks that get a function.
	around []callback
}

// frame puts functions around those of a module that is valid and links. One that imports nothing to change a header by
// doesn't say that it is there; marked tells that it does.
func frame(module []byte) (out []byte, marked bool) {
	f := &framer{rank: len(marking), exported: map[string]uint32{}}
	eachSection(module, f.look)
	marked = f.rank < len(marking)
	for _, c := range callbacks {
		if _, has := f.exported[c.name]; has || marked && c.headers {
			f.around = append(f.around, c)
		}
	}
	out = bytes.Clone(preamble)
	eachSection(module, func(id byte, c *cursor) {
		content := f.written(id, c)
		out = append(appendU32(append(out, id), len(content)), content...)
	})
	return out, marked
}

func eachSection(module []byte, do func(id byte, c *cursor)) {
	c := cursor{rest: module[len(preamble):]}
	for len(c.rest) > 0 {
		id := c.byte()
		do(id, &cursor{rest: c.bytes(c.u32())})
	}
}

// look gathers what there is.
func (f *framer) look(id byte, c *cursor) {
	switch id {
	case typeSection:
		f.types = c.u32()
	case importSection:
		for range c.u32() {
			f.lookAt(c)
		}
	case functionSection:
		f.functions = c.u32()
	case exportSection:
		for range c.u32() {
			if name, kind, index := c.export(); kind == 0 {
				f.exported[name] = index
			}
		}
	}
}

// lookAt an import, of a function.
func (f *framer) lookAt(c *cursor) {
	module, name := c.text(), c.text()
	c.byte()
	c.u32()
	rank := slices.IndexFunc(marking, func(m markingFunction) bool { return module == "env" && name == m.name })
	if rank >= 0 && rank < f.rank {
		f.by, f.rank = int(f.imported), rank
	}
	f.imported++
}

// written is a section with what it has more then. What links has each of these: its own functions say of what version
// of Proxy-Wasm it is.
func (f *framer) written(id byte, c *cursor) []byte {
	var more [][]byte
	switch id {
	case typeSection:
		more = [][]byte{{function, 3, i32, i32, i32, 1, i32}}
	case functionSection:
		for range f.around {
			more = append(more, appendU32(nil, f.types))
		}
	case codeSection:
		for _, a := range f.around {
			body := f.body(a)
			more = append(more, append(appendU32(nil, len(body)), body...))
		}
	case exportSection:
		return f.exports(c)
	default:
		return c.rest
	}
	n := c.u32()
	return slices.Concat(appendU32(nil, int(n)+len(more)), c.rest, bytes.Join(more, nil))
}

// exports are those of the module, with functions of ours in the place of its own.
func (f *framer) exports(c *cursor) []byte {
	var out []byte
	n := len(f.around)
	add := func(name string, kind byte, index uint32) {
		out = append(appendU32(out, len(name)), name...)
		out = appendU32(append(out, kind), index)
	}
	for range c.u32() {
		name, kind, index := c.export()
		if kind != 0 || !slices.ContainsFunc(f.around, func(a callback) bool { return a.name == name }) {
			add(name, kind, index)
			n++
		}
	}
	for k, a := range f.around {
		add(a.name, 0, f.imported+f.functions+uint32(k))
	}
	return append(appendU32(nil, n), out...)
}

// body of a function around a callback, behind whose parameters it has two more locals.
func (f *framer) body(a callback) []byte {
	const saved, said = 3, 4
	out := []byte{2, 1, i64, 1, i32}
	if a.headers && f.rank < len(marking) {
		out = f.changeMark(out, saved, a.number)
	}
	own, has := f.exported[a.name]
	if !has {
		return append(out, const32, 0, end)
	}
	out = appendU32(append(out, get, 0, get, 1, get, 2, call), own)
	out = append(append(out, tee, said), a.most...)
	return append(out, greater32, ifVoid, noResult, unreachable, end, get, said, end)
}

// changeMark changes it in a map of headers. Its name is where the module's memory begins for as long as that takes, in
// which nothing of the module's runs.
func (f *framer) changeMark(out []byte, saved, number byte) []byte {
	out = append(out, const32, 0, load64, 0, 0, set, saved, const32, 0, const64)
	out = appendS64(out, inMemory(names.ModuleMark))
	out = append(out, store64, 0, 0, const32, number)
	for range marking[f.rank].texts {
		out = append(out, const32, 0, const32, byte(len(names.ModuleMark)))
	}
	return append(appendU32(append(out, call), f.by), drop, const32, 0, get, saved, store64, 0, 0)
}

// inMemory is the number that is a text of eight bytes in a memory.
func inMemory(text string) (n int64) {
	for k := len(text) - 1; k >= 0; k-- {
		n = n<<8 | int64(text[k])
	}
	return n
}
