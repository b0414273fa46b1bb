// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"errors"
	"fmt"
)

var errEnds = errors.New("it is no valid WebAssembly: it ends too early, or a number in it is too large")

// cursor reads the binary format of WebAssembly. Once something is wrong it reads nothing but zeros.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.rest = nil
}

func (c *cursor) refuse(format string, args ...any) { c.fail(fmt.Errorf(format, args...)) }

func (c *cursor) byte() byte {
	if len(c.rest) == 0 {
		c.fail(errEnds)
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

func (c *cursor) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(c.rest)) {
		c.fail(errEnds)
		return nil
	}
	out := c.rest[:n]
	c.rest = c.rest[n:]
	return out
}

// u32 is a number in LEB128.
func (c *cursor) u32() uint32 {
	var n uint64
	for shift := 0; shift < 35; shift += 7 {
		b := c.byte()
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if n > 1<<32-1 {
				break
			}
			return uint32(n)
		}
	}
	c.fail(errEnds)
	return 0
}

// leb passes over a number of any size.
func (c *cursor) leb() {
	for range 10 {
		if c.byte()&0x80 == 0 {
			return
		}
	}
	c.fail(errEnds)
}

// each reads so many of something as the module says, of which there may be some, and each has a byte at least.
func (c *cursor) each(what string, most uint32, read func()) uint32 {
	n := c.u32()
	switch {
	case n > most:
		c.refuse("it has %d %s, and can have %d", n, what, most)
	case uint64(n) > uint64(len(c.rest)):
		c.fail(errEnds)
	}
	for k := uint32(0); k < n && c.err == nil; k++ {
		read()
	}
	return n
}

// text is a name.
func (c *cursor) text() string { return string(c.bytes(c.u32())) }

// export is what is exported by a name, of a kind that is 0 for functions.
func (c *cursor) export() (name string, kind byte, index uint32) { return c.text(), c.byte(), c.u32() }

func (c *cursor) name() {
	const longest = 1024
	if n := c.u32(); n > longest {
		c.refuse("it has a name of %d bytes, and names can have %d", n, longest)
	} else {
		c.bytes(n)
	}
}

// constant passes over an expression that gives a constant.
func (c *cursor) constant() {
	for c.err == nil {
		switch op := c.byte(); op {
		case 0x0b: // end
			return
		case 0x23, 0xd2: // global.get, ref.func
			c.u32()
		case 0x41, 0x42: // i32.const, i64.const
			c.leb()
		case 0x43: // f32.const
			c.bytes(4)
		case 0x44: // f64.const
			c.bytes(8)
		case 0xd0: // ref.null
			c.byte()
		case 0xfd: // v128.const
			if c.byte() != 0x0c {
				c.fail(errConstant)
			}
			c.bytes(16)
		default:
			c.fail(errConstant)
		}
	}
}

var errConstant = errors.New("it is no valid WebAssembly: an expression is no constant")

// appendS64 writes a number with a sign in LEB128.
func appendS64(out []byte, n int64) []byte {
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func appendU32[N int | uint32](out []byte, n N) []byte {
	for n >= 0x80 {
		out = append(out, byte(n&0x7f)|0x80)
		n >>= 7
	}
	return append(out, byte(n&0x7f))
}
