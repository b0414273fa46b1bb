// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"slices"
)

// Envoy 1.40 keeps where a piece of a body was that a module neither let go nor has Envoy hold (statuses 2 and 3 of
// Proxy-Wasm), and gives it to the module later on, in whatever callback, when it is freed. So it does with headers
// that a module did not let go on, also when another answer has taken their place; and those would wait for ever, past
// all timeouts, for a module may call nothing by which they go on. Likewise the end of a body. So a function of ours is
// before each that is shown a message, and traps where that says anything else than to go on (0), or to hold a piece of
// a body that more come behind (1).

// shown are the functions that are shown messages, and what pushes the most that each may say. The last parameter of
// each says whether this is the end (1) or more comes (0).
var shown = map[string][]byte{
	"proxy_on_request_headers": goOn, "proxy_on_response_headers": goOn,
	"proxy_on_request_body": goOnOrHold, "proxy_on_response_body": goOnOrHold,
}

var (
	goOn       = []byte{0x41, 0}                // i32.const
	goOnOrHold = []byte{0x41, 1, 0x20, 2, 0x6b} // i32.const; local.get; i32.sub
)

// held is a module with these functions. The module has been measured already.
func held(module []byte) ([]byte, error) {
	h := &holder{bounder: bounder{cursor: cursor{rest: module[len(preamble):]}}}
	type section struct {
		id      byte
		content []byte
	}
	var sections []section
	for len(h.rest) > 0 && h.err == nil {
		s := section{id: h.byte()}
		s.content = h.bytes(h.u32())
		sections = append(sections, s)
		h.look(s.id, s.content)
	}
	out := bytes.Clone(preamble)
	for _, s := range sections {
		switch s.id {
		case functionSection:
			s.content = more(s.content, h.types)
		case exportSection:
			s.content = h.exports
		case codeSection:
			s.content = more(s.content, h.bodies)
		}
		out = append(appendU32(append(out, s.id), len(s.content)), s.content...)
	}
	return out, h.err
}

// more is a vector with some more items.
func more(content []byte, items [][]byte) []byte {
	c := cursor{rest: content}
	n := c.u32()
	return slices.Concat(appendU32(nil, int(n)+len(items)), c.rest, bytes.Join(items, nil))
}

type holder struct {
	bounder
	last     byte   // section
	fits     []bool // types, whether they are those of shown, iii:i
	imported uint32
	own      []uint32 // types of functions
	count    uint32   // of functions, those of ours included
	exports  []byte
	// types and bodies of the functions of ours.
	types, bodies [][]byte
}

func (h *holder) look(id byte, content []byte) {
	if id != dataCountSection {
		if id <= h.last {
			h.refuse("it is no valid WebAssembly: its sections are in another order")
		}
		h.last = id
	}
	in := &bounder{cursor: cursor{rest: content}}
	switch id {
	case typeSection:
		const i32 = "\x7f"
		in.each("types", mostTypes, func() {
			in.byte()
			parameters, results := string(in.bytes(in.u32())), string(in.bytes(in.u32()))
			h.fits = append(h.fits, parameters == i32+i32+i32 && results == i32)
		})
	case importSection:
		in.each("imports", mostImports, in.imported)
		c := cursor{rest: content}
		h.imported = c.u32()
	case functionSection:
		h.count = in.each("functions", mostFunctions, func() { h.own = append(h.own, in.u32()) })
	case exportSection:
		h.export(in)
	}
	if in.err != nil {
		h.fail(in.err)
	}
}

// export writes exports anew, of which those of shown are functions of ours.
func (h *holder) export(in *bounder) {
	var all []byte
	n := in.each("exports", mostExports, func() {
		before := in.rest
		in.name()
		name := before[:len(before)-len(in.rest)]
		kind, at := in.byte(), in.u32()
		c := cursor{rest: name}
		if most, is := shown[string(c.bytes(c.u32()))]; is && kind == 0 {
			at = h.before(at, most)
		}
		all = appendU32(append(append(all, name...), kind), at)
	})
	h.exports = append(appendU32(nil, n), all...)
}

// before a function comes one of ours, whose number this returns. What has another type is refused later.
func (h *holder) before(at uint32, most []byte) uint32 {
	if at < h.imported {
		h.refuse("it exports a function that it imports, to be shown messages: export one of its own")
		return at
	}
	n := int(at - h.imported)
	if n >= len(h.own) || int(h.own[n]) >= len(h.fits) || !h.fits[h.own[n]] {
		return at
	}
	number := h.imported + h.count
	h.count++
	h.types = append(h.types, appendU32(nil, h.own[n]))
	body := []byte{1, 1, 0x7f, 0x20, 0, 0x20, 1, 0x20, 2, 0x10}      // a local; its parameters; call
	body = slices.Concat(appendU32(body, at), []byte{0x22, 3}, most, // local.tee; the most
		[]byte{0x4b, 0x04, 0x40, 0x00, 0x0b, 0x20, 3, 0x0b}) // i32.gt_u: unreachable; the result
	h.bodies = append(h.bodies, append(appendU32(nil, len(body)), body...))
	return number
}
