// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// Extension is what configurations of filters (ECDS) have in common that differ by nothing but their name. Envoy wants
// each under a name of its own, and the name in it. So that thousands cost little more than one, it is marshalled and
// hashed once, and put together with a name whenever a stream is sent it.
type Extension struct {
	// body is the marshalled configuration but for the name.
	body    []byte
	version string
}

// NewExtension marshals the configuration of a filter; see NewResource.
func NewExtension(config *anypb.Any, origin ...string) (*Extension, error) {
	m := &corev3.TypedExtensionConfig{TypedConfig: config}
	body, err := deterministic.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("extension: %w", err)
	}
	return &Extension{body: body, version: versionOf(body, origin...)}, nil
}

// Equal tells whether both have the same content; a nil one equals only nil.
func (e *Extension) Equal(o *Extension) bool {
	return e == o || e != nil && o != nil && e.version == o.version
}

// Named is the resource of a name. Resources of one Extension share its memory.
func (e *Extension) Named(name string) (*Resource, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return &Resource{name: name, version: e.version, extension: e}, nil
}

// fieldName is the number of TypedExtensionConfig.name.
const fieldName = 1

func (e *Extension) packed(name string) *anypb.Any {
	value := make([]byte, 0, e.size(name))
	value = protowire.AppendTag(value, fieldName, protowire.BytesType)
	value = protowire.AppendString(value, name)
	return &anypb.Any{TypeUrl: TypeExtension, Value: append(value, e.body...)}
}

func (e *Extension) size(name string) int {
	return protowire.SizeTag(fieldName) + protowire.SizeBytes(len(name)) + len(e.body)
}
