// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Piece is some values of a repeated field, marshalled and hashed once. A message may have thousands, of which one
// changes: it is put together of pieces, and neither marshals, hashes nor holds again what stayed.
type Piece struct {
	records []byte
	sum     [sha256.Size]byte
}

// NewPiece marshals values of a field.
func NewPiece[M proto.Message](field protowire.Number, values ...M) (*Piece, error) {
	p := &Piece{}
	for _, m := range values {
		value, err := deterministic.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("a value of field %d: %w", field, err)
		}
		p.records = protowire.AppendTag(p.records, field, protowire.BytesType)
		p.records = protowire.AppendBytes(p.records, value)
	}
	p.sum = sha256.Sum256(p.records)
	return p, nil
}

// Equal tells whether both have the same values; a nil one equals only nil.
func (p *Piece) Equal(o *Piece) bool { return p == o || p != nil && o != nil && p.sum == o.sum }

// composed is a message whose field `within` has one value, of which the pieces are the rest.
type composed struct {
	typeURL      string
	frame, inner []byte
	within       protowire.Number
	pieces       []*Piece
	innerSize    int
}

// NewComposed is NewResource of a message put together: of m, and of one value of its field `within`, which is the inner
// message and then the pieces.
func NewComposed(
	name string, m proto.Message, within protowire.Number, inner proto.Message, pieces []*Piece, origin ...string,
) (*Resource, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c := &composed{typeURL: "type.googleapis.com/" + string(proto.MessageName(m)), within: within, pieces: pieces}
	var err error
	if c.frame, err = deterministic.Marshal(m); err == nil {
		c.inner, err = deterministic.Marshal(inner)
	}
	if err != nil {
		return nil, fmt.Errorf("resource %q: %w", name, err)
	}
	c.innerSize = len(c.inner)
	h := sha256.New()
	for _, part := range [][]byte{c.frame, c.inner} {
		h.Write(protowire.AppendBytes(nil, part)) // with its length
	}
	for _, p := range pieces {
		c.innerSize += len(p.records)
		h.Write(p.sum[:])
	}
	return &Resource{name: name, version: versionOf(h.Sum(nil), origin...), composed: c}, nil
}

func (c *composed) size() int {
	return len(c.frame) + protowire.SizeTag(c.within) + protowire.SizeBytes(c.innerSize)
}

func (c *composed) packed() *anypb.Any {
	out := append(make([]byte, 0, c.size()), c.frame...)
	out = protowire.AppendTag(out, c.within, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(c.innerSize)) //nolint:gosec // a length
	out = append(out, c.inner...)
	for _, p := range c.pieces {
		out = append(out, p.records...)
	}
	return &anypb.Any{TypeUrl: c.typeURL, Value: out}
}
