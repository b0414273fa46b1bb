// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"errors"
)

// What a module may have. Engines make something for each of these before they know whether the rest is any good, and
// a few bytes can ask for a lot of some.
const (
	pageBytes   = 64 << 10
	mostPages   = 512   // 32 MiB, of each of a proxy's threads
	mostEntries = 65536 // of a table, for which a proxy has some bytes each

	mostTypes, mostParameters, mostResults = 4096, 64, 16
	mostImports, mostExports               = 512, 4096
	mostFunctions, mostLocals, mostOfAll   = 20_000, 4096, 1 << 18
	mostTables, mostGlobals, mostSegments  = 4, 10_000, 16_384
)

// Sections, by their numbers.
const (
	custom = iota
	typeSection
	importSection
	functionSection
	tableSection
	memorySection
	globalSection
	exportSection
	startSection
	elementSection
	codeSection
	dataSection
	dataCountSection
)

var preamble = []byte("\x00asm\x01\x00\x00\x00")

// bound measures a module, and writes bounds into it: a memory that may grow for ever, and tables, grow to what there
// is for them and no further.
func bound(module []byte) (*Module, error) {
	if !bytes.HasPrefix(module, preamble) {
		return nil, errors.New("it is no module in WebAssembly: it doesn't begin like one")
	}
	b := &bounder{cursor: cursor{rest: module[len(preamble):]}, out: &Module{Code: bytes.Clone(preamble)}}
	for len(b.rest) > 0 && b.err == nil {
		b.section()
	}
	if b.err == nil && b.out.Memory == 0 {
		b.refuse("it has no memory of its own")
	}
	return b.out, b.err
}

type bounder struct {
	cursor
	last   byte // section
	out    *Module
	locals uint64
}

// section copies one, unless it is for tools.
func (b *bounder) section() {
	id := b.byte()
	content := b.bytes(b.u32())
	if b.err != nil || id == custom {
		return
	}
	if id != dataCountSection {
		if id <= b.last {
			b.refuse("it is no valid WebAssembly: its sections are in another order")
		}
		b.last = id
	}
	in := &bounder{cursor: cursor{rest: content}, out: b.out, locals: b.locals}
	switch id {
	case typeSection:
		in.each("types", mostTypes, in.functionType)
	case importSection:
		in.each("imports", mostImports, in.imported)
	case functionSection:
		in.each("functions", mostFunctions, func() { in.u32() })
	case tableSection:
		content = in.tables()
	case memorySection:
		content = in.memory()
	case globalSection:
		in.each("globals", mostGlobals, func() { in.bytes(2); in.constant() })
	case exportSection:
		in.each("exports", mostExports, func() { in.name(); in.byte(); in.u32() })
	case startSection, dataCountSection:
		in.u32()
	case elementSection:
		in.each("element segments", mostSegments, in.elements)
	case codeSection:
		in.each("functions", mostFunctions, in.code)
	case dataSection:
		in.each("data segments", mostSegments, in.data)
	default:
		in.refuse("it has a section of kind %d, of no standard that proxies know: build it without proposals", id)
	}
	if in.err == nil && len(in.rest) > 0 {
		in.refuse("it is no valid WebAssembly: something is behind the end of a section")
	}
	if in.err != nil {
		b.fail(in.err)
		return
	}
	b.out.Code = append(appendU32(append(b.out.Code, id), len(content)), content...)
}

func (b *bounder) functionType() {
	if b.byte() != 0x60 {
		b.refuse("it has a type that is none of a function: build it without proposals")
	}
	value := func() {
		switch t := b.byte(); t {
		case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
		default:
			b.refuse("it has a value of type %#x: build it without proposals", t)
		}
	}
	b.each("parameters of a function", mostParameters, value)
	b.each("results of a function", mostResults, value)
}

func (b *bounder) imported() {
	b.name()
	b.name()
	if b.byte() != 0 {
		b.refuse("it imports something else than functions, which proxies have none of")
	}
	b.u32()
}

// limits are how large something is, and may become.
func (b *bounder) limits(what string, most uint32) (from, to uint32) {
	flag := b.byte()
	if flag > 1 {
		b.refuse("it has %s of a kind that proxies don't know: build it without threads, and for 32 bits", what)
	}
	from, to = b.u32(), most
	if flag == 1 {
		if to = b.u32(); to < from {
			b.refuse("it is no valid WebAssembly: %s that may have less than it has", what)
		}
	}
	if from > most {
		b.refuse("it begins with %s of %d, and can have %d", what, from, most)
	}
	return from, min(to, most)
}

func (b *bounder) tables() []byte {
	var all []byte
	n := b.each("tables", mostTables, func() {
		kind := b.byte()
		if kind != 0x70 && kind != 0x6f {
			b.refuse("it has a table of %#x: build it without proposals", kind)
		}
		from, to := b.limits("a table", mostEntries)
		all = appendU32(appendU32(append(all, kind, 1), from), to)
	})
	return append(appendU32(nil, n), all...)
}

func (b *bounder) memory() []byte {
	var all []byte
	n := b.each("memories", 1, func() {
		from, to := b.limits("a memory in pages of 64 KiB", mostPages)
		all = appendU32(appendU32(append(all, 1), from), to)
		b.out.Memory = int(max(to, 1)) * pageBytes
	})
	return append(appendU32(nil, n), all...)
}

func (b *bounder) code() {
	body := &cursor{rest: b.bytes(b.u32())}
	var own uint64
	body.each("declarations of locals", mostLocals, func() {
		own += uint64(body.u32())
		body.byte()
	})
	if b.locals += own; own > mostLocals || b.locals > mostOfAll {
		b.refuse("it has a function of %d locals, and all together %d: they can have %d and %d", own, b.locals, mostLocals,
			mostOfAll)
	}
	if body.err != nil {
		b.fail(body.err)
	}
}

func (b *bounder) data() {
	switch kind := b.u32(); kind {
	case 0:
		b.constant()
	case 1:
	case 2:
		b.u32()
		b.constant()
	default:
		b.refuse("it is no valid WebAssembly: data of kind %d", kind)
	}
	b.bytes(b.u32())
}

// elements are of eight kinds: three bits say whether they are put anywhere, where, and whether they are expressions.
func (b *bounder) elements() {
	kind := b.u32()
	if kind > 7 {
		b.refuse("it is no valid WebAssembly: elements of kind %d", kind)
	}
	passive, explicit, expressions := kind&1 != 0, kind&2 != 0, kind&4 != 0
	if !passive {
		if explicit {
			b.u32()
		}
		b.constant()
	}
	if passive || explicit {
		b.byte()
	}
	b.each("elements", MostBytes, func() {
		if expressions {
			b.constant()
		} else {
			b.u32()
		}
	})
}
