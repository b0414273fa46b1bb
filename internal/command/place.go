// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"sync/atomic"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// place is where a waypoint's proxy runs. Its agent has no rights in the cluster; the operator tells it, which knows it
// from the token of its pod.
type place struct {
	is atomic.Pointer[upstream.Place]
}

// learn takes what the operator's header says.
func (p *place) learn(header metadata.MD) {
	first := func(key string) string {
		if v := header.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	p.is.Store(&upstream.Place{Node: first(names.HeaderNode), Zone: first(names.HeaderZone)})
}

// nearest puts those endpoints first that are near. Before the operator was ever reached there are only those of the
// snapshot, which are in order.
func (p *place) nearest(packed *anypb.Any) (*anypb.Any, error) {
	at := p.is.Load()
	if at == nil {
		return packed, nil
	}
	return upstream.Nearest(packed, *at)
}
